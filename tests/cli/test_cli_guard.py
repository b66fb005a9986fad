"""Errors become sentences and exit codes."""

import errno
from collections.abc import Callable

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from sotol.cli.guard import FAILED, INTERRUPTED, USAGE, guarded, sentence
from sotol.errors import FormatError

HINT = "add --debug to see where, and please report it"


def invoke(command: Callable[..., None], *arguments: str) -> Result:
    app = typer.Typer()
    app.command()(guarded(command))
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (FormatError("x.gguf: is empty"), FAILED, "sotol: x.gguf: is empty\n"),
        (ValueError("top_k is -1"), USAGE, "sotol: top_k is -1\n"),
        (FileNotFoundError(errno.ENOENT, "No such file", "x.gguf"), FAILED, "sotol: x.gguf: no such file\n"),
        (KeyError("x"), FAILED, f"sotol: a bug in sotol, KeyError: 'x' ({HINT})\n"),
        (KeyboardInterrupt(), INTERRUPTED, ""),
    ],
)  # fmt: skip
def test_an_error_is_one_line_and_a_code(error: BaseException, code: int, text: str) -> None:
    def command() -> None:
        raise error

    result = invoke(command)
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", text)


def test_debug_lets_the_error_through() -> None:
    def command(number: int) -> None:
        raise FormatError(f"number {number}")

    result = invoke(command, "3", "--debug")
    assert isinstance(result.exception, FormatError)
    assert str(result.exception) == "number 3"


@given(st.text())
def test_a_sentence_is_one_line(text: str) -> None:
    assert len(sentence(ValueError(text)).splitlines()) <= 1
