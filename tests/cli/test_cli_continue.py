"""`sotol run -c` and `--cid`: a conversation goes on, from the database that the page has."""

import json
from io import StringIO
from pathlib import Path

import platformdirs
import pytest
from tests.cli.conftest import Sotol
from tests.support.scripted import scripted

from sotol import LLM, Sampling
from sotol.cli import run as command
from sotol.cli.conversations import latest, resumed
from sotol.cli.output import console
from sotol.cli.repl import Repl
from sotol.conversations import Conversations, NewMessage, default_path
from sotol.errors import ModelNotFoundError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platformdirs, "user_data_dir", lambda name: str(tmp_path / name))


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of a model that is loaded: one that answers with its prompt."""

    def load(_name: str | None, **_loading: object) -> LLM:
        return scripted(lambda prompt: prompt.replace("<|", "<").replace("|>", ">"))

    def find(name: str | None) -> Path:
        if name not in (None, "smollm2", "scripted.gguf"):
            raise ModelNotFoundError(f"no model {name!r}")
        return Path("scripted.gguf")

    monkeypatch.setattr(command, "load", load)
    monkeypatch.setattr(command, "find_model", find)


@pytest.mark.usefixtures("echo")
def test_a_conversation_goes_on(sotol: Sotol) -> None:
    assert sotol("run", "smollm2", "Zero").exit_code == 0
    assert not default_path().exists()  # nobody asked for it
    assert sotol("run", "-c", "smollm2", "One", "--system", "S").stdout == "<system>S<end><user>One<end><assistant>\n"
    second = sotol("run", "-c", "Two").stdout
    assert second.endswith("<assistant><system>S<end><user>One<end><assistant><end><user>Two<end><assistant>\n")
    kept = latest()
    assert [turn["content"] for turn in kept.turns][::2] == ["One", "Two"]
    assert kept.turns[3]["content"] == second.rstrip("\n")
    other = json.loads(sotol("run", "--cid", "One", "--json", "Three").stdout)
    assert other["text"].endswith("<user>Three<end><assistant>")
    assert len(resumed(str(kept.id)).turns) == 6
    assert sotol("run", "smollm2", "Four").stdout == "<user>Four<end><assistant>\n"
    assert len(resumed(str(kept.id)).turns) == 6


@pytest.mark.usefixtures("echo")
def test_the_pages_settings_hold_until_others_are_given(sotol: Sotol) -> None:
    db = Conversations(default_path())
    made = db.begin("", "Rivers", "smollm2", {"max_tokens": 3, "system": "S"})
    db.add("", made.id, None, [NewMessage("user", "Hi"), NewMessage("assistant", "Hello")])
    db.close()
    assert sotol("run", "-c", "More").stdout == "<sy\n"
    assert sotol("run", "--cid", made.id, "-n", "5", "More").stdout == "<syst\n"


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--cid", "x", "Hi"], 1, "sotol: no conversation 'x'; there are: none yet\n"),
        (["-c", "4096", "Hi"], 2, "sotol: -c goes on with the last conversation: --ctx 4096 sets the context\n"),
        (["-c", "--raw", "Hi"], 2, "sotol: --raw takes neither --system nor options of the template, nor --continue"),
    ],
)
def test_what_cannot_go_on(options: list[str], code: int, said: str, sotol: Sotol) -> None:
    result = sotol("run", *options)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith(said)


@pytest.mark.usefixtures("echo")
def test_a_model_that_is_not_here(sotol: Sotol) -> None:
    db = Conversations(default_path())
    db.add("", db.begin("", "", "gone.gguf").id, None, [NewMessage("user", "Hi"), NewMessage("assistant", "Hello")])
    db.close()
    result = sotol("run", "-c", "More")
    assert (result.exit_code, "gone.gguf" in result.stderr, "--model" in result.stderr) == (1, True, True)
    assert sotol("run", "-c", "-m", "smollm2", "More").exit_code == 0


def test_at_a_terminal() -> None:
    """Each answer is kept; what is taken back begins a branch, and /clear another conversation."""
    with scripted("Yes.") as llm:
        repl = Repl(llm, console(file=StringIO()), Sampling(), lambda *_, **__: llm, session=latest())
        for line in ("One", "Two", "/undo", "Three"):
            repl.take(line)
        first = latest()
        assert [turn["content"] for turn in first.turns] == ["One", "Yes.", "Three", "Yes."]
        repl.take("/clear")
        repl.take("Four")
        assert [turn["content"] for turn in latest().turns] == ["Four", "Yes."]
        repl.take("/load One")
        repl.take("Five")
        assert latest().id == first.id
        assert len(latest().turns) == 6
        db = Conversations(default_path())
        assert len(db.messages("", str(first.id))) == 8
        db.close()
