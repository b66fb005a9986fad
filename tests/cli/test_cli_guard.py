"""Errors become sentences and exit codes."""

import errno
import unicodedata
from collections.abc import Callable

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from sotol.cli.guard import FAILED, INTERRUPTED, NO_READER, USAGE, guarded, sentence
from sotol.errors import FormatError, ModelNotFoundError, SotolError

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
        (OSError(errno.ENOSPC, "No space left on device"), FAILED, "sotol: no space left on device\n"),
        (ModelNotFoundError("no model 'x'"), FAILED, "sotol: no model 'x'\n"),
        (MemoryError(), FAILED, "sotol: there is not enough memory for this\n"),
        (SotolError("a\x1b]0;b\x07\nc" + "x" * 2000), FAILED, "sotol: a ]0;b c" + "x" * 991 + "…\n"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), NO_READER, ""),
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


@given(st.text(st.characters() | st.characters(categories=["Cc", "Cf", "Zl", "Zp"])))
def test_a_sentence_is_one_line_that_no_terminal_obeys(text: str) -> None:
    for error in (ValueError(text), SotolError(text), KeyError(text), OSError(errno.EIO, text, text)):
        said = sentence(error)
        assert len(said.splitlines()) <= 1
        assert not any(unicodedata.category(c) == "Cc" for c in said)
