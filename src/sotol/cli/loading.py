"""Loading a model for a command, with a bar in the terminal while that takes long."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any, Unpack

from sotol.cli.output import console

if TYPE_CHECKING:
    from sotol.llm import LLM
    from sotol.load_options import LoadSettings
    from sotol.loading import Loaded
    from sotol.progress import Progress

__all__ = ["load", "loaded_model", "loading"]

PATIENCE = 0.3  # seconds of loading before a bar appears


def load(model: str | None, *, quiet: bool = False, color: bool = True, **options: "Unpack[LoadSettings]") -> "LLM":
    """The model of a path or a name, None for the default. Options and errors as of `LLM`."""
    loaded = loaded_model(model, quiet=quiet, color=color, **options)
    try:
        from sotol.llm import LLM  # noqa: PLC0415  (imported while the backend's threads load weights)

        return LLM(loaded)
    except BaseException:
        loaded.close()
        raise


def loaded_model(
    model: str | None, *, quiet: bool = False, color: bool = True, **options: "Unpack[LoadSettings]"
) -> "Loaded":
    """The same without an engine: for steps of one's own."""
    from sotol.loading import LoadOptions, load  # noqa: PLC0415  (NumPy and more: `sotol --help` does without)

    with loading(quiet=quiet, color=color) as progress:
        return load(model, LoadOptions.of(options), progress)


@contextmanager
def loading(*, quiet: bool = False, color: bool = True) -> Iterator["Progress | None"]:
    """A progress callback for `LLM`: a bar on standard error, gone at the end; None where nobody would see one.

    A warm start is too quick for a bar. It appears when loading takes long, or when kernels must be compiled, which is
    the only work that is announced before any of it is done.
    """
    if quiet or not sys.stderr.isatty():
        yield None
        return
    bars: list[Any] = []  # the bars, once there are any: Rich takes a while to import
    tasks: dict[str, Any] = {}
    begin = perf_counter()

    def report(what: str, done: int, total: int) -> None:
        if done and not tasks and perf_counter() - begin < PATIENCE:
            return
        if not bars:
            bars.append(_bars(color=color))
        if what not in tasks:
            bars[0].start()
            tasks[what] = bars[0].add_task(what, total=total)
        bars[0].update(tasks[what], completed=done)

    try:
        yield report
    finally:
        for shown in bars:
            shown.stop()


def _bars(*, color: bool) -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=console(color=color, file=sys.stderr), transient=True)
