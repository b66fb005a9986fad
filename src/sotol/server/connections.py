"""Connections, on top of uvicorn's: what a client may do before there is a request that guards can look at.

A head must come within a time and a size, or the connection ends; so does one whose client does not read, or sends
requests without waiting for answers. Beyond the limit of connections, requests get 503.
"""

import asyncio
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from sotol.server.guard.refusals import send_problem
from sotol.server.parsing import Parser
from sotol.server.problems import Problem, problem_body
from sotol.server.settings import Settings

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

__all__ = ["protocol"]

PIPELINED = 16  # requests that a client may send before it has read an answer
SPARE = 64  # connections beyond the limit that are told so; those beyond these are cut off
FULL = Problem(503, "too many connections: try again soon", code="overloaded", retry_after=1)


def protocol(settings: Settings) -> type[HttpToolsProtocol]:
    """The class of connections with these limits, for uvicorn."""

    class Limited(Connection):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(settings, *arguments, **options)

    return Limited


class Connection(HttpToolsProtocol):
    """A client's connection."""

    def __init__(
        self,
        settings: Settings,
        config: "Config",
        server_state: "ServerState",
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.parser = Parser(self)  # type: ignore[assignment]  # it has what uvicorn uses
        self._settings = settings
        self._head_bytes: int | None = None  # of the head that is being read
        self._late: asyncio.TimerHandle | None = None  # when the head must have come
        self._stalled: asyncio.TimerHandle | None = None  # when the client must have read
        self._earlier: list[RequestResponseCycle] = []  # requests that others followed before they were answered

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Wait for the first head."""
        super().connection_made(transport)
        beyond = len(self.connections) - self._settings.connections
        if beyond > SPARE:
            transport.abort()
        elif beyond > 0:
            self.app = _full
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        for timer in (self._late, self._stalled):
            if timer is not None:
                timer.cancel()
        self._late = self._stalled = None
        for cycle in self._earlier:  # uvicorn tells only the last
            cycle.disconnected = not cycle.response_complete
            cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read more, unless it is too much."""
        before = self._head_bytes
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._head_bytes is not None:
            self._head_bytes += len(data) if before is not None else 0
            if self._head_bytes > self._settings.header_bytes:
                self._refuse(431, f"the request's head has more than {self._settings.header_bytes} bytes")
        if len(self.pipeline) > PIPELINED:
            self._refuse(400, f"more than {PIPELINED} requests came before an answer was read")
        elif self.pipeline and len(self.cycle.body) <= HIGH_WATER_LIMIT:
            self.flow.resume_reading()  # or nobody would notice that the client leaves

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._head_bytes = 0
        self._expect_head()

    def on_headers_complete(self) -> None:
        """A head has come."""
        self._head_bytes = None
        if self._late is not None:
            self._late.cancel()
            self._late = None
        self._earlier = [cycle for cycle in (*self._earlier, self.cycle) if cycle and not cycle.response_complete]
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """The client does not read: give it some time."""
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(self._settings.read_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def send_400_response(self, msg: str) -> None:
        """What came is not HTTP."""
        self._refuse(400, msg)

    def _expect_head(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(self._settings.read_timeout, self._too_late)

    def _too_late(self) -> None:
        self._late = None
        self._refuse(408, f"the request's head did not come within {self._settings.read_timeout:g} s")

    def _refuse(self, status: int, message: str) -> None:
        """End the connection; say why, unless that would come into the middle of an answer."""
        if self.transport.is_closing():
            return
        cycle = self.cycle
        amid = cycle is not None and cycle.response_started and not cycle.response_complete
        if not amid and not self.pipeline:
            body = json.dumps(problem_body("openai", Problem(status, message))).encode()
            head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
            head += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            self.transport.write(head.encode() + body)
        self.transport.close()


async def _full(scope: Scope, _receive: Receive, send: Send) -> None:
    """The application of connections beyond the limit."""
    await send_problem(scope, send, FULL, close=True)
