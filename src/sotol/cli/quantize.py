"""`sotol quantize`: a model in fewer bits."""

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sotol.catalog import find_model
from sotol.cli.bars import bars
from sotol.cli.interrupts import terminable
from sotol.cli.options import Json, NoColor, Quiet, Threads
from sotol.cli.output import as_json, size_of, write_piece
from sotol.cli.streams import say
from sotol.cli.tool_options import Force, Output, SourceModel

if TYPE_CHECKING:
    from sotol.tools.quantize import Quantised

__all__ = ["quantize"]


def quantize(
    model: SourceModel,
    out: Output,
    name: Annotated[
        str | None, typer.Argument(metavar="[MIX]", help="The mix, in another place.", show_default=False)
    ] = None,
    mix: Annotated[
        str | None,
        typer.Option("--mix", "-m", metavar="NAME", help="A mix by name, such as Q4_K_M, IQ4_XS or Q8_0."),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option("--encoding", "-e", metavar="NAME", help="One encoding for all matrices, such as Q4_K."),
    ] = None,
    imatrix: Annotated[
        Path | None,
        typer.Option("--imatrix", "-i", metavar="FILE", help="An importance matrix, as of `sotol imatrix`."),
    ] = None,
    pattern: Annotated[
        list[str] | None,
        typer.Option(
            "--pattern", metavar="NAMES=ENCODING", help="Weights that get another encoding: 'blk.*.ffn_down=Q6_K'."
        ),
    ] = None,
    allow_requantize: Annotated[
        bool, typer.Option("--allow-requantize", help="Quantise what is quantised already: it costs quality.")
    ] = False,
    force: Force = False,
    threads: Threads = None,
    json: Json = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
) -> None:
    """Write a model in fewer bits.

    Each matrix gets the encoding that a mix has for it, or all get the same one. The new file is there when it is
    whole; no weight is ever whole in memory.
    """
    if [name, mix, encoding].count(None) != 2:
        raise ValueError("give --mix, such as --mix Q4_K_M, or --encoding, one of them")
    path = find_model(model)
    from sotol.formats import is_hub_model, read_model  # noqa: PLC0415  (NumPy: `sotol --help` does without)
    from sotol.models import check_is_model  # noqa: PLC0415
    from sotol.tools.importance import read_importance  # noqa: PLC0415
    from sotol.tools.mixes import encoding_name, mix_name  # noqa: PLC0415
    from sotol.tools.outputs import check_outputs  # noqa: PLC0415
    from sotol.tools.quantize import quantize as quantise  # noqa: PLC0415

    check_outputs([out], force=force)

    mix = None if encoding else mix_name(mix or str(name))
    encoding = encoding_name(encoding) if encoding else None
    patterns = [(names, encoding_name(wanted)) for names, wanted in map(_parse, pattern or ())]
    importance = None if imatrix is None else read_importance(imatrix)
    remarks: tuple[str, ...] = ()
    if is_hub_model(path):
        from sotol.tools.to_gguf import gguf_of  # noqa: PLC0415  (GGUF files do without)

        source, remarks = gguf_of(path)
    else:
        source = read_model(path)
        check_is_model(source)
    with terminable(), bars(quiet=quiet, color=not no_color) as progress:
        done = quantise(
            source, out, mix=mix, encoding=encoding, patterns=patterns, importance=importance,
            allow_requantize=allow_requantize, threads=threads, progress=progress,
        )  # fmt: skip
    for remark in () if quiet else remarks:
        say(f"sotol: {remark}")
    if json:
        write_piece(as_json(_facts(done)) + "\n", sys.stdout)
    elif not quiet:
        write_piece(_said(done) + "\n", sys.stdout)


def _parse(text: str) -> tuple[str, str]:
    name, sign, encoding = text.rpartition("=")
    if not sign or not name or not encoding:
        raise ValueError(f"--pattern {text!r:.80} is not like 'blk.*.ffn_down=Q6_K'")
    return name, encoding


def _facts(done: "Quantised") -> dict[str, object]:
    return {
        "file": str(done.path),
        "bytes_before": done.before,
        "bytes": done.after,
        "bits_per_weight": 8 * done.after / done.values,
        "encodings": dict(done.encodings),
        "without_importance": list(done.without),
    }


def _said(done: "Quantised") -> str:
    bits = 8 * done.after / done.values
    line = f"{done.path}: {size_of(done.before)} of weights became {size_of(done.after)}, {bits:.2f} bits each"
    line += "\nweights: " + ", ".join(f"{n} {name}" for name, n in Counter(done.encodings.values()).most_common())
    if done.without:
        line += f"\nno importance is known of {done.without[0]}, and of {len(done.without) - 1} more weights"
    return line
