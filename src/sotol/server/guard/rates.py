"""How much each client may ask in a minute: a token bucket for requests, and one for the model's tokens.

A bucket holds a minute's worth, so a client that was quiet may ask that at once, and then as it refills. What an answer
costs is known at its end only: it may overdraw the bucket, and the next request waits until that is made good.
"""

from collections import OrderedDict
from collections.abc import Callable
from math import ceil
from time import monotonic

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sotol.server.guard.keys import PAGE_FILES
from sotol.server.guard.refusals import route_path, send_problem
from sotol.server.guard.visit import visit_of
from sotol.server.problems import Problem
from sotol.server.settings import Settings

__all__ = ["Bucket", "Rates"]

MOST = 10_000  # clients that are remembered; beyond, those that asked longest ago are forgotten
FREE = {"/health", "/ready", "/metrics"}


class Bucket:
    """So many a minute, at most a minute's worth at once."""

    def __init__(self, per_minute: int, now: float) -> None:
        self._most, self._rate = float(per_minute), per_minute / 60
        self._level, self._at = self._most, now

    def wait(self, wanted: float, now: float) -> float:
        """Seconds until the bucket has so many; 0 if it has."""
        self._refill(now)
        return max(0.0, (wanted - self._level) / self._rate)

    def take(self, count: float, now: float) -> None:
        """Take so many, also if there are fewer."""
        self._refill(now)
        self._level -= count

    def _refill(self, now: float) -> None:
        self._level = min(self._most, self._level + (now - self._at) * self._rate)
        self._at = now


class Rates:
    """Refuses requests of clients that ask too much."""

    def __init__(self, app: ASGIApp, settings: Settings, clock: Callable[[], float] = monotonic) -> None:
        self._app, self._clock = app, clock
        self._limits = (settings.requests_per_minute, settings.tokens_per_minute)
        self._buckets: OrderedDict[str, tuple[Bucket | None, Bucket | None]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = route_path(scope)
        if self._limits == (None, None) or path in FREE or path.startswith(PAGE_FILES):
            await self._app(scope, receive, send)
            return
        visit, now = visit_of(scope), self._clock()
        requests, tokens = self._of(visit.client, now)
        for what, bucket in (("requests", requests), ("tokens", tokens)):
            if bucket is not None and (seconds := bucket.wait(1, now)) > 0:
                limit = self._limits[what == "tokens"]
                said = f"more than {limit} {what} a minute: try again in {ceil(seconds)} s"
                problem = Problem(429, said, code="rate_limit_exceeded", retry_after=max(1, ceil(seconds)))
                await send_problem(scope, send, problem)
                return
        if requests is not None:
            requests.take(1, now)
        pieces = 0

        async def counted(message: Message) -> None:
            nonlocal pieces
            pieces += bool(message.get("body") and message.get("more_body"))
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            if tokens is not None:  # of a stream that was left, about as many as there were events
                tokens.take(visit.tokens or pieces, self._clock())

    def _of(self, client: str, now: float) -> tuple[Bucket | None, Bucket | None]:
        if client not in self._buckets:
            requests, tokens = (None if limit is None else Bucket(limit, now) for limit in self._limits)
            self._buckets[client] = requests, tokens
            if len(self._buckets) > MOST:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(client)
        return self._buckets[client]
