"""Threads that belong to an object and end with it: when it is closed, when it is lost, when one of them can't start.

A process that was forked from theirs has none of them, and says so. Knows nothing of what they do.
"""

import os
import threading
import weakref
from collections.abc import Callable, Sequence

from sotol.errors import SotolError

__all__ = ["Workers", "check_process"]

# The kernels of attention need some 300 kB beside what Python does. A program may have set less for all its threads
# (`threading.stack_size`, `ulimit -s`), and musl gives 128 kB. This is what most systems give anyway, so that a thread
# that somebody else starts at that very moment gets no less than it would have.
STACK_BYTES = 8 << 20

# The size of new stacks is the process's, not the thread's: this keeps two of us from undoing each other's setting. It
# is free in a forked child, whoever held it in the parent.
_stack_size = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_stack_size.acquire, after_in_parent=_stack_size.release, after_in_child=_stack_size.release
    )


def check_process(pid: int) -> None:
    """SotolError unless this is process `pid`: threads, and locks that they held, don't survive a fork."""
    if os.getpid() != pid:
        raise SotolError("this model was loaded before fork(): load it in the child")


class Worker(threading.Thread):
    """A thread of ours."""


class Workers:
    """Daemon threads, one for each target.

    targets: what they run; they must not refer to the owner of the Workers, which could not get lost otherwise.
    stop: makes the targets return soon; called from any thread, any number of times, even before they started.
    """

    def __init__(self, name: str, targets: Sequence[Callable[[], object]], stop: Callable[[], object]) -> None:
        """Starts them all, or none: SotolError where the system gives no more threads."""
        self.pid = os.getpid()
        self._threads = [
            Worker(target=target, name=f"sotol-{name}-{i}", daemon=True) for i, target in enumerate(targets, 1)
        ]
        # First: whatever happens from here on (Ctrl-C, too), threads that were started end.
        self._finalizer = weakref.finalize(self, _end, self.pid, stop, self._threads)
        self._stop = stop
        try:
            for thread in self._threads:
                _start(thread)
        except BaseException as error:
            self.close()
            if isinstance(error, RuntimeError | MemoryError):  # what Thread.start raises
                raise SotolError(
                    f"the system starts no more threads ({len(self._threads)} for {name}: {error}): load with fewer"
                    " threads, or raise the limits of processes and memory (ulimit -u, ulimit -v)"
                ) from error
            raise

    def wait(self, seconds: float | None = None) -> bool:
        """Until all have returned, or for so long; whether they have."""
        for thread in self._threads:
            thread.join(seconds)
            if thread.is_alive():
                return False
        return True

    def close(self) -> None:
        """Stop them, and wait until they have ended; several threads may. In a forked child: nothing."""
        _end(self.pid, self._stop, self._threads)
        self._finalizer.detach()


def _end(pid: int, stop: Callable[[], object], threads: Sequence[threading.Thread]) -> None:
    if os.getpid() != pid:
        return
    stop()
    # A worker, in which the garbage collector may find a lost owner, waits for no other: that one may wait for it.
    if not isinstance(threading.current_thread(), Worker):
        for thread in threads:
            if thread.is_alive():
                thread.join()


def _start(thread: threading.Thread) -> None:
    """Start a thread with a stack of STACK_BYTES at least."""
    with _stack_size:
        before = threading.stack_size()
        try:
            threading.stack_size(max(before, STACK_BYTES))
            thread.start()
        finally:
            threading.stack_size(before)
