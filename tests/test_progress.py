"""Progress as text: a line that is written again in a terminal, two lines elsewhere."""

import io

import pytest

from sotol.progress import printing


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_file_gets_a_line_at_the_beginning_and_at_the_end() -> None:
    out = io.StringIO()
    report = printing(out)
    for done in range(6):
        report("loading weights", done, 5)
    assert out.getvalue() == "sotol: loading weights, 0 of 5\nsotol: loading weights, 5 of 5\n"


def test_a_terminal_gets_one_line_for_each_kind_of_work() -> None:
    out = Terminal()
    report = printing(out)
    for what in ("compiling kernels", "loading weights"):
        for done in range(1, 4):
            report(what, done, 3)
    text = out.getvalue()
    assert text.count("\n") == 2
    assert text.split("\n")[0].split("\r")[-1] == "sotol: compiling kernels, 3 of 3"
    assert text.split("\n")[1].split("\r")[-1] == "sotol: loading weights, 3 of 3"


def test_no_standard_error_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    printing()("loading weights", 1, 2)
