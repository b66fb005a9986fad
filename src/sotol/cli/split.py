"""`sotol split`: a GGUF file in parts."""

from pathlib import Path
from typing import Annotated

import typer

from sotol.catalog import find_model
from sotol.cli.options import NoColor, Quiet, complete_model
from sotol.cli.parameters import parse_size
from sotol.cli.working import Force, tell, working

__all__ = ["split"]


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
    """Write a GGUF file as several, which every program reads that reads llama.cpp's.

    The first part has the metadata. A weight is never cut. All parts take their places when all are whole.
    """
    if max_size is None and max_tensors is None:
        raise ValueError("give --max-size, --max-tensors, or both: how much a part may have")
    from sotol.tools.parts import split_file  # noqa: PLC0415  (NumPy: `sotol --help` does without)

    most = None if max_size is None else parse_size("max-size", max_size)
    with working(quiet=quiet, color=not no_color) as progress:
        parts = split_file(
            find_model(model), prefix, part_bytes=most, part_weights=max_tensors, force=force, progress=progress
        )
    tell(parts, f"{len(parts)} parts", quiet=quiet)
