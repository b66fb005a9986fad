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
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from time import perf_counter
from typing import Any

import uvicorn
from starlette.applications import Starlette

from sotol.llm import LLM
from sotol.progress import Progress
from sotol.server.connections import protocol
from sotol.server.guard import Protected, protected
from sotol.server.listening import Listening, certificate, listen
from sotol.server.metrics import Metrics
from sotol.server.operation import Operation
from sotol.server.settings import Settings

__all__ = ["INTERRUPTED", "Load", "MakeApp", "serve"]

log = logging.getLogger("sotol.server")
INTERRUPTED = 130  # 128 + SIGINT, as shells say it
LAST = 5.0  # seconds after the grace, in which ended answers must be out
PATIENCE = 1.0  # seconds that loading has to notice that it is to stop

Load = Callable[[Progress], LLM]
MakeApp = Callable[[Mapping[str, LLM], Metrics], Starlette]


def serve(settings: Settings, models: Mapping[str, Load], make_app: MakeApp, announce: Callable[[str], None]) -> int:
    """Serve models until a signal comes; the exit code of the process. Call it in the main thread.

    models: how to load each, by name. make_app: makes the application of those that are loaded. announce: is told the
    address once the server is ready. Raises SotolError if it can't listen, or what loading raises.
    """
    tls = certificate(settings)
    listening = listen(settings)
    service = _Service(settings, listening, tls)
    try:
        with asyncio.Runner(loop_factory=service.config.get_loop_factory()) as runner:
            code = runner.run(service.run(models, make_app, announce))
    finally:
        listening.close()
        service.close()
    service.leave_loading(code)
    return code


class _Server(uvicorn.Server):
    """uvicorn's server, which leaves signals to its caller."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]  # a wider type is enough
        return nullcontext()


class _Service:
    """What `serve` does, and its models."""

    def __init__(self, settings: Settings, listening: Listening, tls: ssl.SSLContext | None) -> None:
        self._settings, self._listening = settings, listening
        self._loaded: dict[str, LLM] = {}
        self._stopping = threading.Event()
        self._signal: int | None = None
        self._loader: threading.Thread | None = None
        self._metrics = Metrics(lambda: dict(self._loaded))
        self._operation = Operation(self._metrics)
        self._guarded: Protected = protected(self._operation, settings, self._metrics)
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
            timeout_keep_alive=settings.keep_alive,  # type: ignore[arg-type]  # it goes to `call_later`
            timeout_graceful_shutdown=math.ceil(settings.shutdown_grace + LAST),
            ssl_context_factory=None if tls is None else lambda _config, _default: tls,
        )
        self._server = _Server(self.config)

    async def run(self, models: Mapping[str, Load], make_app: MakeApp, announce: Callable[[str], None]) -> int:
        """From the first connection to the last answer."""
        loop = asyncio.get_running_loop()
        told = asyncio.Event()
        before = {
            number: signal.signal(number, lambda number, _: self._told(number, loop, told)) or signal.SIG_DFL
            for number in (signal.SIGTERM, signal.SIGINT)
            if signal.getsignal(number) is not signal.SIG_IGN  # a job in the background of a script
        }
        try:
            await self._until(told, models, make_app, announce)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return INTERRUPTED if self._signal == signal.SIGINT else 0

    def close(self) -> None:
        """End the models, and loading."""
        self._stopping.set()
        if self._loader is not None:
            self._loader.join(PATIENCE)
        for llm in self._loaded.values():
            llm.close()

    def leave_loading(self, code: int) -> None:
        """End the process here if loading goes on: Python's own end would wait for what it does, or crash it."""
        if self._loader is not None and self._loader.is_alive():
            self._leave(code)

    async def _until(
        self, told: asyncio.Event, models: Mapping[str, Load], make_app: MakeApp, announce: Callable[[str], None]
    ) -> None:
        begin = perf_counter()
        serving = asyncio.create_task(self._server.serve(sockets=self._listening.sockets))
        stop = asyncio.create_task(told.wait())
        loading = asyncio.create_task(self._load(models))
        address = self._listening.address
        log.info("listening", extra={"fields": {"address": address, "models": ", ".join(models)}})
        try:
            await asyncio.wait({serving, stop, loading}, return_when=asyncio.FIRST_COMPLETED)
            if loading.done():
                loading.result()
                app = make_app(self._loaded, self._metrics)
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

    async def _stop(self, serving: "asyncio.Task[None]") -> None:
        """Take no more requests, and wait for the answers that are under way."""
        if self._server.should_exit:
            return
        running, grace = self._guarded.endings.running, self._settings.shutdown_grace
        log.info("stopping", extra={"fields": {"running": running, "grace": grace}})
        self._stopping.set()
        self._operation.stop()
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
            self._leave(128 + number)
        self._signal = number
        with suppress(RuntimeError):  # the loop has just ended
            loop.call_soon_threadsafe(told.set)

    def _leave(self, code: int) -> None:
        """End the process where it stands."""
        self._listening.close()
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)

    async def _load(self, models: Mapping[str, Load]) -> None:
        """Load all models in a thread, which an end of the process does not wait for."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def report(error: BaseException | None) -> None:
            if not done.done():
                done.set_exception(error) if error is not None else done.set_result(None)

        def load() -> None:
            error: BaseException | None = None
            try:
                for name, make in models.items():
                    self._loaded[name] = make(_Progress(name, self._stopping))
            except BaseException as raised:  # noqa: BLE001  (whoever waits raises it)
                error = raised
            with suppress(RuntimeError):  # nobody waits any more
                loop.call_soon_threadsafe(report, error)

        self._loader = threading.Thread(target=load, name="sotol-loading", daemon=True)
        self._loader.start()
        await done


class _Progress:
    """Writes to the log what loading does, when it begins and ends; ends it if the server stops."""

    def __init__(self, model: str, stopping: threading.Event) -> None:
        self._model, self._stopping = model, stopping
        self._begun = set[str]()

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._stopping.is_set():
            raise _Stopped
        if what not in self._begun or done >= total:
            self._begun.add(what)
            fields: dict[str, Any] = {"model": self._model, "work": what, "done": done, "of": total}
            log.info("loading", extra={"fields": fields})


class _Stopped(BaseException):
    """Ends loading."""
