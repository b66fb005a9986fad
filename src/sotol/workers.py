"""Threads that an object owns. They end when it is closed or garbage-collected, or if one of them can't be started.

After a fork, the child process has none of the threads, and using the object there is an error. Knows nothing of what
the threads do.
"""

import os
import threading
import weakref
from collections.abc import Callable, Sequence

from sotol.errors import SotolError

__all__ = ["Workers", "check_process"]

# Attention kernels need some 300 kB of stack beyond Python's own. The default may be smaller: musl's is 128 kB, and a
# program may have set another (`threading.stack_size`, `ulimit -s`). 8 MiB is the default of most systems, so a thread
# that other code starts while this setting is active gets a normal stack.
STACK_BYTES = 8 << 20

# The stack size is a setting of the whole process: this lock keeps two threads from undoing each other's. It is always
# released in a forked child, whoever held it in the parent.
_stack_size = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_stack_size.acquire, after_in_parent=_stack_size.release, after_in_child=_stack_size.release
    )


def check_process(pid: int) -> None:
    """SotolError unless this is process `pid`: threads do not survive a fork, and locks that they held stay locked."""
    if os.getpid() != pid:
        raise SotolError("this model was loaded before fork(): load it in the child")


class Worker(threading.Thread):
    """A thread that `Workers` started."""


class Workers:
    """Daemon threads, one for each target.

    targets: what the threads run. They must not reference the owner of the Workers, or it could never be
    garbage-collected. stop: makes the targets return soon; may be called from any thread, any number of times, and
    even before they have started.
    """

    def __init__(self, name: str, targets: Sequence[Callable[[], object]], stop: Callable[[], object]) -> None:
        """Start all threads, or none: SotolError if the system refuses to start one."""
        self.pid = os.getpid()
        self._threads = [
            Worker(target=target, name=f"sotol-{name}-{i}", daemon=True) for i, target in enumerate(targets, 1)
        ]
        # Before starting any: whatever happens from here on, even Ctrl-C, threads that have started will end.
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
        """Wait until all threads have ended, for at most `seconds` each; returns whether they have."""
        for thread in self._threads:
            thread.join(seconds)
            if thread.is_alive():
                return False
        return True

    def close(self) -> None:
        """Stop the threads, and wait until they have ended. Thread-safe. Does nothing in a forked child."""
        _end(self.pid, self._stop, self._threads)
        self._finalizer.detach()


def _end(pid: int, stop: Callable[[], object], threads: Sequence[threading.Thread]) -> None:
    if os.getpid() != pid:
        return
    stop()
    # The garbage collector may run this in any worker thread. Workers do not wait for each other: that could deadlock.
    if not isinstance(threading.current_thread(), Worker):
        for thread in threads:
            if thread.is_alive():
                thread.join()


def _start(thread: threading.Thread) -> None:
    """Start a thread with a stack of at least STACK_BYTES."""
    with _stack_size:
        before = threading.stack_size()
        try:
            threading.stack_size(max(before, STACK_BYTES))
            thread.start()
        finally:
            threading.stack_size(before)
