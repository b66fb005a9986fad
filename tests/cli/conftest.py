"""Running `sotol` inside the test process, and a loaded model for those who need one."""

import io
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import platformdirs
import pytest
from tests.support.hub import cache, hub
from tests.support.tiny_model import tiny_model
from typer.testing import CliRunner, Result

from sotol.cli.app import make_app
from sotol.llm import LLM

__all__ = ["FakeTerminal", "Sotol", "cache", "compiled", "hub", "llm", "no_default_model", "sotol"]

Sotol = Callable[..., Result]


class FakeTerminal(io.StringIO):
    """A file that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def no_default_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the one who runs the tests: no favourite, no names for models, no pulled ones, no server."""
    for name in ("SOTOL_MODEL", "SOTOL_SERVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(platformdirs, "user_config_dir", lambda _: str(tmp_path / "config"))


@pytest.fixture(autouse=True)
def log_as_it_was() -> Iterator[None]:
    """Commands set up what the process logs: other tests look at that, too."""
    log = logging.getLogger("sotol")
    handlers, level = list(log.handlers), log.level
    yield
    log.handlers = handlers
    log.setLevel(level)


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The models' kernels, so that no command says that it compiles them."""
    for model in (tiny_model(tmp_path_factory.mktemp("models")), None):
        LLM(model, threads=1, ctx=64).close()


@pytest.fixture
def sotol() -> Sotol:
    """Invoke the command: sotol("run", "smollm2", stdin="text") -> exit_code, stdout, stderr."""

    def invoke(*arguments: str, stdin: str | bytes = "") -> Result:
        return CliRunner().invoke(make_app(), arguments, input=stdin, prog_name="sotol", env={"COLUMNS": "80"})

    return invoke


@pytest.fixture(scope="session")
def llm() -> Iterator[LLM]:
    with LLM(ctx=256) as model:
        yield model
