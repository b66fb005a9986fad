"""Threads that load models. An end of the process waits for none of them for long: loading may take minutes."""

import asyncio
import ctypes
import gc
import logging
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sotol.llm import LLM
from sotol.progress import Progress

__all__ = ["Load", "Loads", "give_back"]

log = logging.getLogger("sotol.server")
PATIENCE = 1.0  # seconds that loading has to notice that it is to stop

Load = Callable[[Progress], LLM]


def give_back() -> None:
    """Give the system the memory that models left behind: call it in a thread, once one is closed and lost.

    Parts of a model refer to each other, and `sotol` looks for such garbage seldom; C's library keeps what was freed,
    for each thread apart, unless it is told not to (glibc: malloc_trim(3)).
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


class Loads:
    """Runs what loads a model, each in a thread of its own."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._threads: set[threading.Thread] = set()

    async def load(self, name: str, make: Load) -> LLM:
        """What `make` gives. Who waits may be cancelled: what is loaded nevertheless is closed again."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[LLM] = loop.create_future()

        def report(llm: LLM | None, error: BaseException | None) -> None:
            if not done.done():
                done.set_exception(error) if error is not None else done.set_result(llm)  # type: ignore[arg-type]
            elif llm is not None:
                llm.close()

        def run() -> None:
            llm: LLM | None = None
            error: BaseException | None = None
            try:
                llm = make(_Progress(name, self._stopping))
            except _Stopped:
                error = asyncio.CancelledError()
            except BaseException as raised:  # noqa: BLE001  (whoever waits raises it)
                error = raised
            try:
                loop.call_soon_threadsafe(report, llm, error)
            except RuntimeError:  # the loop has ended
                if llm is not None:
                    llm.close()
            self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=run, name="sotol-loading", daemon=True)
        self._threads.add(thread)
        thread.start()
        return await done

    def stop(self) -> None:
        """What still loads is to end as soon as it notices."""
        self._stopping.set()

    def ended(self) -> bool:
        """Whether all threads have ended, after a moment in which they may."""
        for thread in list(self._threads):
            with suppress(RuntimeError):  # it was not started
                thread.join(PATIENCE)
        return not any(thread.is_alive() for thread in list(self._threads))


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
