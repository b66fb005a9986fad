"""What all routes of an application share, and how they read a request."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import Request
from starlette.types import Scope

from sotol.engine.options import Sampling, Terms
from sotol.errors import plain
from sotol.prompts import Prompt
from sotol.results import Completion
from sotol.server.body import BODY_BYTES, read_json
from sotol.server.leases import leased
from sotol.server.models import Models, Served
from sotol.server.preparing import FIELDS, Preparing
from sotol.server.problems import Dialect, Problem, refusing
from sotol.server.running import Event, Run, start, watching, whole
from sotol.server.store import Store

__all__ = ["Limits", "LimitsLike", "Nothing", "Service", "Surroundings", "longer_than"]

M = TypeVar("M", bound=BaseModel)


class LimitsLike(Protocol):
    """What `create_app` reads of an operator's settings, where `sotol.server.settings` says what each means."""

    @property
    def body_bytes(self) -> int: ...
    @property
    def prompt_tokens(self) -> int | None: ...
    @property
    def answer_tokens(self) -> int | None: ...
    @property
    def choices(self) -> int: ...
    @property
    def schema_bytes(self) -> int: ...


class Limits(NamedTuple):
    """The limits where nobody sets others.

    body_bytes: of a request. prompt_tokens, answer_tokens: of one prompt and of one answer, None being what the context
    holds; an answer that would be longer ends there, as with the request's own max_tokens. choices: answers of a
    request. schema_bytes: of a schema, a regular expression or a grammar, and of all tools together.
    """

    body_bytes: int = BODY_BYTES
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    choices: int = 16
    schema_bytes: int = 1 << 20


class Surroundings(Protocol):
    """What is around an application: guards that know who asks, and operators that want to know what was answered."""

    def client(self, scope: Scope) -> Hashable:
        """Who asks: requests of one client share the engine with those of others, however many they are."""
        ...

    def owner(self, _: Scope, /) -> str:
        """Whose conversations a request is about, the same after a restart; "" where there is nobody to tell apart."""
        ...

    def request_id(self, scope: Scope) -> str | None:
        """The id that a request was given, if it was."""
        ...

    def finished(self, scope: Scope, model: str, completion: Completion) -> None:
        """An answer is complete. Called on the event loop: quick."""
        ...


class Nothing:
    """No surroundings: clients are addresses."""

    def client(self, scope: Scope) -> Hashable:
        """The address."""
        client = scope.get("client")
        return str(client[0]) if client else "local"

    def owner(self, _: Scope, /) -> str:
        """Nobody is told apart."""
        return ""

    def request_id(self, scope: Scope) -> str | None:
        """None: nobody gives any."""
        return scope.get("request_id")

    def finished(self, scope: Scope, model: str, completion: Completion) -> None:
        """Nobody wants to know."""


@dataclass(frozen=True, eq=False)
class Service:
    """What an application serves, within which limits, and what is around it."""

    models: Models
    limits: LimitsLike
    around: Surroundings
    responses: Store
    prepare: Preparing

    async def read(self, request: Request, kind: type[M], dialect: Dialect) -> M:
        """The request's body, valid. Problem says what is wrong with it."""
        data = await read_json(request.headers, request.receive, self.limits.body_bytes)

        def validated() -> M:
            try:
                return kind.model_validate(data)
            except ValidationError as error:
                raise _problem(error, dialect) from None

        length = request.headers.get("content-length", "")
        small = length.isdecimal() and int(length) < 1 << 16
        return validated() if small else await self.prepare.run(validated)

    async def find(
        self, http: Request, name: str | None, *, comment: str | None = None, keep_alive: float | None = None
    ) -> Served:
        """The model of a name, loaded, which stays until the answer is out. Problem if there is none.

        comment: what a stream may send while the model is being loaded. keep_alive: see `Models.open`.
        """
        lease = self.models.open_now(name, keep_alive)
        opening = asyncio.ensure_future(self.models.open(name, keep_alive)) if lease is None else lease
        return await leased(http.scope, http.receive, opening, comment)

    def sampling(self, served: Served, changes: Mapping[str, Any], names: Mapping[str, str]) -> Sampling:
        """The model's sampling with what a request says, None standing for what it does not. Problem for a bad value.

        names: what the dialect calls the fields of `Sampling`.
        """
        given = {name: value for name, value in changes.items() if value is not None}
        for name in ("schema", "regex", "grammar"):
            if name in given:
                self.check_schema(given[name], names.get(name, name))
        with refusing(names={**{name: name for name in given}, **names}):
            sampling = Sampling.of(served.defaults, **given)
        most = self.limits.answer_tokens
        if most is None or (sampling.max_tokens or served.llm.context) <= most:
            return sampling
        return replace(sampling, max_tokens=most)

    def check_schema(self, schema: object, param: str) -> None:
        """Problem for a schema, or what else is compiled, that is too long."""
        if longer_than(schema, self.limits.schema_bytes):
            raise Problem(400, f"{param} has more than {self.limits.schema_bytes} characters", param=param)

    def check_choices(self, count: int, param: str = "n") -> None:
        """Problem for more answers than a request may ask for."""
        most = self.limits.choices
        if count > most:
            raise Problem(400, f"{param} asks for {count} answers; this server gives up to {most}", param=param)

    def owner(self, http: Request) -> Hashable:
        """Whose responses a request is about: its key's, or its address's where there are no keys."""
        return self.around.owner(http.scope) or self.around.client(http.scope)

    def start(self, http: Request, served: Served, prompts: Sequence[Prompt], sampling: Sampling, each: int = 1) -> Run:
        """Begin `each` answers to each prompt, for who asks; see `running.start`."""
        with refusing("prompt", names=FIELDS):
            return start(served.llm, prompts, sampling, Terms(client=self.around.client(http.scope)), each)

    async def whole(self, http: Request, served: Served, run: Run) -> list[Completion]:
        """All answers, once they are finished; ClientGone as soon as nobody waits for them."""
        completions = await whole(run, http.receive)
        for completion in completions:
            self.around.finished(http.scope, served.name, completion)
        return completions

    async def exhausted(self, http: Request, run: Run, events: AsyncGenerator[Any, None]) -> None:
        """Goes through the events of a run that nobody wants to see; ClientGone as soon as nobody waits."""
        watch = asyncio.ensure_future(watching(run, http.receive))
        try:
            with run:
                async for _ in events:
                    pass
        finally:
            watch.cancel()
            await events.aclose()

    async def events(self, http: Request, served: Served, run: Run) -> AsyncIterator[Event]:
        """What comes of all answers, as it comes."""
        async for number, event in run.events():
            if isinstance(event, Completion):
                self.around.finished(http.scope, served.name, event)
            yield number, event


def longer_than(value: object, limit: int) -> bool:
    """Whether JSON data has more than so many characters, nearly; looks at no more of it than that takes."""
    left, waiting = limit, [value]
    while waiting and left >= 0:
        item = waiting.pop()
        if isinstance(item, str):
            left -= len(item)
        elif isinstance(item, Mapping):
            left -= sum(len(key) + 4 for key in item)
            waiting += item.values()
        elif isinstance(item, list | tuple):
            left -= len(item)
            waiting += item
        else:
            left -= len(str(item))
    return left < 0


def _problem(error: ValidationError, dialect: Dialect) -> Problem:
    """The first thing that is wrong, as the dialect's service would put it."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    # Of a union the alternative that came nearest: its errors lie deepest, and are the fewest.
    counts = Counter(e["loc"][:2] for e in found)
    first = min(found, key=lambda e: (-len(e["loc"]), counts[e["loc"][:2]])) if _one_field(found) else found[0]
    where, kind = _where(first["loc"], dialect), first["type"]
    message = plain(first["msg"].removeprefix("Value error, "), 300)
    if dialect != "openai":
        said = {"extra_forbidden": "Extra inputs are not permitted", "missing": "Field required"}.get(kind, message)
        return Problem(400, f"{where}: {said}", param=where)
    if kind == "extra_forbidden":
        name = plain(first["loc"][-1], 80)
        return Problem(400, f"Unrecognized request argument supplied: {name}", param=where, code="unknown_parameter")
    if kind == "missing":
        return Problem(400, f"Missing required parameter: '{where}'", param=where, code="missing_required_parameter")
    return Problem(400, f"Invalid '{where}': {message}", param=where, code="invalid_value")


def _one_field(found: Sequence[ErrorDetails]) -> bool:
    return len({e["loc"][:1] for e in found}) == 1


def _where(place: tuple[int | str, ...], dialect: Dialect) -> str:
    """messages[0].content, or messages.0.content; without the names of a union's alternatives, which are no keys."""
    out = ""
    for key in place:
        if isinstance(key, int):
            out += f"[{key}]" if dialect == "openai" else f".{key}"
        elif key.isidentifier() and not key[0].isupper() and key not in ("str", "list", "dict", "bool", "int", "float"):
            out += f".{key}" if out else key
    return plain(out, 120) or "body"
