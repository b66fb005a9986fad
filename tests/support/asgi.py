"""Asking ASGI applications without a network, and small ones to ask."""

import asyncio
from typing import Any

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Endless", "asked", "echo", "heard"]


def asked(
    app: ASGIApp, path: str = "/", method: str = "GET", client: str = "127.0.0.1", **options: Any
) -> httpx.Response:
    """The whole answer to a request, which is by http://localhost:8080 unless its headers say otherwise."""
    return asyncio.run(heard(app, path, method, client, **options))


async def heard(
    app: ASGIApp, path: str = "/", method: str = "GET", client: str = "127.0.0.1", **options: Any
) -> httpx.Response:
    """The same within an event loop."""
    transport = httpx.ASGITransport(app, client=(client, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8080") as asking:
        return await asking.request(method, path, **options)


async def echo(_scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers with what it was sent."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


class Endless:
    """An application whose answer begins, if it is of a type, and never ends. begun: set when it is that far."""

    def __init__(self, kind: str | None = None) -> None:
        self._kind = kind
        self.begun = asyncio.Event()
        self.cancelled = False

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        if self._kind is not None:
            headers = [(b"content-type", self._kind.encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
