"""What goes wrong with a request, and how each dialect says so. Knows nothing of routes or of a web framework."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

from sotol.errors import QueueFullError, SotolError, TemplateError

__all__ = ["Dialect", "Problem", "dialect_of", "problem_body", "problem_of", "problem_status", "refusing"]

Dialect: TypeAlias = Literal["openai", "anthropic", "ollama"]
RETRY_SECONDS = 1  # when a full queue is worth another try: requests end all the time

# The `type` of an error by its status: https://platform.openai.com/docs/guides/error-codes
OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    429: "rate_limit_error",
    499: "client_closed_request",
}
# https://docs.anthropic.com/en/api/errors
ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class Problem(Exception):
    """Why a request is refused or has failed, in no dialect.

    status: of HTTP. param: the field that is to blame. code: a word for programs. retry_after: seconds after which
    another try may succeed.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_after = retry_after


def problem_of(error: BaseException) -> Problem | None:
    """The problem that an exception stands for; None for one that is nobody's request's fault, a bug."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, QueueFullError):
        return Problem(503, str(error), code="queue_full", retry_after=RETRY_SECONDS)
    if isinstance(error, TemplateError):
        return Problem(400, str(error), param="messages")
    if isinstance(error, SotolError):
        return Problem(500, str(error))
    return None


@contextmanager
def refusing(param: str | None = None, *, names: Mapping[str, str] | None = None) -> Iterator[None]:
    """Turns a ValueError of its block, which is about what the request says, into a 400.

    param: the field to blame, unless the message begins with the name of one: names has those, and what the dialect
    calls them.
    """
    try:
        yield
    except ValueError as error:
        message = str(error)
        first = message.split(" ", 1)[0].split("[", 1)[0]
        said = (names or {}).get(first)
        if said is not None and said != first:
            message = said + message.removeprefix(first)
        raise Problem(400, message, param=said or param) from error


def dialect_of(path: str) -> Dialect:
    """The dialect of a path, without what the application is mounted below."""
    if path.startswith("/v1/messages"):
        return "anthropic"
    return "ollama" if path.startswith("/api/") else "openai"


def problem_status(dialect: Dialect, problem: Problem) -> int:
    """The status in a dialect: Anthropic has one of its own for a service that has too much to do."""
    return 529 if dialect == "anthropic" and problem.status == 503 else problem.status


def problem_body(dialect: Dialect, problem: Problem, request_id: str | None = None) -> dict[str, Any]:
    """What a dialect says of a problem, as JSON."""
    return _BODIES[dialect](problem, request_id)


def _openai(problem: Problem, request_id: str | None) -> dict[str, Any]:
    del request_id  # it is a header
    default = "server_error" if problem.status >= 500 else "invalid_request_error"
    kind = OPENAI_TYPES.get(problem.status, default)
    return {"error": {"message": problem.message, "type": kind, "param": problem.param, "code": problem.code}}


def _anthropic(problem: Problem, request_id: str | None) -> dict[str, Any]:
    status = problem_status("anthropic", problem)
    kind = ANTHROPIC_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    where = f"{problem.param}: " if problem.param and not problem.message.startswith(problem.param) else ""
    return {"type": "error", "error": {"type": kind, "message": where + problem.message}, "request_id": request_id}


def _ollama(problem: Problem, request_id: str | None) -> dict[str, Any]:
    del request_id
    return {"error": problem.message}


_BODIES: dict[Dialect, Callable[[Problem, str | None], dict[str, Any]]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "ollama": _ollama,
}
