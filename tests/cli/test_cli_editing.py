"""How lines are typed: keys, completion and history, through prompt_toolkit's own pipe for input."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import platformdirs
import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from sotol.cli import conversations
from sotol.cli.conversations import Conversation
from sotol.cli.editing import Words, history_path, prompt_session

Ask = Callable[[str], str]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """State and data folders of the test's own."""
    for kind in ("state", "data"):
        monkeypatch.setattr(platformdirs, f"user_{kind}_dir", lambda name: str(tmp_path / name))
    return tmp_path / "sotol"


@pytest.fixture
def keys() -> Iterator[PipeInput]:
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        yield pipe


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def ask(keys: PipeInput, notes: list[str]) -> Ask:
    """What the prompt of a new session returns for these keys."""

    def ask(typed: str) -> str:
        keys.send_text(typed)
        return prompt_session(notes.append).prompt()

    return ask


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("one\r", "one"),
        ("one\x1b\rtwo\r", "one\ntwo"),
        ("one\\\rtwo\r", "one\ntwo"),
        ("\x1b[200~pasted\nlines\x1b[201~\r", "pasted\nlines"),
        ('"""one\rtwo\r"""\r', '"""one\ntwo\n"""'),
        ('"""one"""\r', '"""one"""'),
    ],
)
def test_editing(typed: str, text: str, ask: Ask) -> None:
    assert ask(typed) == text


# ---- history


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_history_and_reverse_search(ask: Ask, state: Path, notes: list[str]) -> None:
    for line in ("alpha one", "beta two", "gamma"):
        ask(line + "\r")
    assert history_path() == state / "history"
    assert (mode(state / "history"), mode(state)) == (0o600, 0o700)
    # each of these is a new session: the lines come from the file
    assert ask("\x1b[A\x1b[A\r") == "beta two"
    assert ask("\x12alph\r\r") == "alpha one"
    assert notes == []


@pytest.mark.parametrize("umask", [0o022, 0])
def test_an_old_history_becomes_private(umask: int, ask: Ask, state: Path) -> None:
    state.mkdir(mode=0o755)
    (state / "history").write_text("")
    (state / "history").chmod(0o644)
    before = os.umask(umask)
    try:
        ask("a secret\r")
    finally:
        os.umask(before)
    assert (mode(state / "history"), mode(state)) == (0o600, 0o700)
    assert "a secret" in (state / "history").read_text()


def folder_in_its_place(state: Path) -> None:
    (state / "history").mkdir(parents=True)


def fifo_in_its_place(state: Path) -> None:
    state.mkdir()
    os.mkfifo(state / "history")


def file_in_its_way(state: Path) -> None:
    state.write_text("")


@pytest.mark.parametrize("obstacle", [folder_in_its_place, fifo_in_its_place, file_in_its_way])
def test_a_history_that_cannot_be_kept_is_said_once(
    obstacle: Callable[[Path], None], ask: Ask, state: Path, notes: list[str]
) -> None:
    obstacle(state)
    assert ask("hello\r") == "hello"
    (note,) = notes
    assert note.startswith(f"what you type is not kept for the next time: {state / 'history'}: ")


def test_a_history_that_goes_while_lines_are_typed(keys: PipeInput, state: Path, notes: list[str]) -> None:
    session = prompt_session(notes.append)
    (state / "history").unlink()
    state.rmdir()
    for line in ("one", "two"):
        keys.send_text(line + "\r")
        assert session.prompt() == line
    (note,) = notes
    assert "no such file or directory" in note


def test_without_a_home(ask: Ask, notes: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(platformdirs, "user_state_dir", lambda name: f"~/{name}")
    assert ask("hello\r") == "hello"
    assert "no home folder is known" in notes[0]
    assert list(tmp_path.iterdir()) == []


# ---- completion


def completed(typed: str) -> set[str]:
    """The lines that Tab offers."""
    found = Words().get_completions(Document(typed), CompleteEvent(completion_requested=True))
    return {typed[: len(typed) + item.start_position] + item.text for item in found}


def test_completion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smart.gguf").touch()
    (tmp_path / "small.txt").touch()
    (tmp_path / "smooth").mkdir()
    conversations.save("talk", Conversation("m", None, []))
    assert completed("/re") == {"/retry", "/read"}
    assert completed("/model smol") == {"/model smollm2"}
    assert completed("/model sm") == {"/model smollm2", "/model smart.gguf", "/model smooth"}
    assert completed("/read small") == {"/read small.txt"}
    assert completed("/load t") == {"/load talk"}
    assert completed("/set no") == {"/set nowordwrap", "/set nothink"}
    assert completed("/set parameter top") == {"/set parameter top_k", "/set parameter top_p"}
    assert completed("re") == completed("/re\n/re") == set()
