"""Ctrl-C: a quiet end with exit code 130, at any moment, and at once when it is pressed again.

SIGTERM is the same while files are written, with 143; elsewhere it ends the process where it stands.

Python's own handler raises KeyboardInterrupt between any two instructions. Within an import that may leave a lock taken
that every later import of any thread waits for: there, the process ends where it stands. Nothing is lost by that: while
modules are imported, nothing is half done.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

__all__ = ["INTERRUPTED", "TERMINATED", "Terminated", "at_once", "every_one_raises", "first_raises", "terminable"]

INTERRUPTED, TERMINATED = 130, 143  # 128 + SIGINT and SIGTERM, as shells say it
IMPORTING = "<frozen importlib"  # where Python's import system is from


def at_once() -> None:
    """From now on Ctrl-C ends the process where it stands: for moments when there is nothing to put in order."""
    _handle_by(_leave)


def first_raises() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt, and the one after that ends the process where it stands."""
    _handle_by(_raise_once)
    sys.unraisablehook = _quiet


def every_one_raises() -> None:
    """From now on each Ctrl-C raises KeyboardInterrupt: for a conversation, whose answers it stops."""
    _handle_by(_raise)


class Terminated(KeyboardInterrupt):
    """SIGTERM, where it ends work as Ctrl-C does."""


@contextmanager
def terminable() -> Iterator[None]:
    """Within it SIGTERM lets what is half done be put in order: batch systems and `timeout` send it.

    A second one ends the process where it stands, as the first does elsewhere.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate_once)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate_once(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    _raise(number, frame)


def _handle_by(handler: Any) -> None:
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # a job in the background of a script ignores it
        signal.signal(signal.SIGINT, handler)


def _leave(number: int = signal.SIGINT, _frame: FrameType | None = None) -> None:
    with suppress(OSError):
        if os.isatty(2):
            os.write(2, b"\x1b[?25h")  # a progress bar hides the cursor
    os._exit(TERMINATED if number == signal.SIGTERM else INTERRUPTED)


def _raise_once(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, _leave)
    _raise(number, frame)


def _raise(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename.startswith(IMPORTING):
            _leave(number)
        frame = frame.f_back
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _quiet(error: Any) -> None:
    """An interrupt that fell into a destructor would be printed and forgotten: it ends the process instead."""
    if issubclass(error.exc_type, KeyboardInterrupt):
        _leave()
    sys.__unraisablehook__(error)
