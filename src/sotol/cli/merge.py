"""`sotol merge`: the parts of a GGUF file as one."""

from typing import Annotated

import typer

from sotol.catalog import find_model
from sotol.cli.options import NoColor, Quiet, complete_model
from sotol.cli.tool_options import Force, Output, tell, work

__all__ = ["merge"]


def merge(
    part: Annotated[
        str,
        typer.Argument(
            metavar="PART",
            help="One of the parts, as m-00001-of-00003.gguf; the others lie beside it.",
            show_default=False,
            autocompletion=complete_model,
        ),
    ],
    out: Output,
    force: Force = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
) -> None:
    """Write the parts of a split GGUF file as one file. The parts stay."""
    from sotol.tools.parts import merge_parts  # noqa: PLC0415  (NumPy: `sotol --help` does without)

    with work(quiet=quiet, color=not no_color, sizes=True) as progress:
        path = merge_parts(find_model(part), out, force=force, progress=progress)
    tell([path], "merged", quiet=quiet)
