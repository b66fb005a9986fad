"""What reaches terminals, pipes and JSON."""

import errno
import io
import json
import math
import os
from collections.abc import Callable
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from tests.cli.conftest import FakeTerminal

from sotol.answers.pieces import CallArguments, CallBegun, Content, Piece, Reasoning
from sotol.cli import output as module
from sotol.cli.output import (
    AnswerWriter,
    answer_writer,
    as_json,
    cell,
    console,
    printable,
    show,
    size_of,
    write_piece,
)
from sotol.errors import SotolError


@given(st.text())
def test_a_terminal_gets_no_control_characters(text: str) -> None:
    out = FakeTerminal()
    write_piece(text, out)
    written = out.getvalue()
    assert all(c in "\n\t" or not (ord(c) < 32 or 127 <= ord(c) < 160) for c in written)
    assert written == "".join(c for c in text if c in written)
    assert printable(written) == written


@given(st.text())
def test_a_pipe_gets_all_characters(text: str) -> None:
    out = io.StringIO(newline="")
    write_piece(text, out)
    assert out.getvalue() == text


HIDDEN = [*map(chr, range(32)), "\x7f", "\x9b", "\u202e", "\u2066", "\u200f", "\u2028", "\ud800", "\U000e0041"]


@given(st.text(st.characters() | st.sampled_from(HIDDEN)))
def test_json_does_nothing_to_a_terminal(text: str) -> None:
    written = as_json({"a": [text], text: "b"})
    assert json.loads(written) == {"a": [text], text: "b"}
    assert not any(c in written for c in HIDDEN if c != "\n")
    assert not any("\x80" <= c < "\xa0" for c in written)


@given(st.text(st.characters() | st.sampled_from(HIDDEN)))
def test_a_cell_is_one_line_of_what_can_be_seen(text: str) -> None:
    assert not any(c in cell(text) for c in HIDDEN)
    assert cell("a\nb") == "a\\nb"


THOUGHT: list[Piece] = [
    Reasoning("Hm"),
    Reasoning("."),
    Content("Yes"),
    CallBegun(0, "1", "f"),
    CallArguments(0, "{}"),
    Content("!"),
]


def written(file: IO[str], pieces: list[Piece], **options: bool) -> str:
    writer = AnswerWriter(file, **options)
    for piece in pieces:
        writer.take([piece])
    writer.end()
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_thoughts_in_pipes_and_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    plain = "<think>\nHm.\n</think>\n\nYes!\n"
    assert written(io.StringIO(), THOUGHT) == plain
    assert written(FakeTerminal(), THOUGHT) == "\x1b[2mHm.\x1b[0m\n\nYes!\n"
    assert written(FakeTerminal(), THOUGHT, color=False) == plain
    for file in (io.StringIO(), FakeTerminal()):
        assert written(file, THOUGHT, thinking=False) == "Yes!\n"
    assert written(FakeTerminal(), THOUGHT[:1]) == "\x1b[2mHm\x1b[0m\n"
    assert written(io.StringIO(), THOUGHT[:1]) == "<think>\nHm\n</think>\n"
    assert written(FakeTerminal(), [Reasoning("a\x1b[31mb")]) == "\x1b[2ma[31mb\x1b[0m\n"
    monkeypatch.setenv("NO_COLOR", "1")
    assert written(FakeTerminal(), THOUGHT) == plain


class Refusing(io.StringIO):
    """A file that takes nothing."""

    def __init__(self, number: int, *, terminal: bool) -> None:
        super().__init__()
        self._number, self._terminal = number, terminal

    def isatty(self) -> bool:
        return self._terminal

    def flush(self) -> None:
        raise OSError(self._number, os.strerror(self._number))


@pytest.mark.parametrize("terminal", [False, True])
def test_what_is_not_taken(terminal: bool) -> None:
    writers: tuple[Callable[[IO[str]], None], ...] = (
        lambda file: write_piece("text", file),
        lambda file: answer_writer(file)("text"),
        lambda file: show(console(file=file), "text"),
    )
    for write in writers:
        with pytest.raises(SotolError, match=r"^the output can't be written: no space left on device$"):
            write(Refusing(errno.ENOSPC, terminal=terminal))
        with pytest.raises(BrokenPipeError):
            write(Refusing(errno.EPIPE, terminal=terminal))


def test_only_terminals_get_their_lines_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_columns", lambda _file: 10)
    for term, file, wrap, written in (
        ("xterm", FakeTerminal(), True, "long word\x1b[4D\x1b[K\nwords"),
        ("xterm", FakeTerminal(), False, "long words"),
        ("xterm", io.StringIO(), True, "long words"),
        ("dumb", FakeTerminal(), True, "long words"),
    ):
        monkeypatch.setenv("TERM", term)
        answer_writer(file, wrap=wrap)("long words")
        assert file.getvalue() == written


def test_json_has_no_infinities() -> None:
    value = {"a": [1, -math.inf, (math.nan, "ü")], "b": None, "c": True}
    assert json.loads(as_json(value)) == {"a": [1, None, [None, "ü"]], "b": None, "c": True}


@pytest.mark.parametrize(
    ("file", "color", "styled"), [(FakeTerminal, True, True), (FakeTerminal, False, False), (io.StringIO, True, False)]
)
def test_styles_are_for_terminals(
    file: type[io.StringIO], color: bool, styled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = file()
    console(color=color, file=out).print("text", style="bold red")
    assert ("\x1b[" in out.getvalue()) == styled


def test_no_color_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    out = FakeTerminal()
    console(file=out).print("text", style="bold red")
    assert out.getvalue() == "text\n"


def test_a_table_has_no_spaces_at_the_ends_of_lines() -> None:
    out = io.StringIO()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("a", "b")
    table.add_row("a long cell", "a longer one")
    show(console(file=out), table)
    assert " ".join(out.getvalue().split()) == "a b a long cell a longer one"
    assert all(line == line.rstrip() for line in out.getvalue().splitlines())


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (98_356_000, "98.36 MB"), (5 * 10**12, "5000 GB")]
)
def test_sizes(count: int, said: str) -> None:
    assert size_of(count) == said
