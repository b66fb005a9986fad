"""`sotol convert`: a folder with SafeTensors files to a GGUF file, or back."""

from pathlib import Path
from typing import Annotated

import typer

from sotol.catalog import find_model
from sotol.cli.options import NoColor, Quiet, Threads, complete_model
from sotol.cli.tool_options import Force, tell, work

__all__ = ["convert"]


def convert(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A folder with config.json and .safetensors files, or a .gguf file.",
            show_default=False,
            autocompletion=complete_model,
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", readable=False, help="The .gguf file to write, or the folder.", show_default=False
        ),
    ],
    encoding: Annotated[
        str | None,
        typer.Option(
            "--encoding",
            metavar="NAME",
            help="Of matrices: F32, F16, BF16; in a .gguf file also Q8_0. The model's own, or F16, if not given.",
        ),
    ] = None,
    force: Force = False,
    threads: Threads = None,
    quiet: Quiet = False,
    no_color: NoColor = False,
) -> None:
    """Write a model in the other format.

    A folder of Hugging Face's kind becomes a GGUF file, with names, metadata and tokenizer as llama.cpp's converter
    writes them; a GGUF file becomes such a folder, its numbers in a float type. Which it is, the model decides. Weights
    are read and written one by one. The result takes its place when it is whole.
    """
    from sotol.tools.converting import convert as converted  # noqa: PLC0415  (NumPy: `sotol --help` does without)

    with work(quiet=quiet, color=not no_color, sizes=True) as progress:
        done = converted(find_model(model), out, encoding, force=force, threads=threads, progress=progress)
    tell([done.path], f"{done.weights} weights, {done.encoding}", done.remarks, quiet=quiet)
