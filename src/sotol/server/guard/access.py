"""Request ids, the access log, and metrics of requests. The log has no prompts, answers, keys or query strings."""

import logging
import re
from time import perf_counter
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sotol.server.guard.keys import PAGE_FILES
from sotol.server.guard.refusals import route_path
from sotol.server.guard.visit import visit_of
from sotol.server.metrics import Metrics

__all__ = ["Access"]

log = logging.getLogger("sotol.access")
ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
GONE = 499  # the status of a request whose client left before there was one, as nginx says it
WATCHED = ("/health", "/ready", "/metrics")  # asked all the time, by machines


class Access:
    """The outermost guard. metrics: where requests are counted, if anywhere."""

    def __init__(self, app: ASGIApp, metrics: Metrics | None) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit = visit_of(scope)
        visit.id = _id(scope)
        watch = _Watch(receive, send, visit.id.encode())
        if self._metrics is not None:
            self._metrics.running.inc()
        try:
            await self._app(scope, watch.receive, watch.send)
        finally:
            seconds = perf_counter() - watch.begin
            route = visit.route or str(getattr(scope.get("route"), "path", "other"))
            if self._metrics is not None:
                self._metrics.running.dec()
                self._metrics.count_request(route, scope["method"], watch.status, seconds)
            path = route_path(scope)
            fields = {
                "request": visit.id,
                "client": visit.client,
                "method": scope["method"],
                "path": path,
                "status": watch.status,
                "seconds": round(seconds, 6),
                "bytes": watch.sent,
            }
            if watch.first is not None:
                fields["first_byte"] = round(watch.first - watch.begin, 6)
            if visit.answers:
                fields |= {
                    "model": visit.model,
                    "prompt_tokens": visit.prompt_tokens,
                    "cached_tokens": visit.cached_tokens,
                    "completion_tokens": visit.completion_tokens,
                }
            if watch.left:
                fields["left"] = True
            level = logging.DEBUG if path in WATCHED or path.startswith(PAGE_FILES) else logging.INFO
            log.log(level, "request", extra={"fields": fields})


class _Watch:
    """What passes between a client and the application."""

    def __init__(self, receive: Receive, send: Send, name: bytes) -> None:
        self._receive, self._send, self._name = receive, send, name
        self.begin = perf_counter()
        self.first: float | None = None
        self.status, self.sent, self.over, self.left = GONE, 0, False, False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self.over:
            self.left = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            own = [(b"x-request-id", self._name), (b"request-id", self._name)]
            given = {name.lower() for name, _ in message.get("headers", ())}
            kept = [pair for pair in own if pair[0] not in given]
            message = {**message, "headers": [*message.get("headers", ()), *kept]}
        elif message["type"] == "http.response.body":
            if self.first is None:
                self.first = perf_counter()
            self.sent += len(message.get("body", b""))
            self.over = not message.get("more_body", False)
        await self._send(message)


def _id(scope: Scope) -> str:
    """The id that the client, or a proxy before it, gave; or a new one."""
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return given.decode() if ID.fullmatch(given) else f"req_{uuid4().hex}"
