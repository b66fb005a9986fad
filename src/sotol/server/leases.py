"""What a request uses until its answer is out: models, which stay loaded so long. And what it is told while it waits.

A stream whose model must be loaded first begins before there is an answer, with comments, so that neither its client
nor a proxy between gives up. What is refused after that is an event of the stream, as an answer that fails is.
"""

import asyncio
from contextlib import ExitStack
from typing import Any, TypeVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sotol.server.body import ClientGone
from sotol.server.pool import Lease

__all__ = ["Leases", "leased"]

T = TypeVar("T")
KEY = "sotol.leases"
FIRST_SECONDS = 2.0  # of waiting, until a stream begins: what is refused before has its own status
BEAT_SECONDS = 10.0  # between two comments
EVENTS = b"text/event-stream; charset=utf-8"


class Leases:
    """Closes what a request has leased, once its answer is out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with ExitStack() as held:
            early = _Early(send)
            scope[KEY] = held, early
            await self._app(scope, receive, early.send)


async def leased(
    scope: Scope, receive: Receive, opened: "Lease[T] | asyncio.Future[Lease[T]]", comment: str | None
) -> T:
    """What is opened, or being opened, which the request then has until its answer is out.

    comment: what a stream may send meanwhile; None: nothing. ClientGone if nobody waits for it any more.
    """
    held, early = scope[KEY]
    lease = opened if isinstance(opened, Lease) else await _waited(receive, opened, early, comment)
    held.callback(lease.close)
    return lease.thing


async def _waited(
    receive: Receive, opening: "asyncio.Future[Lease[T]]", early: "_Early", comment: str | None
) -> Lease[T]:
    """What is being opened, as soon as it is."""
    gone: asyncio.Future[Any] = asyncio.ensure_future(_gone(receive))
    patience, lease = FIRST_SECONDS, None
    try:
        while not opening.done():
            await asyncio.wait([opening, gone], timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if opening.done():
                break
            if gone.done():
                raise ClientGone
            if comment is not None:
                await early.say(comment)
                patience = BEAT_SECONDS
        lease = opening.result()
    finally:
        gone.cancel()
        if lease is None:
            opening.add_done_callback(_let_go)
            opening.cancel()
    return lease


def _let_go(opened: "asyncio.Future[Lease[Any]]") -> None:
    """Nobody wants any more what was opened in the same moment."""
    if not opened.cancelled() and opened.exception() is None:
        opened.result().close()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _Early:
    """Sends an answer, whose stream may have begun already."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._begun = self._refused = False
        self._body = b""

    async def say(self, comment: str) -> None:
        """Begin the stream, unless that is done, and send this."""
        if not self._begun:
            self._begun = True
            headers = [(b"content-type", EVENTS), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": comment.encode(), "more_body": True})

    async def send(self, message: Message) -> None:
        """What the application sends."""
        if not self._begun:
            await self._send(message)
        elif message["type"] == "http.response.start":
            self._refused = message["status"] != 200
        elif not self._refused:
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                event = b"event: error\ndata: " + self._body + b"\n\n"
                await self._send({"type": "http.response.body", "body": event, "more_body": False})
