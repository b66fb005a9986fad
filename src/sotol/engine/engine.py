"""The engine: one thread that turns requests into steps, and logits into tokens.

A request that fails does so alone: bad logits, a listener that is gone, a token without text. A step that fails takes
the requests in it along; a fault of the scheduler itself ends the engine, and everybody hears why.
"""

import contextlib
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sotol.engine.sampling import Picked, pick
from sotol.engine.scheduler import Batch, Scheduler
from sotol.engine.sequence import Generation, Scoring
from sotol.errors import ModelError, SotolError
from sotol.program.step import Limits, Step

__all__ = ["Engine", "Request", "Runner"]

Float32Array = npt.NDArray[np.float32]
Request = Generation | Scoring


class Runner(Protocol):
    """What a backend gives: steps to logits [R, V], valid until the next step."""

    @property
    def limits(self) -> Limits: ...
    def run(self, step: Step) -> Float32Array: ...


class Engine:
    """Serves requests from any thread; each request hears of its progress through its `deliver`.

    `close` (or losing the engine) ends the thread after the step that runs; requests that are not done fail.
    """

    def __init__(self, runner: Runner) -> None:
        """Raises ValueError if the runner's cache can't hold one context."""
        self._scheduler = Scheduler(runner.limits)
        self._inbox = _Inbox()
        # The thread knows nothing of the engine, which could not get lost otherwise.
        self._thread = threading.Thread(
            target=_serve, args=(runner, self._scheduler, self._inbox), name="sotol-engine", daemon=True
        )
        self._thread.start()
        self.close: Callable[[], object] = weakref.finalize(self, _close, self._inbox, self._thread)

    def submit(self, requests: Sequence[Request]) -> None:
        """Begin requests, together. Raises SotolError if the engine is closed, ValueError for one that can't fit."""
        for request in requests:
            self._scheduler.check(request)
        self._inbox.put(requests)

    def cancel(self, request: Request) -> None:
        """Stop a request, from any thread; it hears no more once the step that runs is over."""
        request.cancelled = True  # the thread looks before each step, and sleeps only when there is no request


class _Inbox:
    """Where requests wait for the engine's thread."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._new: list[Request] = []
        self._closed: Exception | None = None  # why

    def put(self, requests: Sequence[Request]) -> None:
        with self._condition:
            if self._closed is not None:
                raise SotolError(f"no more requests: {self._closed}") from self._closed
            self._new += requests
            self._condition.notify()

    def close(self, why: Exception) -> None:
        with self._condition:
            self._closed = self._closed or why
            self._condition.notify()

    def rest(self) -> tuple[list[Request], Exception]:
        """After closing: the requests that nobody took, and why."""
        with self._condition:
            assert self._closed is not None
            return self._new, self._closed

    def take(self, *, wait: bool) -> list[Request] | None:
        """New requests, waiting for some if told to; None when the engine closes."""
        with self._condition:
            while wait and not (self._new or self._closed):
                self._condition.wait()
            if self._closed:
                return None
            new, self._new = self._new, []
            return new


def _serve(runner: Runner, scheduler: Scheduler, inbox: _Inbox) -> None:
    """The engine's thread."""
    try:
        batch: Batch | None = None
        while (new := inbox.take(wait=batch is None)) is not None:
            scheduler.add(new)
            new.clear()  # a waiting thread must not keep requests alive
            batch = scheduler.next()
            if batch is not None:
                _run(runner, scheduler, batch)
    except Exception as error:  # noqa: BLE001  (whatever it is, callers wait for an answer)
        inbox.close(error)
    left, why = inbox.rest()
    for request in [*scheduler.active(), *left]:
        _fail(request, why)


def _run(runner: Runner, scheduler: Scheduler, batch: Batch) -> None:
    """One step: schedule -> run -> accept."""
    try:
        logits = runner.run(batch.step)
    except Exception as error:  # noqa: BLE001  (whatever it is, others must be served)
        for work in batch.works:
            _fail(work.sequence, error)
        return
    scheduler.done(batch)
    choosing: list[tuple[Generation, int]] = []
    for work in batch.works:
        if work.rows.start == work.rows.stop:
            continue  # more of its prompt is to come
        match work.sequence:
            case Scoring() as scoring:
                _accept(scoring, logits[work.rows])
            case Generation() as generation:
                choosing.append((generation, work.rows.start))
    for generation, picked in _choose(logits, choosing):
        _accept(generation, picked)


def _choose(logits: Float32Array, choosing: list[tuple[Generation, int]]) -> list[tuple[Generation, Picked]]:
    """A token for each generation; one whose logits are unusable fails alone."""
    rows = logits[[row for _, row in choosing]] if len(choosing) != len(logits) else logits
    try:
        picks = pick(rows, [generation.sampler for generation, _ in choosing])
        return [(generation, picked) for (generation, _), picked in zip(choosing, picks, strict=True)]
    except Exception as error:  # noqa: BLE001  (as above)
        if len(choosing) > 1 and isinstance(error, ModelError):  # no sampler has moved: choose for each apart
            return [pair for one in choosing for pair in _choose(logits, [one])]
        for generation, _ in choosing:
            _fail(generation, error)
        return []


def _accept(request: Request, result: Any) -> None:
    """Give a request what its step computed; if it can't take that, it ends."""
    if request.cancelled:
        return
    try:
        request.accept(result)
    except Exception as error:  # noqa: BLE001  (as above)
        _fail(request, error)


def _fail(request: Request, error: Exception) -> None:
    with contextlib.suppress(Exception):  # nobody listens any more, as when an event loop was closed
        request.fail(error)


def _close(inbox: _Inbox, thread: threading.Thread) -> None:
    inbox.close(SotolError("the model is closed"))
    if thread is not threading.current_thread():  # where the garbage collector may find a lost engine
        thread.join()
