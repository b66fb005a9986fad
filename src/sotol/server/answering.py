"""Answers over HTTP: JSON, and events that stream while a client is there. Errors are in the dialect of the route."""

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from sotol.errors import FormatError, ModelError, ModelNotFoundError
from sotol.server.body import ClientGone
from sotol.server.problems import Dialect, Problem, problem_body, problem_of, problem_status
from sotol.server.running import Run, watching

__all__ = ["EVENTS", "LINES", "LOADING", "Streamed", "answer", "dumps", "handled", "refusal", "sse", "token"]

log = logging.getLogger("sotol.server")
BEAT_SECONDS = 15.0  # of silence, after which a stream says that it is alive: proxies close silent ones after 30 or 60
LOADING = ": loading the model\n\n"  # a comment, for a stream that waits for that
JSON, EVENTS, LINES = "application/json", "text/event-stream; charset=utf-8", "application/x-ndjson"
# Proxies must neither keep events nor hold them back.
STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
NEWLINES = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}  # characters that some clients end a line at
INTERNAL = "internal error: the server's log says more"
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)

Handler = Callable[[Request], Awaitable[Response]]


def dumps(value: object) -> str:
    """JSON on one line, whatever a client takes for the end of a line."""
    text = _ENCODER.encode(value)
    return text if text.isascii() else text.translate(NEWLINES)


def sse(value: object, event: str | None = None) -> str:
    """A server-sent event (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
    return f"data: {dumps(value)}\n\n" if event is None else f"event: {event}\ndata: {dumps(value)}\n\n"


def token(length: int = 24) -> str:
    """The random part of an id."""
    return secrets.token_hex(length // 2)


def answer(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer. Half a surrogate pair, which metadata of a file may have, becomes a question mark."""
    return Response(dumps(value).encode(errors="replace"), status, headers, JSON)


def refusal(dialect: Dialect, problem: Problem, request_id: str | None = None) -> Response:
    """A problem as an answer."""
    wait = {} if problem.retry_after is None else {"retry-after": str(problem.retry_after)}
    return answer(problem_body(dialect, problem, request_id), problem_status(dialect, problem), wait)


def handled(
    path: str, handler: Handler, dialect: Dialect, method: str, request_id: Callable[[Scope], str | None]
) -> Route:
    """A route whose errors are answers in its dialect."""

    async def endpoint(request: Request) -> Response:
        try:
            return await handler(request)
        except ClientGone:
            return refusal(dialect, Problem(499, "the client has closed the connection"))  # for logs: nobody reads it
        except Exception as error:  # noqa: BLE001  (whatever it is, the client gets an answer of its dialect)
            return refusal(dialect, _problem(error, path), request_id(request.scope))

    return Route(path, endpoint, methods=[method])


class Streamed(Response):
    """An answer that streams; losing the client ends its run, and with it the work.

    lines: texts to send. failed: what to send where they fail. beat: what to send after a silence.
    """

    def __init__(
        self,
        run: Run,
        lines: AsyncGenerator[str, None],
        failed: Callable[[Problem], str],
        *,
        media_type: str = EVENTS,
        beat: str = ": waiting\n\n",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status_code, self.media_type, self.background = 200, None, None
        self._run, self._lines, self._failed, self._beat = run, lines, failed, beat
        self._sent = 0  # texts
        self.init_headers({**STREAM_HEADERS, "content-type": media_type, **(headers or {})})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""

        async def text(value: str) -> None:
            self._sent += 1
            await send({"type": "http.response.body", "body": value.encode(), "more_body": True})

        beside = [asyncio.ensure_future(watching(self._run, receive)), asyncio.ensure_future(self._beating(text))]
        try:
            with self._run, suppress(ClientGone, OSError):  # OSError: what servers raise for a send to nobody
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                try:
                    async for line in self._lines:
                        await text(line)
                except (ClientGone, OSError):
                    raise
                except Exception as error:  # noqa: BLE001  (the client gets its end in the stream)
                    await text(self._failed(_problem(error, scope["path"])))
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            for task in beside:
                task.cancel()
            await self._lines.aclose()

    async def _beating(self, text: Callable[[str], Awaitable[None]]) -> None:
        while True:
            before = self._sent
            await asyncio.sleep(BEAT_SECONDS)
            if self._beat and self._sent == before:
                await text(self._beat)


def _problem(error: Exception, path: str) -> Problem:
    """What to tell the client; what is nobody's request's fault goes to the log, and where it arose.

    But not of a model's file that is at fault: its message says all.
    """
    problem = problem_of(error)
    if problem is None or problem.status == 500:
        known = isinstance(error, FormatError | ModelError | ModelNotFoundError)
        fields = {"error": str(error)} if known else {}
        log.error("%s failed", path, exc_info=None if known else error, extra={"fields": fields})
    return problem or Problem(500, INTERNAL)
