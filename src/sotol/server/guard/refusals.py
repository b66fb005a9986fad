"""Sends problems as ASGI messages, in the dialect of the request's path, before or within an answer."""

import json

from starlette.types import Scope, Send

from sotol.server.guard.visit import visit_of
from sotol.server.problems import Problem, dialect_of, problem_body, problem_status

__all__ = ["STREAMED", "problem_event", "route_path", "send_problem"]

STREAMED = {b"text/event-stream", b"application/x-ndjson"}  # answers that can still tell of an error


def route_path(scope: Scope) -> str:
    """The path of a request below the server's root path."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if root and (path + "/").startswith(root + "/") else path


async def send_problem(scope: Scope, send: Send, problem: Problem, *, close: bool = False) -> None:
    """Answer with an error. close: the connection ends with it."""
    dialect = dialect_of(route_path(scope))
    body = json.dumps(problem_body(dialect, problem, visit_of(scope).id)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if problem.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if problem.retry_after is not None:
        headers.append((b"retry-after", b"%d" % problem.retry_after))
    if close:
        headers.append((b"connection", b"close"))
    status = problem_status(dialect, problem)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def problem_event(scope: Scope, kind: bytes, problem: Problem) -> bytes:
    """What tells of an error where an answer of this content type streams already: an event, or a line of JSON."""
    path = route_path(scope)
    dialect = dialect_of(path)
    if path.startswith("/v1/responses"):  # the error event of this endpoint is flat
        body = {"type": "error", "code": problem.code, "message": problem.message, "param": problem.param}
        return b"event: error\ndata: " + json.dumps(body).encode() + b"\n\n"
    text = json.dumps(problem_body(dialect, problem, visit_of(scope).id)).encode()
    if kind == b"application/x-ndjson":
        return text + b"\n"
    return b"event: error\ndata: " + text + b"\n\n"
