"""The engine: one thread that turns requests into steps, and logits into tokens."""

import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sotol.engine.sampling import Picked, pick
from sotol.engine.scheduler import Batch, Scheduler
from sotol.engine.sequence import Generation, Scoring
from sotol.errors import SotolError
from sotol.program.step import Limits, Step

__all__ = ["Engine", "Runner"]

Float32Array = npt.NDArray[np.float32]


class Runner(Protocol):
    """What a backend gives: steps to logits [R, V], valid until the next step."""

    @property
    def limits(self) -> Limits: ...
    def run(self, step: Step) -> Float32Array: ...


class Engine:
    """Serves requests from any thread; each request hears of its progress through its `deliver`."""

    def __init__(self, runner: Runner) -> None:
        self._inbox = _Inbox()
        self._thread = threading.Thread(target=_serve, args=(runner, self._inbox), name="sotol-engine", daemon=True)
        self._thread.start()
        self.close: Callable[[], object] = weakref.finalize(self, _close, self._inbox, self._thread)

    def submit(self, requests: Sequence[Generation | Scoring]) -> None:
        """Begin requests, together. Raises SotolError if the engine is closed."""
        self._inbox.put(requests)

    def cancel(self, request: Generation | Scoring) -> None:
        """Stop a request; it hears no more."""
        request.cancelled = True
        self._inbox.nudge()


class _Inbox:
    """Where requests wait for the engine's thread."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._new: list[Generation | Scoring] = []
        self._closed = False
        self._nudged = False

    def put(self, requests: Sequence[Generation | Scoring]) -> None:
        with self._condition:
            if self._closed:
                raise SotolError("the model is closed")
            self._new += requests
            self._condition.notify()

    def nudge(self) -> None:
        """Let the thread look at what was cancelled."""
        with self._condition:
            self._nudged = True
            self._condition.notify()

    def close(self) -> None:
        with self._condition:
            self._closed = True
            self._condition.notify()

    def rest(self) -> list[Generation | Scoring]:
        """Requests that nobody will serve any more."""
        with self._condition:
            return self._new

    def take(self, *, wait: bool) -> list[Generation | Scoring] | None:
        """New requests, waiting for some if told to; None when the engine closes."""
        with self._condition:
            while wait and not (self._new or self._closed or self._nudged):
                self._condition.wait()
            if self._closed:
                return None
            self._nudged = False
            new, self._new = self._new, []
            return new


def _serve(runner: Runner, inbox: _Inbox) -> None:
    """The engine's thread."""
    scheduler = Scheduler(runner.limits)
    why: Exception = SotolError("the model was closed")
    try:
        batch: Batch | None = None
        while (new := inbox.take(wait=batch is None)) is not None:
            for request in new:
                scheduler.add(request)
            batch = scheduler.next()
            if batch is not None:
                _run(runner, scheduler, batch)
    except Exception as error:
        why = error
        raise
    finally:
        inbox.close()
        for request in [*scheduler.active(), *inbox.rest()]:
            request.fail(why)


def _run(runner: Runner, scheduler: Scheduler, batch: Batch) -> None:
    """One step: schedule -> run -> accept."""
    try:
        logits = runner.run(batch.step)
    except Exception as error:  # noqa: BLE001  (whatever it is, the callers wait for it, and others must be served)
        for work in batch.works:
            work.sequence.fail(error)
        return
    scheduler.done(batch)
    choosing: list[tuple[Generation, int]] = []
    for work in batch.works:
        match work.sequence:
            case Scoring() as scoring:
                scoring.accept(logits[work.rows])
            case Generation() as generation if work.rows.stop > work.rows.start:
                choosing.append((generation, work.rows.start))
    for generation, picked in _choose(logits, choosing):
        if not generation.cancelled:
            generation.accept(picked)


def _choose(logits: Float32Array, choosing: list[tuple[Generation, int]]) -> list[tuple[Generation, Picked]]:
    """A token for each generation; one whose logits are unusable fails alone."""
    rows = logits[[row for _, row in choosing]] if len(choosing) != len(logits) else logits
    try:
        picks = pick(rows, [generation.sampler for generation, _ in choosing])
        return [(generation, picked) for (generation, _), picked in zip(choosing, picks, strict=True)]
    except SotolError as error:
        if len(choosing) == 1:
            choosing[0][0].fail(error)
            return []
        return [pair for one in choosing for pair in _choose(logits, [one])]


def _close(inbox: _Inbox, thread: threading.Thread) -> None:
    inbox.close()
    thread.join()
