"""The team of threads that walks all tapes of this process: the caller's and helpers, outside the interpreter's lock.

`kernels/walk.py` has the protocol. Steps of several models take turns, so that no two use the same cores at once.
Between steps a helper spins for some 50 us, then yields, then sleeps on a condition variable, so an idle engine uses no
CPU. A step never waits for a sleeping helper, which joins once it is awake.
"""

import ctypes
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import sleep
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from sotol.backends.cpu.building.library import Code, Key, Library
from sotol.backends.cpu.layout import CACHE_LINE, TAPE_ENTRY
from sotol.backends.machine import container_cpus
from sotol.workers import Workers

__all__ = ["NATIVE_KEYS", "NativeFunction", "Tape", "Team", "default_threads", "join_team", "native_function"]

NATIVE_KEYS: tuple[Key, ...] = (("prepare",), ("begin",), ("walk",), ("work",))
PATIENCE = 2000  # yields of an idle helper before it sleeps: about a millisecond
EPOCHS = 2**31 - 1  # before they start again: an epoch fits the upper half of a word

Words = npt.NDArray[np.int64]
NativeFunction = Callable[[int, int, int, int, int], int]


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


class Tape:
    """Kernels and their arguments, in order, as threads walk them."""

    def __init__(self, ops: Words, threads: int, memory: object) -> None:
        """ops: [ops, 3], see `walk.walk`. threads: how many take part. memory: keeps alive all that ops point to."""
        assert 8 * ops.shape[1] == TAPE_ENTRY
        self.ops, self.threads, self.memory = ops, threads, memory
        words = CACHE_LINE // 8
        space = np.zeros(words * (len(ops) + 1), np.int64)
        skip = (-space.ctypes.data % CACHE_LINE) // 8
        self.lines = space[skip : skip + words * len(ops)]
        self.record = np.array([ops.ctypes.data, self.lines.ctypes.data, len(ops), threads], np.int64)


class _Process:
    """What all models of a process share: whose turn it is, and the team of each kernel library."""

    def __init__(self) -> None:
        # One lock for steps, and for models that start and close. It is reentrant, since the garbage collector may
        # close a model in the middle of another's step.
        self.turn = threading.RLock()
        self.teams: WeakValueDictionary[int, Team] = WeakValueDictionary()


_process = _Process()
if hasattr(os, "register_at_fork"):  # a forked child has no helpers, and nobody to release the lock
    os.register_at_fork(after_in_child=_process.__init__)  # type: ignore[misc]


def join_team(library: Library, tape: Tape) -> "Team":
    """The process's team, with at least as many threads as the tape needs. It can run the tape until `Team.remove`.

    Raises SotolError if helpers can't be started.
    """
    with _process.turn:
        team = _process.teams.get(id(library))
        if team is None or team.closed:
            team = _process.teams[id(library)] = Team(library)
        team.add(tape)
        return team


class Team:
    """Threads for all tapes that were added. Steps run one at a time; helpers end when the team is garbage-collected.

    The caller's thread runs kernels, too, and its stack must be large enough for them (see `workers.STACK_BYTES`).
    """

    def __init__(self, library: Library) -> None:
        codes = library.load(NATIVE_KEYS)
        self._library = library  # kept alive: teams are found by the library's id
        self._prepare, self._begin, self._walk, self._work = (native_function(codes[key]) for key in NATIVE_KEYS)
        self._nothing = Tape(np.zeros((0, 3), np.int64), 1, None)
        self._words = np.array([0, self._nothing.record.ctypes.data], np.int64)  # what helpers watch: see `walk.work`
        self._epoch = 0
        self._rest = _Rest()
        self._tapes: list[Tape] = []
        self._own: list[Words] = []  # each helper's own word
        self._helpers: list[Workers] = []

    @property
    def closed(self) -> bool:
        """Whether its helpers have ended, or are about to."""
        return self._rest.closed

    def add(self, tape: Tape) -> None:
        """Keep a tape's memory alive, and start the helpers that it needs beyond those there are."""
        missing = tape.threads - 1 - len(self._own)
        if missing > 0:
            own = [np.zeros(8, np.int64) for _ in range(missing)]  # a cache line each
            stop = partial(_stop, self._begin, self._words, self._nothing, self._rest)
            helps = [
                partial(_help, self._work, self._words, word, self._rest, len(self._own) + i, self._nothing)
                for i, word in enumerate(own)
            ]
            self._helpers.append(Workers("helper", helps, stop))
            self._own += own
        self._tapes.append(tape)

    def remove(self, tape: Tape) -> None:
        """Free a tape: no helper reads it afterwards. After the last tape the helpers end. Any thread may call this."""
        with _process.turn:
            if tape in self._tapes:
                self._leave()  # first: if this is interrupted, the next call does it again
                self._tapes.remove(tape)
            last = not self._tapes
            if last:
                self._rest.close()  # `join_team` makes a new team from now on
        if last:
            for helpers in self._helpers:
                helpers.close()

    def _leave(self) -> None:
        """Wait until no helper reads any tape. Helpers that wake later find an empty one."""
        if self.closed or any(helpers.pid != os.getpid() for helpers in self._helpers):
            return
        self._epoch = self._epoch % EPOCHS + 1
        self._begin(self._words.ctypes.data, self._epoch, self._nothing.record.ctypes.data, 0, 0)
        while any(word[0] for word in self._own):
            sleep(0)

    def run(self, tape: Tape, fill: Callable[[], None], times: Words | None = None) -> None:
        """Run a step. fill() writes what kernels read; it is called when late helpers can no longer be reading it.

        times: [ops + 1], receives the cycle counter before the first op and after each. If the tape was removed, the
        caller's thread runs all of the step.
        """
        ops, lines = tape.ops.ctypes.data, tape.lines.ctypes.data
        with _process.turn:
            self._epoch = epoch = self._epoch % EPOCHS + 1
            self._prepare(lines, len(tape.ops), epoch, 0, 0)
            fill()
            if tape in self._tapes and not self.closed:
                self._begin(self._words.ctypes.data, epoch, tape.record.ctypes.data, 0, 0)
                self._rest.wake()
            self._walk(ops, lines, len(tape.ops), epoch, 0 if times is None else times.ctypes.data)


class _Rest:
    """Where idle helpers sleep."""

    def __init__(self) -> None:
        # The lock is separate from the condition, because a signal's handler can interrupt `with condition` after it
        # has acquired the lock, but not `with lock`. It is reentrant, because the garbage collector may close a team in
        # one of the team's own helpers.
        self._lock = threading.RLock()
        self._condition = threading.Condition(self._lock)
        self._sleeping = 0
        self.closed = False

    def wake(self) -> None:
        with self._lock:
            if self._sleeping:
                self._condition.notify_all()

    def close(self) -> None:
        """Wake all helpers, which then end."""
        self.closed = True
        self.wake()

    def sleep(self, words: Words, seen: int) -> bool:
        """Until the epoch is another than `seen`; False once the team is closed."""
        with self._lock:
            self._sleeping += 1
            while int(words[0]) == seen and not self.closed:
                self._condition.wait()
            self._sleeping -= 1
            return not self.closed


def native_function(code: Code) -> NativeFunction:
    """Native code as a Python function of five integers; ctypes releases the interpreter's lock during calls."""
    return ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 5)(code.address)


def _help(work: NativeFunction, words: Words, own: Words, rest: _Rest, index: int, _nothing: Tape) -> None:
    """A helper's thread. It must not refer to the team, which could then never be garbage-collected."""
    seen = 0
    while (seen := work(words.ctypes.data, own.ctypes.data, seen, PATIENCE, index)) >= 0:
        if not rest.sleep(words, seen):
            return


def _stop(begin: NativeFunction, words: Words, nothing: Tape, rest: _Rest) -> None:
    """End the helpers: those that spin see epoch -1, those that sleep are woken."""
    try:
        begin(words.ctypes.data, -1, nothing.record.ctypes.data, 0, 0)
    finally:
        rest.close()
