"""`sotol split`: a GGUF file in parts."""

from pathlib import Path
from typing import Annotated

import typer

from sotol.catalog import find_model
from sotol.cli.options import NoColor, Quiet, complete_model
from sotol.cli.parameters import parse_size
from sotol.cli.tool_options import Force, tell, work
from sotol.errors import plain

__all__ = ["split"]

LEAST = 10_000  # bytes of a part: less is a unit that was forgotten


def split(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A .gguf file.", show_default=False, autocompletion=complete_model),
    ],
    prefix: Annotated[
        Path,
        typer.Argument(
            metavar="PREFIX", help="What the parts are called before -00001-of-0000N.gguf.", show_default=False
        ),
    ],
    max_size: Annotated[
        str | None, typer.Option("--max-size", metavar="SIZE", help="Bytes of weights in a part at most, as 2GB.")
    ] = None,
    max_tensors: Annotated[
        int | None, typer.Option("--max-tensors", metavar="N", min=1, help="Weights in a part at most.")
    ] = None,
    force: Force = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
) -> None:
    """Write a GGUF file as several.

    All programs that read llama.cpp's read them. The first part has the metadata. A weight is never cut. All parts take
    their places when all are whole.
    """
    if max_size is None and max_tensors is None:
        raise ValueError("give --max-size, --max-tensors, or both: how much a part may have")
    from sotol.tools.parts import split_file  # noqa: PLC0415  (NumPy: `sotol --help` does without)

    most = None if max_size is None else parse_size("max-size", max_size)
    if most is not None and most < LEAST:
        raise ValueError(f"max-size is {plain(max_size)}, {most} bytes: a part has {LEAST:,} at least; give it as 2GB")
    with work(quiet=quiet, color=not no_color, sizes=True) as progress:
        parts = split_file(
            find_model(model), prefix, part_bytes=most, part_weights=max_tensors, force=force, progress=progress
        )
    tell(parts, f"{len(parts)} parts", quiet=quiet)
