"""What loading does, as lines on standard error: for `LLM(progress=True)`. The command line has bars of its own."""

import sys
from collections.abc import Callable
from time import monotonic
from typing import IO, TypeAlias

__all__ = ["Progress", "printing"]

Progress: TypeAlias = Callable[[str, int, int], None]  # what is being done, how much is done, how much there is

PAUSE = 0.1  # seconds between two looks of a line in a terminal


def printing(file: IO[str] | None = None) -> Progress:
    """A progress callback that writes to a file, standard error if None.

    A terminal gets a line for each kind of work, written again as it goes on; anything else a line when work begins and
    one when it is done.
    """
    out = file or sys.stderr
    begun = set[str]()
    last = 0.0

    def report(what: str, done: int, total: int) -> None:
        nonlocal last
        if out is None:  # the process has no standard error
            return
        ended, now = done >= total, monotonic()
        if out.isatty():
            if ended or now - last > PAUSE:
                out.write(f"\rsotol: {what}, {done} of {total}" + ("\n" if ended else ""))
                last = now
        elif ended or what not in begun:
            out.write(f"sotol: {what}, {done} of {total}\n")
        begun.add(what)
        out.flush()

    return report
