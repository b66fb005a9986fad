"""What commands read: the options that they share, and standard input."""

import sys
from enum import StrEnum
from typing import Annotated, TypeAlias

import typer

from sotol.catalog import PACKAGED

__all__ = ["Context", "Json", "Model", "NoColor", "Precision", "PrecisionOption", "PromptTokens", "Quiet", "Repeats",
           "Threads", "parse_bias", "standard_input"]  # fmt: skip


class Precision(StrEnum):
    """`LLM`'s precision."""

    INT8 = "int8"
    F32 = "f32"


Model: TypeAlias = Annotated[str, typer.Argument(help=f"A .gguf file, or a name: {', '.join(PACKAGED)}.")]
Threads: TypeAlias = Annotated[
    int | None, typer.Option("--threads", min=1, metavar="N", help="CPU threads; the physical cores if not given.")
]
Context: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--ctx",
        min=1,
        metavar="N",
        help="Tokens of prompt and answer together; the model's own up to 4096 if not given.",
    ),
]
PrecisionOption: TypeAlias = Annotated[
    Precision, typer.Option("--precision", help="int8 quantises activations before quantised weights, f32 does not.")
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Write one JSON object.")]
Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", "-q", help="Write nothing but the result.")]
NoColor: TypeAlias = Annotated[
    bool, typer.Option("--no-color", help="No colours or other styles; NO_COLOR=1 does the same.")
]
PromptTokens: TypeAlias = Annotated[
    int, typer.Option("--prompt", "-p", min=1, metavar="N", help="Tokens of the prompt.")
]
Repeats: TypeAlias = Annotated[int, typer.Option("--repeats", "-r", min=1, metavar="N", help="How often to measure.")]


def parse_bias(given: list[str]) -> dict[int, float]:
    """`ID=X` options as `Sampling.logit_bias`; ValueError for anything else."""
    biases = {}
    for item in given:
        token, _, number = item.partition("=")
        try:
            biases[int(token)] = float(number)
        except ValueError:
            raise ValueError(f"--logit-bias is {item!r}; it must be ID=X, for instance 42=-1.5") from None
    return biases


def standard_input() -> str:
    """The text on standard input, to its end; ValueError if it is not text."""
    if sys.stdin is None:  # closed by the caller
        raise ValueError("there is no standard input: give the text as an argument")
    try:
        return str(sys.stdin.read())
    except UnicodeDecodeError as error:
        raise ValueError(f"standard input is not {error.encoding} text: {error.reason} at {error.start}") from None
