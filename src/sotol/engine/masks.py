"""What may be chosen next, computed while a step runs: most of a forward pass needs no Python.

A mask mostly takes some ten microseconds, and now and then a thousand times as long. So a thread is woken only where it
helps, and what it has not begun when the step is over, the engine's thread does itself: a machine that is busy with
other work may not let the other one run.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from time import perf_counter
from typing import NamedTuple

from sotol.arrays import Float32Array
from sotol.engine.constrain import Matcher
from sotol.errors import SotolError
from sotol.workers import Workers

__all__ = ["Complete", "Masks"]

CHEAP = 1e-4  # seconds that masks took the last time: not worth waking a thread


class Complete(Exception):
    """There is no mask: the answer is complete, and nothing may follow it."""


Result = Float32Array | Exception  # of a matcher: its mask, or why it has none


class _Done(NamedTuple):
    """A result, its place, and how many seconds it took."""

    place: int
    result: Result
    seconds: float


class _Job(NamedTuple):
    """The masks of a step. left: those that nobody has begun, with their places; done: what the thread has done."""

    left: deque[tuple[int, Matcher]]
    done: SimpleQueue[_Done]


class Masks:
    """Computes masks in a thread of its own, which it starts when it is needed first."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._workers: Workers | None = None
        self._seconds = CHEAP  # of the last step's masks

    def start(self, matchers: Sequence[Matcher]) -> Callable[[], list[Result]]:
        """Begin with the masks of these matchers; what is returned gives them."""
        if not matchers:
            return list
        job = _Job(deque(enumerate(matchers)), SimpleQueue())
        if self._seconds >= CHEAP:
            with suppress(SotolError):  # the system starts no more threads: it goes without
                self._workers = self._workers or self._started()
                self._jobs.put(job)
        return partial(self._finish, job, len(matchers))

    def _started(self) -> Workers:
        return Workers("masks", [partial(_serve, self._jobs)], partial(self._jobs.put, None))

    def _finish(self, job: _Job, count: int) -> list[Result]:
        """All results, in order."""
        done = list(_work(job))
        done += [job.done.get() for _ in range(count - len(done))]
        self._seconds = sum(one.seconds for one in done)
        return [one.result for one in sorted(done, key=lambda one: one.place)]

    def close(self) -> None:
        """End the thread."""
        if self._workers is not None:
            self._workers.close()


def _serve(jobs: SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        _do(job)
        del job  # a sleeping thread must not keep it alive


def _do(job: _Job) -> None:
    for done in _work(job):
        job.done.put(done)


def _work(job: _Job) -> Iterator[_Done]:
    """Masks that nobody has begun, until there are none. Taking one is a single step: no two threads take the same."""
    while job.left:
        try:
            place, matcher = job.left.popleft()
        except IndexError:  # the other thread was quicker
            return
        begin = perf_counter()
        yield _Done(place, _mask(matcher), perf_counter() - begin)


def _mask(matcher: Matcher) -> Result:
    try:
        mask = matcher.mask()
        return Complete() if mask is None else mask
    except Exception as error:  # noqa: BLE001  (whatever failed, the other requests must be served)
        return error
    except BaseException as error:  # noqa: BLE001  (a panic of llguidance is no Exception)
        return RuntimeError(f"computing a mask failed: {error}")
