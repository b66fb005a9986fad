"""The `sotol` command: one file per command, and the table of them in `app.py`."""

import atexit
import gc
import os
from collections.abc import Callable

from sotol.cli.interrupts import at_once
from sotol.cli.streams import put_in_order

__all__ = ["main"]

STACK_WORDS = 64 * 1024 // 8 + 1  # more than 64 KB, so that the chunk has 128


def main() -> None:
    """The console script."""
    at_once()
    put_in_order()
    # Starting makes a great many objects that stay: looking through them for garbage again and again takes a tenth
    # of the time that imports and loading take.
    gc.set_threshold(100_000, 20, 20)
    # Python looks through all of them again when it ends, unless they are set apart: an eighth of a short run.
    atexit.register(gc.freeze)
    # NumPy's BLAS would start threads, each with memory of its own, and nothing here multiplies matrices with it.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from sotol.cli.app import main as run_command  # noqa: PLC0415  (after the above)

    _with_room(run_command)


def _with_room(call: Callable[[], None]) -> None:
    """Call it with 64 KB of Python's stack in one piece.

    CPython has its stack in chunks of 16 KB, and asks the system for the next one, and gives it back, whenever calls
    cross a chunk's end. Below a command line's many calls, loading crossed one 1,500 times: a tenth of a short run. A
    call that itself needs more than a chunk gets a larger one, and what it calls uses the rest of it.
    """

    def calling() -> None:
        call()

    calling.__code__ = calling.__code__.replace(co_stacksize=STACK_WORDS)
    calling()
