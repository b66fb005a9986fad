"""`sotol tokenize`: text to ids and pieces, or ids to text."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from sotol.catalog import find_model
from sotol.cli.options import Json, Model
from sotol.cli.output import as_json, write_piece
from sotol.cli.reading import read_input

if TYPE_CHECKING:
    from sotol.tokenizers import Tokenizer

__all__ = ["tokenize"]


def tokenize(
    model: Model = None,
    text: Annotated[
        str | None,
        typer.Argument(help="What to tokenize; standard input if not given.", show_default=False),
    ] = None,
    special: Annotated[bool, typer.Option("--special", help="Parse, and show, control tokens in the text.")] = False,
    ids: Annotated[bool, typer.Option("--ids", help="Write only the ids, on one line.")] = False,
    decode: Annotated[
        bool, typer.Option("--decode", help="The other way: ids, separated by spaces or commas, to text.")
    ] = False,
    json: Json = False,
) -> None:
    """Show the tokens of a text.

    A line for each, with its id and its piece of the text.
    """
    if ids and (json or decode):
        raise ValueError("--ids goes neither with --json nor with --decode: choose one")
    path = find_model(model)
    given = read_input() if text in (None, "-") else text
    from sotol.tokenizers import Tokenizer  # noqa: PLC0415  (NumPy: `sotol --help` does without)

    tokenizer = Tokenizer.from_path(path)
    tokens = _parse(given) if decode else tokenizer.encode(given, special=special)
    decoded = tokenizer.decode(tokens, special=special) if decode else given
    pieces = [_piece(tokenizer, token) for token in tokens]
    if json:
        listed = [{"id": token, "piece": piece} for token, piece in zip(tokens, pieces, strict=True)]
        result = as_json({"text": decoded, "count": len(tokens), "tokens": listed})
    elif decode:
        result = decoded
    elif ids:
        result = " ".join(map(str, tokens))
    else:
        width = max((len(str(token)) for token in tokens), default=0)
        result = "\n".join(f"{token:>{width}} {piece!r}" for token, piece in zip(tokens, pieces, strict=True))
    write_piece(result + "\n", sys.stdout)


def _piece(tokenizer: "Tokenizer", token: int) -> str:
    """A token's text; bytes that are only part of a character appear as U+FFFD."""
    return tokenizer.decode([token], special=True, continued=True)


def _parse(given: str) -> list[int]:
    """Ids as a person or `--ids` writes them; ValueError for anything else."""
    try:
        return [int(word) for word in given.replace(",", " ").strip(" []\n").split()]
    except ValueError as error:
        raise ValueError(f"--decode needs ids separated by spaces or commas: {error}") from None
