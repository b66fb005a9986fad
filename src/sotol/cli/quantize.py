"""`sotol quantize`: a model in fewer bits."""

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sotol.catalog import find_model
from sotol.cli.options import Json, NoColor, Quiet, Threads
from sotol.cli.output import as_json, size_of, write_piece
from sotol.cli.streams import say
from sotol.cli.tool_options import Force, Output, SourceModel, work
from sotol.errors import ModelError

if TYPE_CHECKING:
    from sotol.quant import Encoding
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
        typer.Option(
            "--imatrix", "-i", metavar="FILE", readable=False, help="An importance matrix, as of `sotol imatrix`."
        ),
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
    given = [f"{option}{word}" for option, word in (("", name), ("--mix ", mix), ("--encoding ", encoding)) if word]
    if len(given) != 1:
        seen = f"{' and '.join(given)} are given" if given else f"{out} is the file to write, and no mix is given"
        raise ValueError(f"{seen}: give --mix, such as --mix Q4_K_M, or --encoding, one of them")
    path = find_model(model)
    from sotol.formats import is_hub_model, read_model  # noqa: PLC0415  (NumPy: `sotol --help` does without)
    from sotol.models import check_is_model  # noqa: PLC0415
    from sotol.quant import ENCODINGS  # noqa: PLC0415
    from sotol.tools.importance import read_importance  # noqa: PLC0415
    from sotol.tools.mix_names import encoding_name, name_of_mix  # noqa: PLC0415
    from sotol.tools.mixes import MIXES, quantisable  # noqa: PLC0415
    from sotol.tools.outputs import check_outputs  # noqa: PLC0415
    from sotol.tools.quantize import quantize as quantise  # noqa: PLC0415

    mixes = list(MIXES)
    mix = None if encoding else name_of_mix(mix or str(name), mixes)
    encoding = encoding_name(encoding, mixes) if encoding else None
    patterns = [(names, encoding_name(wanted, mixes)) for names, wanted in map(_parse, pattern or ())]
    check_outputs([out], force=force, inputs=[path, imatrix])
    importance = None if imatrix is None else read_importance(imatrix)
    remarks: tuple[str, ...] = ()
    if is_hub_model(path):
        from sotol.tools.to_gguf import gguf_of  # noqa: PLC0415  (GGUF files do without)

        source, remarks = gguf_of(path)
    else:
        source = read_model(path)
        check_is_model(source)
        check_outputs([out], force=force, inputs=source.parts)
    if not source.weights:
        raise ModelError(f"{path}: has no weights: there is nothing to quantise")
    with work(quiet=quiet, color=not no_color) as progress:
        done = quantise(
            source, out, mix=mix, encoding=encoding, patterns=patterns, importance=importance,
            allow_requantize=allow_requantize, threads=threads, progress=progress,
        )  # fmt: skip
    for remark in () if quiet else remarks:
        say(f"sotol: {remark}")
    if json:
        write_piece(as_json(_facts(done)) + "\n", sys.stdout)
    elif not quiet:
        wanted = ENCODINGS[encoding or MIXES[str(mix)].base]
        short = sum(quantisable(w) and w.shape[-1] % wanted.values != 0 for w in source.weights.values())
        write_piece(_said(done, short, wanted) + "\n", sys.stdout)


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


def _said(done: "Quantised", short: int, wanted: "Encoding") -> str:
    """short: how many weights have rows that are no whole blocks of the encoding that was wanted."""
    bits = 8 * done.after / done.values
    line = f"{done.path}: {size_of(done.before)} of weights became {size_of(done.after)}, {bits:.2f} bits each"
    line += "\nweights: " + ", ".join(f"{n} {name}" for name, n in Counter(done.encodings.values()).most_common())
    if short:
        line += f"\nrows of {short} weights are no whole blocks of {wanted.name} ({wanted.values} numbers):"
        line += " these get an encoding of smaller blocks"
    if done.without:
        more = len(done.without) - 1
        line += f"\nno importance is known of {done.without[0]}" + (f", and of {more} more" if more else "")
    return line
