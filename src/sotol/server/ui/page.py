"""What all requests of the page share: the database in a thread of its own, and the answers that are being written."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel
from starlette.requests import Request

from sotol.conversations import Conversations
from sotol.server.problems import Problem
from sotol.server.running import Run
from sotol.server.service import Service

__all__ = ["Page"]

log = logging.getLogger("sotol.server")
T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
NOT_FOUND = "there is no such conversation or message: it may have been deleted"


class Page:
    """The page of a service.

    One thread has the database, since a write waits for the disk: the event loop does not, and writes keep their order.
    """

    def __init__(self, service: Service, conversations: Conversations) -> None:
        self.service = service
        self.running: dict[int, tuple[str, Run]] = {}  # answers that are being written, and whose they are
        self._conversations = conversations
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sotol-conversations")

    def owner(self, http: Request) -> str:
        """Whose conversations the request is about."""
        return self.service.around.owner(http.scope)

    async def kept(self, act: Callable[[Conversations], T]) -> T:
        """What the database says; Problem for what is not there. A write that has begun is made, whoever leaves."""
        try:
            return await asyncio.shield(asyncio.wrap_future(self._thread.submit(act, self._conversations)))
        except KeyError:
            raise Problem(404, NOT_FOUND, code="not_found") from None

    def keep(self, act: Callable[[Conversations], None]) -> Callable[[], bool]:
        """Begin a write that nobody waits for; whether it is done."""

        def kept() -> None:
            try:
                act(self._conversations)
            except Exception:
                log.exception("an answer could not be kept")

        try:
            return self._thread.submit(kept).done
        except RuntimeError:  # it is closed already: whoever was answering ends last
            kept()
            self._conversations.close()
            return lambda: True

    async def read(self, http: Request, kind: type[M]) -> M:
        """The body of a request that may change something."""
        check_origin(http)
        sent = http.headers.get("content-type", "").partition(";")[0].strip().lower()
        if sent != "application/json":
            raise Problem(415, "the content-type must be application/json", code="unsupported_media_type")
        return await self.service.read(http, kind, "openai")

    async def close(self) -> None:
        """Write what is left, and let go of the file."""
        for _, run in list(self.running.values()):
            run.close()
        await asyncio.to_thread(self._thread.shutdown)
        self._conversations.close()


def check_origin(http: Request) -> None:
    """Problem for a request of another site's page, also where CORS allows that to use the API: this is the user's own.

    Browsers say so by Sec-Fetch-Site (https://www.w3.org/TR/fetch-metadata/), and by Origin where something may change.
    """
    site, origin = http.headers.get("sec-fetch-site"), http.headers.get("origin")
    other = site not in (None, "same-origin", "none")
    if other or (origin is not None and urlsplit(origin).netloc.lower() != http.headers.get("host", "").lower()):
        raise Problem(403, "other sites may not use this page's conversations", code="origin_not_allowed")
