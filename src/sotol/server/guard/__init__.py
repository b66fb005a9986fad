"""What stands between the network and an application: a pure ASGI middleware a file, put together here."""

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from sotol.server.guard.access import Access
from sotol.server.guard.bodies import Bodies
from sotol.server.guard.endings import Endings
from sotol.server.guard.heads import Heads
from sotol.server.guard.hosts import Hosts, origin_pattern
from sotol.server.guard.keys import Keys
from sotol.server.guard.rates import Rates
from sotol.server.metrics import Metrics
from sotol.server.settings import Settings

__all__ = ["Protected", "protected"]

METHODS = ("GET", "HEAD", "POST", "DELETE")
EXPOSED = ("x-request-id", "request-id", "retry-after")


class Protected:
    """An application behind guards."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics | None, *, page: bool) -> None:
        inner = Keys(Rates(Bodies(app, settings), settings), settings, page=page)
        self.endings = Endings(inner, settings)
        outer: ASGIApp = self.endings
        if settings.cors_origins:  # around all errors but those about the head: a page must be able to read them
            pattern = origin_pattern(settings.cors_origins).pattern
            outer = CORSMiddleware(
                outer,
                allow_origin_regex=f"(?i:{pattern})",
                allow_methods=METHODS,
                allow_headers=["*"],
                expose_headers=EXPOSED,
            )
        self._app = Access(Heads(Hosts(outer, settings), settings), metrics)
        self._inside = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._app(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._inside(scope, receive, send)
        else:  # no guard looks at what comes through a web socket
            await send({"type": "websocket.close", "code": 1008})


def protected(app: ASGIApp, settings: Settings, metrics: Metrics | None = None, *, page: bool = False) -> Protected:
    """The application behind the guards that the settings ask for.

    metrics: where requests are counted, if anywhere. page: the application has the chat page, whose files need no key:
    it asks for one.
    """
    return Protected(app, settings, metrics, page=page)
