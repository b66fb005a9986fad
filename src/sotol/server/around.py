"""What the application tells the guards and the metrics around it: `service.Surroundings`, for `sotol serve`."""

from collections.abc import Hashable

from starlette.types import Scope

from sotol.results import Completion
from sotol.server.guard.visit import visit_of
from sotol.server.metrics import Metrics

__all__ = ["Around"]


class Around:
    """Guards that know who asks, and metrics that count what was answered."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def client(self, scope: Scope) -> Hashable:
        """The number of the request's key, or its address."""
        return visit_of(scope).client

    def owner(self, scope: Scope) -> str:
        """The request's key, by its digest; "" where there are no keys."""
        return visit_of(scope).owner

    def request_id(self, scope: Scope) -> str | None:
        """As `guard/access.py` gave it."""
        return visit_of(scope).id or None

    def finished(self, scope: Scope, model: str, completion: Completion) -> None:
        """Count an answer."""
        visit_of(scope).count(model, completion)
        self._metrics.observe(model, completion)
