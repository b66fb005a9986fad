"""`sotol imatrix`: which columns of a model's matrices count, by the activations of a text."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from sotol.cli.options import Json, Model, NoColor, Precision, PrecisionOption, Quiet, Threads
from sotol.cli.output import as_json, write_piece
from sotol.cli.reading import read_text
from sotol.cli.tool_options import Force, ModelOption, OutputOption, TextFile, WindowCount, WindowSize, one_model, work

__all__ = ["imatrix"]


def imatrix(
    model: Model = None,
    named: ModelOption = None,
    file: TextFile = None,
    add: Annotated[
        Path | None,
        typer.Option("--add", metavar="FILE", readable=False, help="A matrix of this model to add to: of other texts."),
    ] = None,
    output: OutputOption = Path("imatrix.gguf"),
    size: WindowSize = 512,
    most: WindowCount = None,
    threads: Threads = None,
    precision: PrecisionOption = Precision.INT8,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
) -> None:
    """Collect an importance matrix.

    For each matrix, the mean squares of what goes into it while the model reads a text: `sotol quantize --imatrix` and
    llama.cpp's tools take it.
    """
    if file is None:
        raise ValueError("give a text to read, with -f FILE")
    path, text = one_model(model, named), read_text(str(file))
    from sotol.tools.activations import collect  # noqa: PLC0415  (NumPy: `sotol --help` does without)
    from sotol.tools.importance import read_importance, write_importance  # noqa: PLC0415
    from sotol.tools.outputs import check_outputs  # noqa: PLC0415

    check_outputs([output], force=force, inputs=[path, file])
    earlier = None if add is None else read_importance(add)
    with work(quiet=quiet, color=not no_color) as progress:
        found = collect(
            path, text, dataset=file.name, size=size, most=most, earlier=earlier, precision=precision.value,
            threads=threads, progress=progress,
        )  # fmt: skip
        write_importance(output, found)
    facts = {"file": str(output), "weights": len(found.sums), "windows": found.chunks, "window_size": found.chunk_size}
    if json:
        write_piece(as_json(facts) + "\n", sys.stdout)
    elif not quiet:
        said = f"{output}: {len(found.sums)} weights, over {found.chunks} windows of {found.chunk_size} tokens"
        write_piece(said + "\n", sys.stdout)
