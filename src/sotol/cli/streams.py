"""The standard streams as callers leave them: closed, full, without a reader, in another encoding.

Text is UTF-8 in every locale: what is read from standard input, and what is written to a pipe or a file. Knows nothing
of commands.
"""

import io
import os
import sys
from contextlib import suppress
from typing import IO

from sotol.errors import SotolError, plain

__all__ = ["LONGEST", "drop", "listen", "put_in_order", "refused", "say"]

LONGEST = 1000  # characters of a sentence or a line of the log


def put_in_order() -> None:
    """Make the streams of this process fit to use; call it once, before anything is written or opened.

    Where the caller closed 0, 1 or 2, the null device takes the place: else the next file to be opened (a model, a
    kernel) would become a standard stream. `sys.stderr` is then writable, `sys.stdin` and `sys.stdout` stay None.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_WRONLY if number else os.O_RDONLY), True)  # the lowest free
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115  (it is open until the end)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal knows its encoding, and what it lacks is shown as "?". PYTHONIOENCODING is a caller's wish.
            foreign = not stream.isatty() and not os.environ.get("PYTHONIOENCODING")
            stream.reconfigure(encoding="utf-8" if foreign else None, errors="replace")


def say(text: str) -> None:
    """Write a line to standard error. Where that can't be written nobody is left to tell, and the work goes on."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:
        drop(sys.stderr)


def listen(*, quiet: bool) -> None:
    """Write what sotol logs to standard error, a line each: warnings, and where no bar is seen, what takes long."""
    import logging  # noqa: PLC0415  (`sotol --help` does without)

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(f"sotol: {plain(record.getMessage(), LONGEST)}")

    log = logging.getLogger("sotol")
    log.handlers = [Lines()]
    log.setLevel(logging.CRITICAL if quiet else logging.WARNING if sys.stderr.isatty() else logging.INFO)


def refused(error: OSError) -> OSError | SotolError:
    """What to raise where the output could not be written: BrokenPipeError as it is, all else as a sentence."""
    if isinstance(error, BrokenPipeError):
        return error
    return SotolError(f"the output can't be written: {str(error.strerror).lower()}")


def drop(stream: IO[str] | None) -> None:
    """Send what a stream still holds, and what is written to it from now on, to the null device.

    Python flushes the standard streams once more when it ends, and would complain there.
    """
    with suppress(OSError, ValueError, AttributeError):  # it is closed, or no real file, or None
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # type: ignore[union-attr]
