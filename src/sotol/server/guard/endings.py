"""How answers end when they do not by themselves: at their time limit, when the server stops, or by a bug.

Whatever has begun to stream gets an error event of its dialect and a proper end, so that no client takes a part for the
whole. What has not begun gets an error.
"""

import asyncio
import logging
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sotol.server.guard.refusals import STREAMED, problem_event, send_problem
from sotol.server.guard.visit import visit_of
from sotol.server.problems import Problem
from sotol.server.settings import Settings

__all__ = ["Endings"]

log = logging.getLogger("sotol.server")
STOPPING = Problem(503, "the server is shutting down", code="shutting_down", retry_after=5)
BUG = Problem(500, "the server has a bug: its log has more about this request", code="internal_error")


class Endings:
    """Ends answers at the limits of the settings, and all of them when told so."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._first, self._stream = settings.request_timeout, settings.stream_timeout
        self._running: set[_Answer] = set()

    @property
    def running(self) -> int:
        """How many requests are being answered."""
        return len(self._running)

    def end_all(self) -> int:
        """End all answers now; how many there were. Call it in the event loop."""
        count = len(self._running)
        for answer in self._running:
            answer.end(STOPPING)
        return count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        said = f"the answer did not begin within {self._first:g} s"
        answer = _Answer(scope, send, Problem(504, said, code="timeout"), self._stream)
        try:
            async with asyncio.timeout(self._first) as answer.limit:
                self._running.add(answer)
                await self._app(scope, receive, answer.send)
        except TimeoutError as error:
            if answer.limit.expired():
                await answer.finish(answer.problem)
            else:
                await self._failed(scope, answer, error)
        except Exception as error:  # noqa: BLE001  (whatever it is, the client must learn that this is the end)
            await self._failed(scope, answer, error)
        finally:
            self._running.discard(answer)

    async def _failed(self, scope: Scope, answer: "_Answer", error: Exception) -> None:
        log.error("an answer failed", exc_info=error, extra={"fields": {"request": visit_of(scope).id}})
        await answer.finish(BUG)


class _Answer:
    """An answer, and how far it is. problem: what to say where it must end."""

    limit: asyncio.Timeout

    def __init__(self, scope: Scope, send: Send, problem: Problem, stream: float) -> None:
        self._scope, self._send, self._stream = scope, send, stream
        self.problem = problem
        self._begun, self._over, self._kind = False, False, b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begun = True
            kinds = [value for name, value in message.get("headers", ()) if name.lower() == b"content-type"]
            self._kind = kinds[0].partition(b";")[0].strip() if kinds else b""
            if not self.limit.expired() and self.problem is not STOPPING:
                self.problem = Problem(504, f"the answer took more than {self._stream:g} s", code="timeout")
                self.limit.reschedule(asyncio.get_running_loop().time() + self._stream)
        elif message["type"] == "http.response.body":
            self._over = not message.get("more_body", False)
        await self._send(message)

    def end(self, problem: Problem) -> None:
        """End it at once."""
        if not self.limit.expired():
            self.problem = problem
            with suppress(RuntimeError):  # it has just ended by itself
                self.limit.reschedule(asyncio.get_running_loop().time())

    async def finish(self, problem: Problem) -> None:
        """Say why it ends here. Where nothing can be said any more, the server breaks the connection off."""
        if not self._begun:
            await send_problem(self._scope, self._send, problem, close=True)
        elif not self._over and self._kind in STREAMED:
            event = problem_event(self._scope, self._kind, problem)
            await self._send({"type": "http.response.body", "body": event, "more_body": False})
