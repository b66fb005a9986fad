"""What operators and their machines ask of a server: is it alive, is it ready, how busy is it.

`/health` answers as long as the process does. `/ready` says whether requests are welcome: not while models load, and
not once the server stops. `/metrics` has figures for Prometheus. All else is the application's.
"""

import json
from typing import Literal

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp, Receive, Scope, Send

from sotol.server.guard.refusals import route_path, send_problem
from sotol.server.guard.visit import visit_of
from sotol.server.metrics import Metrics
from sotol.server.problems import Problem

__all__ = ["Operation", "State"]

State = Literal["loading", "ready", "stopping"]
# In words that llama.cpp's server has, since its clients look for them.
LOADING = Problem(503, "Loading model", code="loading", retry_after=1)
STOPPING = Problem(503, "the server is shutting down", code="shutting_down", retry_after=5)


class Operation:
    """An application in its surroundings. app: None while there is none yet, and the server is not ready."""

    def __init__(self, metrics: Metrics, app: ASGIApp | None = None) -> None:
        self._metrics, self._app = metrics, app
        self.state: State = "loading" if app is None else "ready"

    def begin(self, app: ASGIApp) -> None:
        """From now on the application answers, unless the server stops already."""
        self._app = app
        if self.state == "loading":
            self.state = "ready"

    def stop(self) -> None:
        """From now on new requests are refused; those under way go on."""
        self.state = "stopping"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":  # whoever makes the application begins and ends it
            await _lifespan(receive, send)
            return
        path = route_path(scope)
        if path in ("/health", "/ready", "/metrics"):
            visit_of(scope).route = path
            await self._answer(path, scope, send)
        elif self._app is None or self.state != "ready":
            visit_of(scope).route = "refused"
            await send_problem(scope, send, self._unready(), close=self.state == "stopping")
        else:
            await self._app(scope, receive, send)

    def _unready(self) -> Problem:
        return STOPPING if self.state == "stopping" else LOADING

    async def _answer(self, path: str, scope: Scope, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await send_problem(scope, send, Problem(405, f"{path} can be read: send GET", code="method_not_allowed"))
        elif path == "/ready" and self.state != "ready":
            await send_problem(scope, send, self._unready())
        elif path == "/metrics":
            await _send(scope, send, CONTENT_TYPE_LATEST.encode(), self._metrics.text())
        else:
            await _send(scope, send, b"application/json", json.dumps({"status": "ok"}).encode())


async def _send(scope: Scope, send: Send, kind: bytes, body: bytes) -> None:
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        phase = (await receive())["type"]
        await send({"type": f"{phase}.complete"})
        if phase == "lifespan.shutdown":
            return
