"""The engine: one thread that turns requests into steps, and logits into tokens.

A request that fails does so alone: bad logits, a listener that is gone, a token without text. A step that fails takes
the requests in it along; a fault of the scheduler itself ends the engine, and everybody hears why.
"""

import contextlib
from collections.abc import Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sotol.engine.sampling import Picked, pick
from sotol.engine.scheduler import Batch, Scheduler
from sotol.engine.sequence import Generation, Scoring
from sotol.errors import ModelError, SotolError, again
from sotol.program.step import Limits, Step
from sotol.workers import Workers, check_process

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
        """Raises ValueError if the runner's cache can't hold one context, SotolError if no thread can be started."""
        self._scheduler = Scheduler(runner.limits)
        self._inbox = _Inbox()
        serve = partial(_serve, runner, self._scheduler, self._inbox)
        self._workers = Workers("engine", [serve], partial(self._inbox.close, SotolError("the model is closed")))

    def submit(self, requests: Sequence[Request]) -> None:
        """Begin requests, together: those of one call share what there is with those of others.

        Raises SotolError if the engine is closed or was made before a fork, ValueError for one that can't fit.
        """
        check_process(self._workers.pid)
        for request in requests:
            self._scheduler.check(request)
        self._inbox.put(requests)

    def cancel(self, request: Request) -> None:
        """Stop a request, from any thread; it hears no more once the step that runs is over."""
        request.cancelled = True  # the thread looks before each step, and sleeps only when there is no request

    def close(self) -> None:
        """End the thread after the step that runs; several threads may, and each returns when it has ended."""
        self._workers.close()


class _Inbox:
    """Where requests wait for the engine's thread.

    Without a lock of ours: a signal's handler that raises, or a fork, would leave it taken.
    """

    def __init__(self) -> None:
        self._new: SimpleQueue[Sequence[Request] | None] = SimpleQueue()  # None wakes the thread
        self.closed: Exception | None = None  # why

    def put(self, requests: Sequence[Request]) -> None:
        if self.closed is not None:
            raise SotolError(f"no more requests: {self.closed}") from self.closed
        self._new.put(requests)
        if (why := self.closed) is not None:  # meanwhile; the thread may have looked for the last time
            self.refuse(why)

    def close(self, why: Exception) -> None:
        self.closed = self.closed or why
        self._new.put(None)

    def take(self, *, wait: bool) -> list[Sequence[Request]]:
        """What was submitted since; waits for something if told to."""
        new: list[Sequence[Request]] = []
        with contextlib.suppress(Empty):  # another took the last
            while wait or not self._new.empty():
                requests = self._new.get(block=wait)
                wait = False
                if requests is not None:
                    new.append(requests)
        return new

    def refuse(self, why: Exception) -> None:
        """After closing: fail the requests that nobody took."""
        for requests in self.take(wait=False):
            for request in requests:
                _fail(request, why)


def _serve(runner: Runner, scheduler: Scheduler, inbox: _Inbox) -> None:
    """The engine's thread."""
    try:
        batch: Batch | None = None
        while inbox.closed is None:
            for requests in inbox.take(wait=batch is None):
                scheduler.add(requests)
            requests = ()  # a waiting thread must not keep requests alive
            batch = scheduler.next()
            if batch is not None:
                _run(runner, scheduler, batch)
    except Exception as error:  # noqa: BLE001  (whatever it is, callers wait for an answer)
        inbox.close(error)
    why = inbox.closed
    assert why is not None
    for request in scheduler.active():
        _fail(request, why)
    inbox.refuse(why)


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
    """End a request with an error of its own, unless it has ended."""
    if request.done or request.cancelled:
        return
    with contextlib.suppress(Exception):  # nobody listens any more, as when an event loop was closed
        request.fail(again(error))
