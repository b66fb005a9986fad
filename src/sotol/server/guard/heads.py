"""How long the head of a request may be: its address and its headers."""

from starlette.types import ASGIApp, Receive, Scope, Send

from sotol.server.guard.refusals import send_problem
from sotol.server.problems import Problem
from sotol.server.settings import Settings

__all__ = ["Heads"]


class Heads:
    """Refuses long heads. What never ends, `connections.py` cuts off."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._bytes, self._count = app, settings.header_bytes, settings.header_count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = scope["headers"]
        size = len(scope.get("raw_path", b"")) + len(scope["query_string"])
        size += sum(len(name) + len(value) + 4 for name, value in headers)
        if len(headers) > self._count:
            said = f"the request has {len(headers)} headers; the server takes {self._count}"
        elif size > self._bytes:
            said = f"the request's address and headers have {size} bytes; the server takes {self._bytes}"
        else:
            await self._app(scope, receive, send)
            return
        await send_problem(scope, send, Problem(431, said, code="headers_too_large"), close=True)
