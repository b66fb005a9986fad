"""API keys: each request must have one of them, as `Authorization: Bearer KEY` or `x-api-key: KEY`."""

import hmac
from collections.abc import Iterable
from hashlib import sha256

from starlette.types import ASGIApp, Receive, Scope, Send

from sotol.server.guard.refusals import route_path, send_problem
from sotol.server.guard.visit import visit_of
from sotol.server.problems import Problem
from sotol.server.settings import Settings

__all__ = ["PAGE_FILES", "Keys"]

MISSING = Problem(401, "give an API key: Authorization: Bearer KEY, or x-api-key: KEY", code="missing_api_key")
WRONG = Problem(401, "the API key is not valid here", code="invalid_api_key")
PAGE, PAGE_FILES = ("/", "/ui", "/ui/"), "/ui/static/"


class Keys:
    """Refuses requests without a key, and notes which key it was by its number."""

    def __init__(self, app: ASGIApp, settings: Settings, *, page: bool = False) -> None:
        """page: the application has the chat page, whose files need no key."""
        self._app = app
        self._digests = [_digest(key.encode()) for key in settings.api_keys]
        self._open = {"/health", "/ready", *(["/metrics"] if settings.open_metrics else [])}
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._digests and not self._is_open(route_path(scope)):
            given = list(_given(scope["headers"]))
            number = self._number(given)
            if number is None:
                await send_problem(scope, send, WRONG if given else MISSING)
                return
            visit_of(scope).client = f"key {number}"
            visit_of(scope).owner = self._digests[number - 1].hex()[:32]
        await self._app(scope, receive, send)

    def _is_open(self, path: str) -> bool:
        """Whether anybody may ask for it: the page's own files, too, which then ask for the key."""
        return path in self._open or (self._page and (path in PAGE or path.startswith(PAGE_FILES)))

    def _number(self, given: Iterable[bytes]) -> int | None:
        """Which of the keys one of these is, from 1. All are compared, so that the time tells nothing about any."""
        found = None
        for key in given:
            digest = _digest(key)
            for number, known in enumerate(self._digests, 1):
                if hmac.compare_digest(digest, known):
                    found = number
        return found


def _given(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[bytes]:
    for name, value in headers:
        if name == b"x-api-key":
            yield value.strip()
        elif name == b"authorization" and value[:7].lower() == b"bearer ":
            yield value[7:].strip()


def _digest(key: bytes) -> bytes:
    """Of one length, whatever the key's."""
    return sha256(key).digest()
