"""What the guards know about a request, and what whoever answers it tells them. It travels in the ASGI scope."""

from dataclasses import dataclass

from starlette.types import Scope

from sotol.results import Completion

__all__ = ["Visit", "visit_of"]

KEY = "sotol.visit"


@dataclass(slots=True, eq=False)
class Visit:
    """A request: for limits, metrics and the log. None of it is from what it asks.

    client: whose limits it counts against, and who shares the engine fairly with others (`Terms.client`): the number of
    its key, or its address. owner: its key by a digest, which stays when keys are added; "" without keys.
    route: the pattern of the path, one of a few. Counts are those of finished answers.
    """

    id: str
    client: str
    owner: str = ""
    route: str = ""
    model: str = ""
    answers: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0

    @property
    def tokens(self) -> int:
        """What the answers cost: of prompt and answer together."""
        return self.prompt_tokens + self.completion_tokens

    def count(self, model: str, completion: Completion) -> None:
        """Add a finished answer of a model. A prompt with several answers counts once for each."""
        usage = completion.usage
        self.model = model
        self.answers += 1
        self.prompt_tokens += usage.prompt_tokens
        self.cached_tokens += usage.cached_tokens
        self.completion_tokens += usage.completion_tokens


def visit_of(scope: Scope) -> Visit:
    """The visit of a request; one that counts for nobody where there are no guards."""
    visit = scope.get(KEY)
    if not isinstance(visit, Visit):
        client = scope.get("client")
        visit = scope[KEY] = Visit("", str(client[0]) if client else "local")
    return visit
