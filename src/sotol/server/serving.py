"""A server's life: it listens, loads its models, answers, and stops when it is told to.

It listens before it loads, so that a port in use is known at once, and `/health` answers while `/ready` does not. At
SIGTERM or SIGINT it takes no more connections and lets answers come to their end; what still runs after the grace is
ended with an error that says so. A second signal ends the process where it stands.
"""

import asyncio
import logging
import math
import os
import signal
import ssl
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from time import perf_counter

import uvicorn
from starlette.applications import Starlette

from sotol.server.connections import protocol
from sotol.server.guard import Protected, protected
from sotol.server.listening import Listening, certificate, listen
from sotol.server.metrics import Metrics
from sotol.server.models import Models
from sotol.server.operation import Operation
from sotol.server.settings import Settings

__all__ = ["INTERRUPTED", "MakeApp", "MakeModels", "serve"]

log = logging.getLogger("sotol.server")
INTERRUPTED = 130  # 128 + SIGINT, as shells say it
LAST = 5.0  # seconds after the grace, in which ended answers must be out

MakeModels = Callable[[Metrics], Models]
MakeApp = Callable[[Models, Metrics], Starlette]


def serve(settings: Settings, make_models: MakeModels, make_app: MakeApp, announce: Callable[[str], None]) -> int:
    """Serve models until a signal comes; the exit code of the process. Call it in the main thread.

    make_models: gives the models, of which a single one is loaded at once, and several when somebody asks for them.
    make_app: makes the application of them. announce: is told the address once the server is ready. Raises
    SotolError if it can't listen, or what loading raises.
    """
    tls = certificate(settings)
    listening = listen(settings)
    service = _Service(settings, listening, tls, make_models)
    try:
        with asyncio.Runner(loop_factory=service.config.get_loop_factory()) as runner:
            code = runner.run(service.run(make_app, announce))
    finally:
        listening.close()
        ended = service.stop_loading()
    if not ended:  # Python's own end would wait for what loads, or crash it
        service.leave(code)
    return code


class _Server(uvicorn.Server):
    """uvicorn's server, which leaves signals to its caller."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]  # a wider type is enough
        return nullcontext()


class _Service:
    """What `serve` does, and its models."""

    def __init__(
        self, settings: Settings, listening: Listening, tls: ssl.SSLContext | None, make_models: MakeModels
    ) -> None:
        self._settings, self._listening = settings, listening
        self._signal: int | None = None
        self._metrics = Metrics(lambda: self._models.loaded())
        self._models = make_models(self._metrics)
        self._operation = Operation(self._metrics)
        self._guarded: Protected = protected(self._operation, settings, self._metrics, page=settings.page)
        self.config = uvicorn.Config(
            self._guarded,
            http=protocol(settings),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            workers=1,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=list(settings.trusted_proxies),
            root_path=settings.root_path,
            server_header=False,
            timeout_keep_alive=settings.idle_timeout,  # type: ignore[arg-type]  # it goes to `call_later`
            timeout_graceful_shutdown=math.ceil(settings.shutdown_grace + LAST),
            ssl_context_factory=None if tls is None else lambda _config, _default: tls,
        )
        self._server = _Server(self.config)

    async def run(self, make_app: MakeApp, announce: Callable[[str], None]) -> int:
        """From the first connection to the last answer."""
        loop = asyncio.get_running_loop()
        told = asyncio.Event()
        before = {
            number: signal.signal(number, lambda number, _: self._told(number, loop, told)) or signal.SIG_DFL
            for number in (signal.SIGTERM, signal.SIGINT)
            if signal.getsignal(number) is not signal.SIG_IGN  # a job in the background of a script
        }
        try:
            await self._until(told, make_app, announce)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return INTERRUPTED if self._signal == signal.SIGINT else 0

    def stop_loading(self) -> bool:
        """End what still loads, in a moment; whether it has ended."""
        return self._models.loading_ended()

    async def _until(self, told: asyncio.Event, make_app: MakeApp, announce: Callable[[str], None]) -> None:
        begin = perf_counter()
        serving = asyncio.create_task(self._server.serve(sockets=self._listening.sockets))
        stop = asyncio.create_task(told.wait())
        loading = asyncio.create_task(self._load())
        address = self._listening.address
        names = ", ".join(model.name for model in self._models)
        log.info("listening", extra={"fields": {"address": address, "models": names}})
        try:
            await asyncio.wait({serving, stop, loading}, return_when=asyncio.FIRST_COMPLETED)
            if loading.done():
                loading.result()
                app = make_app(self._models, self._metrics)
                async with app.router.lifespan_context(app):
                    self._operation.begin(app)
                    seconds = round(perf_counter() - begin, 3)
                    log.info("ready", extra={"fields": {"address": address, "seconds": seconds}})
                    announce(address)
                    await asyncio.wait({serving, stop}, return_when=asyncio.FIRST_COMPLETED)
                    await self._stop(serving)
        finally:
            await self._stop(serving)
            stop.cancel()
            loading.cancel()
            await self._models.close()
            await asyncio.gather(stop, loading, return_exceptions=True)

    async def _stop(self, serving: "asyncio.Task[None]") -> None:
        """Take no more requests, and wait for the answers that are under way."""
        if self._server.should_exit:
            return
        running, grace = self._guarded.endings.running, self._settings.shutdown_grace
        log.info("stopping", extra={"fields": {"running": running, "grace": grace}})
        self._operation.stop()
        self._models.stop_loading()
        self._server.should_exit = True
        ending = asyncio.get_running_loop().call_later(grace, self._end_all)
        await serving
        ending.cancel()
        log.info("stopped", extra={"fields": {"address": self._listening.address}})

    def _end_all(self) -> None:
        count = self._guarded.endings.end_all()
        if count:
            log.warning("the grace is over: answers end here", extra={"fields": {"running": count}})

    def _told(self, number: int, loop: asyncio.AbstractEventLoop, told: asyncio.Event) -> None:
        """A signal's handler."""
        if self._signal is not None:
            self.leave(128 + number)
        self._signal = number
        with suppress(RuntimeError):  # the loop has just ended
            loop.call_soon_threadsafe(told.set)

    def leave(self, code: int) -> None:
        """End the process where it stands."""
        self._listening.close()
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)

    async def _load(self) -> None:
        """Load the model, if there is one: several are loaded when somebody asks for them."""
        if len(self._models) == 1:
            lease = await self._models.open(None)
            lease.close()
