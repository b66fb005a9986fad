"""Bars in the terminal while work takes long: on standard error, so that a result on standard output stays plain."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any

from sotol.cli.output import cell, console

if TYPE_CHECKING:
    from sotol.progress import Progress

__all__ = ["bars"]

PATIENCE = 0.3  # seconds of work before a bar appears


@contextmanager
def bars(
    *, quiet: bool = False, color: bool = True, sizes: bool = False, stay: bool = False
) -> Iterator["Progress | None"]:
    """A progress callback with a bar for each kind of work; None where nobody would see one.

    sizes: what is counted are bytes. stay: the bars are there from the start, and after the end, too.

    Otherwise each is gone when its work is done, and what is quick has none: a bar appears when the work takes long, or
    when it is announced before any of it is done, as the compilation of kernels is.
    """
    if quiet or not sys.stderr.isatty():
        yield None
        return
    shown: list[Any] = []  # the bars, once there are any: Rich takes a while to import
    tasks: dict[str, Any] = {}
    begin = perf_counter()

    def report(what: str, done: int, total: int) -> None:
        if done and not tasks and not stay and perf_counter() - begin < PATIENCE:
            return
        if not shown:
            shown.append(_bars(color=color, sizes=sizes, stay=stay))
            shown[0].start()
        if what not in tasks:
            tasks[what] = shown[0].add_task(cell(what), total=total)
        shown[0].update(tasks[what], completed=done, visible=stay or done < total)

    try:
        yield report
    finally:
        for drawn in shown:
            drawn.stop()


def _bars(*, color: bool, sizes: bool, stay: bool) -> Any:
    from rich import progress as rich  # noqa: PLC0415  (see above)

    counts = rich.DownloadColumn(), rich.TransferSpeedColumn(), rich.TimeRemainingColumn()
    columns = counts if sizes else (rich.MofNCompleteColumn(), rich.TimeElapsedColumn())
    return rich.Progress(
        rich.TextColumn("{task.description}", markup=False), rich.BarColumn(), *columns,
        console=console(color=color, file=sys.stderr), transient=not stay,
    )  # fmt: skip
