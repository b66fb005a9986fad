"""Running `sotol` inside the test process, and a loaded model for those who need one."""

import io
from collections.abc import Callable, Iterator

import pytest
from typer.testing import CliRunner, Result

from sotol.cli.app import app
from sotol.llm import LLM

Sotol = Callable[..., Result]


class FakeTerminal(io.StringIO):
    """A file that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def no_default_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the one who runs the tests likes best."""
    monkeypatch.delenv("SOTOL_MODEL", raising=False)


@pytest.fixture
def sotol() -> Sotol:
    """Invoke the command: sotol("run", "smollm2", stdin="text") -> exit_code, stdout, stderr."""

    def invoke(*arguments: str, stdin: str | bytes = "") -> Result:
        return CliRunner().invoke(app, arguments, input=stdin, prog_name="sotol", env={"COLUMNS": "80"})

    return invoke


@pytest.fixture(scope="session")
def llm() -> Iterator[LLM]:
    with LLM(ctx=256) as model:
        yield model
