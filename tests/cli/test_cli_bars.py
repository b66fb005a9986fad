"""Bars while work takes long."""

import io
import time
from contextlib import redirect_stderr

import pytest
from tests.cli.conftest import FakeTerminal

from sotol.cli import bars as module
from sotol.cli.bars import bars


@pytest.fixture(autouse=True)
def terminal_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")


def test_a_quick_start_shows_nothing() -> None:
    terminal = FakeTerminal()
    with redirect_stderr(terminal), bars() as progress:
        assert progress is not None
        progress("loading weights", 1, 2)
        progress("loading weights", 2, 2)
    assert terminal.getvalue() == ""


def test_a_slow_start_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = FakeTerminal()
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    with redirect_stderr(terminal), bars() as progress:
        assert progress is not None
        time.sleep(0.02)
        progress("loading weights", 1, 2)
        time.sleep(0.15)
    assert "loading weights" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[2K")  # the line is erased at the end


def test_compiling_shows_at_once() -> None:
    terminal = FakeTerminal()
    with redirect_stderr(terminal), bars() as progress:
        assert progress is not None
        progress("compiling kernels", 0, 15)
    assert "compiling kernels" in terminal.getvalue()


def test_no_bar_where_nobody_looks() -> None:
    terminal = FakeTerminal()
    with redirect_stderr(terminal), bars(quiet=True) as progress:
        assert progress is None
    with redirect_stderr(io.StringIO()), bars() as progress:
        assert progress is None
    assert terminal.getvalue() == ""


def test_sizes_are_told_in_bytes() -> None:
    terminal = FakeTerminal()
    with redirect_stderr(terminal), bars(sizes=True) as progress:
        assert progress is not None
        progress("writing [/bold]", 0, 1_000_000)
        progress("writing [/bold]", 1_000_000, 1_000_000)
    assert "writing [/bold]" in terminal.getvalue()
    assert "0.0/1.0 MB" in terminal.getvalue()
    assert "writing" not in terminal.getvalue().rpartition("\x1b[2K")[2]  # the line is erased


def test_bars_that_stay() -> None:
    terminal = FakeTerminal()
    with redirect_stderr(terminal), bars(sizes=True, stay=True) as progress:
        assert progress is not None
        progress("a.gguf", 300, 300)
    assert "300/300 bytes" in terminal.getvalue()
    assert not terminal.getvalue().endswith("\x1b[2K")


def test_what_is_done_is_not_shown_any_more() -> None:
    terminal = FakeTerminal()
    with redirect_stderr(terminal), bars() as progress:
        assert progress is not None
        progress("loading weights", 0, 2)
        progress("loading weights", 2, 2)
        terminal.truncate(0)
        progress("reading windows", 0, 3)
    assert "reading windows" in terminal.getvalue()
    assert "loading weights" not in terminal.getvalue()
