"""What the tools' commands have in common: options, a bar in the terminal while bytes are written, and its end."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from sotol.cli.output import console, size_of, write_piece

if TYPE_CHECKING:
    from sotol.progress import Progress

__all__ = ["Force", "tell", "working"]

Force: TypeAlias = Annotated[
    bool, typer.Option("--force", help="Replace what is there already, when the new is whole.")
]


@contextmanager
def working(*, quiet: bool = False, color: bool = True) -> "Iterator[Progress | None]":
    """A progress callback that counts bytes: a bar on standard error, gone at the end; None where nobody sees one."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    bars = _bars(color=color)
    tasks: dict[str, Any] = {}

    def report(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bars.add_task(what, total=total)
        bars.update(tasks[what], completed=done)

    with bars:
        yield report


def _bars(*, color: bool) -> Any:
    from rich.progress import (  # noqa: PLC0415  (Rich takes a while to import)
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console(color=color, file=sys.stderr), transient=True)


def tell(paths: Sequence[Path], what: str, remarks: Sequence[str] = (), *, quiet: bool = False) -> None:
    """Say what was written, on standard output, and what the new file can't say, on standard error."""
    if quiet:
        return
    for remark in remarks:
        typer.echo(f"sotol: {remark}", err=True)
    names = str(paths[0]) if len(paths) == 1 else f"{paths[0]} to {paths[-1].name}"
    files = [item for path in paths for item in (path.iterdir() if path.is_dir() else [path])]
    write_piece(f"{names}: {what}, {size_of(sum(item.stat().st_size for item in files))}\n", sys.stdout)
