"""A team of threads that walks a tape: the caller and its helpers, outside the interpreter's lock.

`kernels/walk.py` has the protocol. Between steps a helper spins for some 50 us, then yields, then sleeps on a
condition, so an idle engine uses no CPU; a step never waits for a sleeper, who joins when it is awake.
"""

import ctypes
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sotol.backends.cpu.building.library import Code, Key, Library
from sotol.backends.cpu.machine import container_cpus
from sotol.workers import Workers

__all__ = ["PROGRAM_KEYS", "Native", "Team", "default_threads", "native"]

PROGRAM_KEYS: tuple[Key, ...] = (("prepare",), ("begin",), ("walk",), ("work",))
PATIENCE = 2000  # yields of an idle helper before it sleeps: about a millisecond
STEPS = 2**31 - 1  # step numbers before they start again

Words = npt.NDArray[np.int64]
Native = Callable[[int, int, int, int, int], int]


def default_threads() -> int:
    """Physical cores that this process may use, within the limits of its container."""
    try:
        able = os.sched_getaffinity(0)
    except AttributeError:  # not Linux
        return os.cpu_count() or 1
    return max(1, min(len({_siblings(n) for n in able}), container_cpus()))


def _siblings(cpu: int) -> str:
    """The logical CPUs that share a core with this one, as the system writes them."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:  # not said, or no file can be opened
        return str(cpu)


class Team:
    """Threads over one tape. Steps run one at a time; `close` (or losing the team) ends the helpers.

    The caller's thread runs kernels, too, and its stack must bear them (see `workers.STACK_BYTES`).
    """

    def __init__(self, tape: Words, threads: int, library: Library, memory: object) -> None:
        """tape: [ops, 3] as `walk.walk` takes it; memory: what owns all that they point to.

        Raises SotolError if the helpers can't be started.
        """
        codes = library.load(PROGRAM_KEYS)
        self._prepare, self._begin, self._walk, self._work = (native(codes[key]) for key in PROGRAM_KEYS)
        self._tape, self._ops = tape, len(tape)
        space = np.zeros(8 * len(tape) + 8, np.int64)  # a cache line for each op
        skip = (-space.ctypes.data % 64) // 8
        self._lines = space[skip : skip + 8 * len(tape)]
        # What helpers watch: the step's number, then what walk() takes.
        self._words = np.array([0, tape.ctypes.data, self._lines.ctypes.data, self._ops], np.int64)
        self._step = 0
        self._rest = _Rest()
        help_ = partial(_help, self._work, self._words, self._rest, tape, space, memory)
        stop = partial(_stop, self._begin, self._words, self._rest)
        self._helpers = Workers("helper", [help_] * (threads - 1), stop)

    def close(self) -> None:
        """End the helpers. A step that runs meanwhile, or later, is done by its caller alone."""
        self._helpers.close()

    def run(self, fill: Callable[[], None], times: Words | None = None) -> None:
        """One step. fill() writes what kernels read: no earlier, since stragglers of the last step may look.

        times: [ops + 1], receives the cycle counter before the first op and after each.
        """
        self._step = self._step % STEPS + 1
        tape, lines = self._tape.ctypes.data, self._lines.ctypes.data
        self._prepare(lines, self._ops, self._step, 0, 0)
        fill()
        if not self._rest.closed:  # or helpers would never see the end, but step after step
            self._begin(self._words.ctypes.data, self._step, 0, 0, 0)
            self._rest.wake()
        self._walk(tape, lines, self._ops, self._step, 0 if times is None else times.ctypes.data)


class _Rest:
    """Where idle helpers sleep."""

    def __init__(self) -> None:
        # A lock of its own, and one that may be taken twice: `with lock` can't be interrupted once it is taken (as
        # `with condition` can, by a signal's handler), and the garbage collector may close a team in its own helper.
        self._lock = threading.RLock()
        self._condition = threading.Condition(self._lock)
        self._sleeping = 0
        self.closed = False

    def wake(self) -> None:
        with self._lock:
            if self._sleeping:
                self._condition.notify_all()

    def close(self) -> None:
        """Nobody sleeps from now on."""
        self.closed = True
        self.wake()

    def sleep(self, words: Words, seen: int) -> bool:
        """Until the step's number is another than `seen`; False when all is over."""
        with self._lock:
            self._sleeping += 1
            while int(words[0]) == seen and not self.closed:
                self._condition.wait()
            self._sleeping -= 1
            return not self.closed


def native(code: Code) -> Native:
    """A compiled program as a function of five integers; ctypes lets other threads run meanwhile."""
    return ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 5)(code.address)


def _help(work: Native, words: Words, rest: _Rest, *_kept: object) -> None:
    """A helper's life. It keeps alive all the memory that it may look at, but not the team."""
    seen = 0
    while (seen := work(words.ctypes.data, seen, PATIENCE, 0, 0)) >= 0:
        if not rest.sleep(words, seen):
            return


def _stop(begin: Native, words: Words, rest: _Rest) -> None:
    """Helpers that look at the words see that it is over; those that sleep are woken, and so is who comes later."""
    try:
        begin(words.ctypes.data, -1, 0, 0, 0)
    finally:
        rest.close()
