"""What commands that write files, or read texts in windows, have in common: options, and what they say at the end."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from sotol.catalog import find_model
from sotol.cli.bars import bars
from sotol.cli.interrupts import terminable
from sotol.cli.output import size_of, write_piece
from sotol.cli.streams import say
from sotol.errors import plain

if TYPE_CHECKING:
    from sotol.progress import Progress

__all__ = [
    "Force", "ModelOption", "Output", "OutputOption", "SourceModel", "TextFile", "WindowCount", "WindowSize",
    "one_model", "tell", "work",
]  # fmt: skip

SourceModel: TypeAlias = Annotated[
    str, typer.Argument(metavar="MODEL", help="A .gguf file, a folder, or a model by name.", show_default=False)
]
# llama.cpp's tools have it as an option.
ModelOption: TypeAlias = Annotated[
    str | None, typer.Option("--model", "-m", metavar="MODEL", help="The model, in another place.")
]
Output: TypeAlias = Annotated[
    Path, typer.Argument(metavar="OUT", readable=False, help="The file to write.", show_default=False)
]
OutputOption: TypeAlias = Annotated[
    Path, typer.Option("--output", "-o", metavar="FILE", readable=False, help="The file to write.")
]
Force: TypeAlias = Annotated[
    bool, typer.Option("--force", help="Replace what is there already, when the new is whole.")
]
TextFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--file", "-f", metavar="FILE", readable=False, help="The text, UTF-8; - is standard input.", show_default=False
    ),
]
WindowSize: TypeAlias = Annotated[
    int, typer.Option("--ctx", "-c", min=8, metavar="N", help="Tokens of a window of the text.")
]
WindowCount: TypeAlias = Annotated[
    int | None,
    typer.Option("--windows", "-w", min=1, metavar="N", help="Read so many windows; all of the text if not given."),
]


def one_model(model: str | None, option: str | None) -> Path:
    """The path of the model that a command was given, as an argument or as an option."""
    if model is not None and option is not None:
        raise ValueError(f"two models are given, {plain(model)} and {plain(option)}: give one of them")
    return find_model(model if option is None else option)


@contextmanager
def work(*, quiet: bool, color: bool, sizes: bool = False) -> Iterator["Progress | None"]:
    """Bars for what takes long and may write a file; Ctrl-C or SIGTERM leaves none behind, and that is said."""
    try:
        with terminable(), bars(quiet=quiet, color=color, sizes=sizes) as progress:
            yield progress
    except KeyboardInterrupt:
        if not quiet:
            say("sotol: interrupted: no file was written")
        raise


def tell(paths: Sequence[Path], what: str, remarks: Sequence[str] = (), *, quiet: bool = False) -> None:
    """Say what was written, on standard output, and what the new file can't say, on standard error."""
    if quiet:
        return
    for remark in remarks:
        say(f"sotol: {remark}")
    names = str(paths[0]) if len(paths) == 1 else f"{paths[0]} to {paths[-1].name}"
    files = [item for path in paths for item in (path.iterdir() if path.is_dir() else [path])]
    write_piece(f"{names}: {what}, {size_of(sum(item.stat().st_size for item in files))}\n", sys.stdout)
