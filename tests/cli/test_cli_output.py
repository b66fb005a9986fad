"""What reaches terminals, pipes and JSON."""

import io
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from tests.cli.conftest import FakeTerminal

from sotol.cli.output import as_json, console, printable, show, write_piece


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
