"""The engine: one thread that batches requests into steps and turns logits into tokens.

Failures are contained. Bad logits or a listener that raises end one request. A step that fails ends the requests in it.
An error in the scheduler itself ends the engine, and every request fails with that error.
"""

import contextlib
from collections.abc import Sequence as List
from functools import partial
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any, NamedTuple

from sotol.arrays import Float32Array
from sotol.engine.constrain import Grammars
from sotol.engine.masks import Complete, Masks
from sotol.engine.outbox import Outbox
from sotol.engine.sampling import Picked, pick, take
from sotol.engine.scheduler import Batch, Load, Scheduler
from sotol.engine.sequence import Sequence
from sotol.errors import ModelError, QueueFullError, SotolError, own_copy
from sotol.program.runner import Runner
from sotol.workers import Workers, check_process

__all__ = ["Engine", "Request"]

Request = Sequence


class Engine:
    """Serves requests from any thread; each request reports its progress through its `deliver` callback.

    A callback may put events into the `outbox`, which is flushed after each step. `close` ends the thread after the
    current step, and so does garbage collection; unfinished requests fail.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        grammars: Grammars | None = None,
        reuse: bool = True,
        slowdown: float = 1.8,
        queue: int = 65536,
    ) -> None:
        """grammars: what makes the matchers of requests. reuse, slowdown: see `Scheduler`. queue: how many may wait.

        ValueError if the runner's memory can't hold one context, SotolError if no thread can be started.
        """
        self._scheduler = Scheduler(runner.limits, runner.groups, reuse=reuse, slowdown=slowdown)
        self._queue, self.grammars = queue, grammars
        self.outbox = Outbox()
        self._inbox = _Inbox(self.outbox)
        serve = partial(_serve, runner, self._scheduler, self._inbox)
        self._workers = Workers("engine", [serve], partial(self._inbox.close, SotolError("the model is closed")))

    def submit(self, requests: List[Request]) -> None:
        """Queue requests. Those of one call are one client, unless their `terms` name another.

        SotolError if the engine is closed or was made before a fork, QueueFullError if too many wait already,
        ValueError for a request that can't fit.
        """
        check_process(self._workers.pid)
        for request in requests:
            self._scheduler.check(request)
        waiting = self._scheduler.waiting + self._inbox.submissions
        if waiting and waiting + len(requests) > self._queue:
            raise QueueFullError(f"{waiting} requests wait already, of at most {self._queue}: try again later")
        self._inbox.put(requests)

    def load(self) -> Load:
        """How many requests wait and run, and how full the cache memory is; from any thread."""
        return self._scheduler.load()

    def cancel(self, request: Request) -> None:
        """Stop a request, from any thread; nothing is delivered to it after the current step."""
        request.cancelled = True  # the thread checks before each step, and sleeps only when there are no requests

    def close(self) -> None:
        """End the thread after the current step. Several threads may call it; each returns once it has ended."""
        self._workers.close()


class _Inbox:
    """Where requests wait for the engine's thread.

    It has no lock of its own: a signal handler that raises, or a fork, could leave that locked for ever.
    """

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self._new: SimpleQueue[List[Request] | None] = SimpleQueue()  # None wakes the thread
        self.closed: Exception | None = None  # why it is closed

    @property
    def submissions(self) -> int:
        """How many submissions the engine's thread has not taken yet."""
        return self._new.qsize()

    def put(self, requests: List[Request]) -> None:
        if self.closed is not None:
            raise SotolError(f"no more requests: {self.closed}") from self.closed
        self._new.put(requests)
        if (why := self.closed) is not None:  # closed meanwhile: the thread may never look again
            self.refuse(why)

    def close(self, why: Exception) -> None:
        self.closed = self.closed or why
        self._new.put(None)

    def take(self, *, wait: bool) -> list[List[Request]]:
        """All new submissions. wait: block until there is one, or the inbox is closed."""
        new: list[List[Request]] = []
        with contextlib.suppress(Empty):  # another thread took the last one
            while wait or not self._new.empty():
                requests = self._new.get(block=wait)
                wait = False
                if requests is not None:
                    new.append(requests)
        return new

    def refuse(self, why: Exception) -> None:
        """After closing: fail the requests that the thread has not taken."""
        for requests in self.take(wait=False):
            for request in requests:
                _fail(request, why)
        self.outbox.flush()


def _serve(runner: Runner, scheduler: Scheduler, inbox: _Inbox) -> None:
    """The engine's thread. It must not reference the Engine, which could then never be garbage-collected."""
    masks = Masks()
    try:
        batch: Batch | None = None
        while inbox.closed is None:
            for requests in inbox.take(wait=batch is None):
                scheduler.add(requests)
            requests = ()  # a sleeping thread must not keep requests alive
            batch = scheduler.next()
            if batch is not None:
                _run(runner, scheduler, batch, masks)
            inbox.outbox.flush()
    except Exception as error:  # noqa: BLE001  (whatever failed, callers wait for an answer)
        inbox.close(error)
    masks.close()
    why = inbox.closed
    assert why is not None
    for request in scheduler.active():
        _fail(request, why)
    inbox.refuse(why)


class _Choice(NamedTuple):
    """A request whose next token is to be chosen: the row of its logits, and what is added to them."""

    request: Request
    row: int
    mask: Float32Array | None


def _run(runner: Runner, scheduler: Scheduler, batch: Batch, masks: Masks) -> None:
    """Run one step, choose tokens, and deliver them."""
    if batch.copies:
        runner.copy(batch.copies)
    ready = [share for share in batch.takes if share.rows.start < share.rows.stop]  # of others, more is to come
    matchers = {
        share.sequence: share.sequence.matcher
        for share in ready
        if share.sequence.matcher is not None and share.sequence.decided is None
    }
    computed = masks.start(list(matchers.values()))
    begin = perf_counter()
    try:
        logits = runner.run(batch.step)["logits"]
    except Exception as error:  # noqa: BLE001  (whatever failed, other requests must be served)
        for share in batch.takes:
            _fail(share.sequence, error)  # others are safe: it wrote only to its own blocks, and nothing is committed
        return
    scheduler.advance(batch, perf_counter() - begin)
    masked = dict(zip(matchers, computed(), strict=True))
    choosing: list[_Choice] = []
    for share in ready:
        request, row = share.sequence, share.rows.start
        if request.sampler is None:
            _accept(request, logits[share.rows])
        elif (token := request.decided) is not None:
            _accept(request, take(logits[row], request.sampler, token))
        elif isinstance(mask := masked.get(request), Exception):
            _end(request, mask)
        else:
            choosing.append(_Choice(request, row, mask))
    for request, picked in _choose(logits, choosing):
        _accept(request, picked)


def _choose(logits: Float32Array, choosing: list[_Choice]) -> list[tuple[Request, Picked]]:
    """Choose a token for each request; a request whose logits are unusable fails alone."""
    if not choosing:
        return []
    rows = logits[[choice.row for choice in choosing]] if len(choosing) != len(logits) else logits
    try:
        samplers = [choice.request.sampler for choice in choosing if choice.request.sampler is not None]
        picks = pick(rows, samplers, [choice.mask for choice in choosing])
        return [(choice.request, picked) for choice, picked in zip(choosing, picks, strict=True)]
    except Exception as error:  # noqa: BLE001  (as above)
        if len(choosing) > 1 and isinstance(error, ModelError):  # no sampler has changed: try them one by one
            return [pair for one in choosing for pair in _choose(logits, [one])]
        for choice in choosing:
            _fail(choice.request, error)
        return []


def _accept(request: Request, result: Any) -> None:
    """Give a request its result of the step; if it raises, the request fails."""
    if request.cancelled:
        return
    try:
        request.accept(result)
    except Exception as error:  # noqa: BLE001  (as above)
        _fail(request, error)


def _end(request: Request, why: Exception) -> None:
    """End a request that has no mask, unless it has ended."""
    if not isinstance(why, Complete):
        _fail(request, why)
    elif not request.cancelled:
        try:
            request.complete()
        except Exception as error:  # noqa: BLE001  (as above)
            _fail(request, error)


def _fail(request: Request, error: Exception) -> None:
    """End a request with its own copy of an error, unless it has ended."""
    if request.done or request.cancelled:
        return
    with contextlib.suppress(Exception):  # nobody listens any more: its event loop was closed, for instance
        request.fail(own_copy(error))
