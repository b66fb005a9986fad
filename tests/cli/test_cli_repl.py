"""The conversation: commands, the model's side of it, and keys, through prompt_toolkit's own pipe for input."""

import stat
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import platformdirs
import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from sotol import LLM, Sampling, SotolError
from sotol.cli import repl as module
from sotol.cli.output import console
from sotol.cli.repl import COMMANDS, Repl, history_path, prompt_session

GREEDY = Sampling(temperature=0, max_tokens=8)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of the test's own."""
    monkeypatch.setattr(platformdirs, "user_state_dir", lambda name: str(tmp_path / name))
    return tmp_path / "sotol"


@pytest.fixture
def keys() -> Iterator[PipeInput]:
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        yield pipe


def refuse(name: str) -> LLM:
    raise SotolError(f"no model {name!r}")


@pytest.fixture
def repl(llm: LLM) -> Repl:
    return Repl(llm, console(file=StringIO()), GREEDY, refuse)


def output(repl: Repl) -> str:
    """What was written since the last time."""
    file = repl.console.file
    assert isinstance(file, StringIO)
    text = file.getvalue()
    file.seek(0)
    file.truncate()
    return text


def test_a_conversation_is_kept(repl: Repl, llm: LLM) -> None:
    repl.take("My name is Bob.")
    first = llm.chat([{"role": "user", "content": "My name is Bob."}], sampling=GREEDY)
    assert output(repl) == first.text + "\ncut off at --max-tokens\n"
    repl.take("  What is it?\n")
    messages = [
        {"role": "user", "content": "My name is Bob."},
        {"role": "assistant", "content": first.text},
        {"role": "user", "content": "What is it?"},
    ]
    assert repl.turns == [*messages, {"role": "assistant", "content": llm.chat(messages, sampling=GREEDY).text}]
    repl.take("/clear")
    assert repl.turns == []


def test_the_system_message(repl: Repl, llm: LLM) -> None:
    repl.take("/system You are a pirate.")
    repl.take("Who are you?")
    system, user = {"role": "system", "content": "You are a pirate."}, {"role": "user", "content": "Who are you?"}
    assert llm.chat([system, user], sampling=GREEDY).text in output(repl)
    repl.take("/clear")
    assert repl.messages() == [system]
    repl.take("/system off")
    assert repl.messages() == []
    assert output(repl).endswith("system message: none\n")


def test_a_full_context_is_said_and_nothing_is_dropped(repl: Repl) -> None:
    repl.take("Hi")
    before = list(repl.turns)
    output(repl)
    repl.take("word " * 300)
    assert repl.turns == before
    said = output(repl)
    assert "tokens, and the context holds 256" in said
    assert said.count("\n") == 1


def test_an_answer_that_reaches_the_end_of_the_context(repl: Repl) -> None:
    repl.sampling = Sampling(temperature=0, ignore_eos=True)
    repl.take("word " * 200)
    assert output(repl).endswith("\ncut off: the context is full, /clear begins anew\n")


def test_small_commands(repl: Repl, llm: LLM) -> None:
    repl.take("/stats")
    assert output(repl) == "no finished answer to tell about\n"
    repl.take("/context")
    assert output(repl) == "0 messages of 0 tokens; the context holds 256\n"
    repl.take("/verbose")
    repl.take("Hi")
    assert "answer 8 tokens in" in output(repl)
    repl.take("/stats")
    assert "answer 8 tokens in" in output(repl)
    repl.take("/context")
    used = len(llm.chat_prompt(repl.turns, add_generation_prompt=False))
    assert output(repl) == f"2 messages of {used} tokens; the context holds 256\n"
    repl.take("/model")
    assert output(repl) == f"{llm.path}, context 256\n"
    repl.take("/nonsense now")
    assert output(repl).startswith("unknown command /nonsense: /help")


def test_help_names_every_command(repl: Repl) -> None:
    repl.take("/help")
    lines = output(repl).splitlines()
    for name, (_, text) in COMMANDS.items():
        assert any(line.split(maxsplit=1) == [name, text] for line in lines)


def test_debug_shows_the_prompt(repl: Repl) -> None:
    repl.take("/debug")
    repl.take("Hi [red] \x1b[31m")
    said = output(repl)
    assert "<|im_start|>user\nHi [red] [31m<|im_end|>\n<|im_start|>assistant" in said
    assert "\x1b" not in said


def test_another_model(repl: Repl, llm: LLM) -> None:
    closed = []

    class Old:
        path, context = llm.path, llm.context

        def close(self) -> None:
            closed.append(self)

    old: Any = Old()
    repl.llm, repl.load = old, lambda name: llm if name == "new" else refuse(name)
    with pytest.raises(SotolError):
        repl.take("/model nonsense")
    assert (repl.llm, closed) == (old, [])
    repl.take("/model new")
    assert (repl.llm, closed) == (llm, [old])


def test_an_interrupted_answer_is_kept_as_far_as_it_came(repl: Repl, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[str] = []

    def write(piece: str, _file: object) -> None:
        pieces.append(piece)
        if len(pieces) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_piece", write)
    with pytest.raises(KeyboardInterrupt):
        repl.answer("Tell me a story.")
    assert repl.turns[1:] == [{"role": "assistant", "content": "".join(pieces)}]


# ---- keys

Ask = Callable[[str], str]


@pytest.fixture
def ask(keys: PipeInput) -> Ask:
    """What the prompt returns for these keys."""

    def ask(typed: str) -> str:
        keys.send_text(typed)
        return prompt_session().prompt()

    return ask


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("one\r", "one"),
        ("one\x1b\rtwo\r", "one\ntwo"),
        ("one\\\rtwo\r", "one\ntwo"),
        ("\x1b[200~pasted\nlines\x1b[201~\r", "pasted\nlines"),
    ],
)
def test_editing(typed: str, text: str, ask: Ask) -> None:
    assert ask(typed) == text


def test_history_and_reverse_search(ask: Ask, state: Path) -> None:
    for line in ("alpha one", "beta two", "gamma"):
        ask(line + "\r")
    assert history_path() == state / "history"
    assert stat.S_IMODE((state / "history").stat().st_mode) == 0o600
    # each of these is a new session: the lines come from the file
    assert ask("\x1b[A\x1b[A\r") == "beta two"
    assert ask("\x12alph\r\r") == "alpha one"


def test_without_a_writable_home(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(platformdirs, "user_state_dir", lambda name: str(tmp_path / "file" / name))
    assert ask("hello\r") == "hello"


@pytest.mark.parametrize("end", ["\x04", "/quit\r", "/exit\r"])
def test_talking(end: str, keys: PipeInput, repl: Repl) -> None:
    keys.send_text("\x03/model nonsense\rHi\r" + end)
    repl.talk(prompt_session())
    said = output(repl).splitlines()
    assert said[:2] == ["Ctrl-D or /quit ends sotol", "no model 'nonsense'"]
    assert len(repl.turns) == 2


def test_errors_show_tracebacks_in_debug(keys: PipeInput, repl: Repl) -> None:
    keys.send_text("/debug\r/model nonsense\r\x04")
    repl.talk(prompt_session())
    assert "Traceback (most recent call last)" in output(repl)
