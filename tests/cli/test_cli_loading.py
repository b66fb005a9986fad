"""The bar while a model loads."""

import io
import time
from contextlib import redirect_stderr

import pytest
from tests.cli.conftest import FakeTerminal

from sotol.cli import loading as module
from sotol.cli.loading import loading


@pytest.fixture(autouse=True)
def terminal_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")


def test_a_quick_start_shows_nothing() -> None:
    terminal = FakeTerminal()
    with redirect_stderr(terminal), loading() as progress:
        assert progress is not None
        progress("loading weights", 1, 2)
        progress("loading weights", 2, 2)
    assert terminal.getvalue() == ""


def test_a_slow_start_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = FakeTerminal()
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    with redirect_stderr(terminal), loading() as progress:
        assert progress is not None
        time.sleep(0.02)
        progress("loading weights", 1, 2)
        time.sleep(0.15)
    assert "loading weights" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[2K")  # the line is erased at the end


def test_compiling_shows_at_once() -> None:
    terminal = FakeTerminal()
    with redirect_stderr(terminal), loading() as progress:
        assert progress is not None
        progress("compiling kernels", 0, 15)
    assert "compiling kernels" in terminal.getvalue()


def test_no_bar_where_nobody_looks() -> None:
    terminal = FakeTerminal()
    with redirect_stderr(terminal), loading(quiet=True) as progress:
        assert progress is None
    with redirect_stderr(io.StringIO()), loading() as progress:
        assert progress is None
    assert terminal.getvalue() == ""
