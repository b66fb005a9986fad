"""Reads the body of a request before anything else is done for it: within limits of size and time."""

import asyncio
import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sotol.server.guard.refusals import send_problem
from sotol.server.guard.visit import visit_of
from sotol.server.problems import Problem
from sotol.server.settings import Settings

__all__ = ["Bodies"]

log = logging.getLogger("sotol.prompts")
TOGETHER = 8  # times the longest body, that all requests together may have in memory
SHOWN = 1 << 16  # bytes of a body that the log has, if any
BUSY = Problem(503, "the server holds too many long requests: try again soon", code="overloaded", retry_after=1)


class Bodies:
    """Refuses bodies that are too long or come too slowly, whatever length they say they have."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._limit, self._seconds = app, settings.body_bytes, settings.read_timeout
        self._logged = settings.log_prompts
        self._held = 0  # bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytearray()
        try:
            problem = await self._read(scope, receive, body)
            if problem is not None:
                await send_problem(scope, send, problem, close=True)
                return
            if self._logged and body:
                text = body[:SHOWN].decode(errors="replace")
                log.info("prompt", extra={"fields": {"request": visit_of(scope).id, "body": text}})
            await self._app(scope, _replayed(bytes(body), receive), send)
        finally:
            self._held -= len(body)

    async def _read(self, scope: Scope, receive: Receive, body: bytearray) -> Problem | None:
        """Read all of it into `body`, of which `_held` knows; or say what is wrong with it."""
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        long = length.isdigit() and (len(length) > 18 or int(length) > self._limit)
        problem = Problem(413, f"the body has more than {self._limit} bytes", code="request_too_large")
        if long and b"expect" in headers:  # the client asks before it sends anything
            return problem
        dropped, busy = 0, False
        try:
            async with asyncio.timeout(self._seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return Problem(400, "the body ended early", code="incomplete")
                    piece = message.get("body", b"")
                    busy = busy or self._held + len(piece) > TOGETHER * self._limit
                    long = long or len(body) + len(piece) > self._limit
                    if long or busy:
                        # A client reads the answer only when it has sent all: some more is read, and dropped.
                        dropped += len(piece)
                        if dropped > self._limit:
                            break
                    else:
                        body += piece
                        self._held += len(piece)
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            return Problem(408, f"the request did not arrive within {self._seconds:g} s", code="request_timeout")
        return problem if long else BUSY if busy else None


def _replayed(body: bytes, receive: Receive) -> Receive:
    """`receive` for the application: the whole body, then whatever comes."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return waiting.pop() if waiting else await receive()

    return replayed
