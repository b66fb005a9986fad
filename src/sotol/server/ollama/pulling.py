"""/api/pull: fetch a model of the Hub and offer it, where the server may; its lines tell how far it is."""

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse

from sotol.errors import SotolError
from sotol.hub import HubName, Pulled, parse_name
from sotol.hub import pull as fetch
from sotol.hub.places import places
from sotol.server.answering import LINES, answer, dumps
from sotol.server.ollama.fields import PullRequest
from sotol.server.problems import Problem, problem_body, problem_of, refusing
from sotol.server.service import Service

__all__ = ["pull"]

FORBIDDEN = Problem(
    403, "this server pulls no models: whoever runs it can allow that (--allow-pull)", code="not_allowed"
)
STEP = 100  # lines of a file, at most


async def pull(service: Service, http: HttpRequest) -> Response:
    """Fetch a model by its name on the Hub; from then on this server has it."""
    request = await service.read(http, PullRequest, "ollama")
    if service.models.more is None:
        raise FORBIDDEN
    name = request.model or request.name
    if not name:
        raise Problem(400, "model is required", param="model")
    with refusing("model"):
        asked = parse_name(name, places().endpoint)
    if asked is None:
        raise Problem(400, "model must be a name of the Hub, as ORG/REPO:Q4_K_M", param="model")
    lines = _lines(service, asked)
    if request.stream is not False:
        return StreamingResponse((dumps(line) + "\n" async for line in lines), media_type=LINES)
    last: dict[str, Any] = {}
    async for last in lines:
        if "error" in last:
            raise Problem(500, last["error"])
    return answer(last)


async def _lines(service: Service, asked: HubName) -> AsyncGenerator[dict[str, Any], None]:
    """What becomes of it. Who leaves ends the pull with the next piece; what came stays, to go on with."""
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any] | Pulled | Exception]()
    left = threading.Event()

    def put(item: dict[str, Any] | Pulled | Exception) -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(queue.put_nowait, item)

    told: dict[str, int] = {}

    def progress(file: str, done: int, total: int) -> None:
        if left.is_set():
            raise SotolError("nobody waits for it any more")
        if (step := done * STEP // max(total, 1)) > told.get(file, -1):
            told[file] = step
            put({"status": f"pulling {file}", "digest": file, "total": total, "completed": done})

    def run() -> None:
        try:
            put(fetch(asked, progress=progress))
        except Exception as error:  # noqa: BLE001  (who waits hears of it)
            put(error)

    threading.Thread(target=run, name="sotol-pulling", daemon=True).start()
    try:
        yield {"status": "pulling manifest"}
        while isinstance(item := await queue.get(), dict):
            yield item
        if isinstance(item, Exception):
            yield problem_body("ollama", problem_of(item) or Problem(500, "internal error"))
            return
        assert service.models.more is not None
        with suppress(ValueError):  # it is offered already
            service.models.add(service.models.more(item.name))
        yield {"status": "success"}
    finally:
        left.set()
