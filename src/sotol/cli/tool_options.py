"""What commands that write files, or read texts in windows, have in common on their command line."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from sotol.errors import plain

__all__ = [
    "Force", "Output", "OutputOption", "SourceModel", "TextFile", "WindowCount", "WindowSize", "free_place",
]  # fmt: skip

SourceModel: TypeAlias = Annotated[
    str, typer.Argument(metavar="MODEL", help="A .gguf file, a folder, or a model by name.", show_default=False)
]
Output: TypeAlias = Annotated[Path, typer.Argument(metavar="OUT", help="The file to write.", show_default=False)]
OutputOption: TypeAlias = Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write.")]
Force: TypeAlias = Annotated[bool, typer.Option("--force", help="Replace the file to write, if there is one.")]
TextFile: TypeAlias = Annotated[
    Path | None, typer.Option("--file", "-f", metavar="FILE", help="The text, UTF-8.", show_default=False)
]
WindowSize: TypeAlias = Annotated[
    int, typer.Option("--context-size", "-c", min=8, metavar="N", help="Tokens of a window of the text.")
]
WindowCount: TypeAlias = Annotated[
    int | None,
    typer.Option("--windows", "-w", min=1, metavar="N", help="Read so many windows; all of the text if not given."),
]


def free_place(path: Path, *, force: bool) -> None:
    """ValueError for a file that exists already, or a folder that does not: said before hours of work."""
    if path.is_dir():
        raise ValueError(f"{plain(path)} is a folder: give the name of a file in it")
    if path.exists() and not force:
        raise ValueError(f"{plain(path)} exists: add --force to replace it")
    if not path.parent.is_dir():
        raise ValueError(f"{plain(path.parent)} is no folder: make it first")
