"""The conversation: what each line does to it. How lines are typed: test_cli_editing.py."""

from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import platformdirs
import pytest
from tests.support.scripted import TEMPLATE, scripted
from tests.support.tiny_model import tiny_model

from sotol import LLM, Sampling, SotolError
from sotol.cli import output as output_module
from sotol.cli.output import console
from sotol.cli.repl import COMMANDS, KEYS, Repl

GREEDY = Sampling(temperature=0, max_tokens=8)


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of the test's own."""
    monkeypatch.setattr(platformdirs, "user_data_dir", lambda name: str(tmp_path / name))
    return tmp_path / "sotol"


def refuse(name: str, **_loading: object) -> LLM:
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


THINKS = TEMPLATE + "{# <think></think> m.reasoning_content #}"


@pytest.mark.parametrize(("template", "kept"), [(THINKS, True), (THINKS.replace("reasoning_content", ""), False)])
def test_thoughts_are_shown_and_kept_where_the_template_wants_them(template: str, kept: bool) -> None:
    with scripted("<think>\nHm.\n</think>\n\nYes.", template=template, shown=["<think>", "</think>"]) as llm:
        repl = Repl(llm, console(file=StringIO()), Sampling(), refuse)
        repl.take("Is it?")
        assert output(repl) == "<think>\nHm.\n</think>\n\nYes.\n"
        thought = {"reasoning_content": "Hm."} if kept else {}
        assert repl.turns == [
            {"role": "user", "content": "Is it?"},
            {"role": "assistant", "content": "Yes.", **thought},
        ]
        repl.take("/save it")
        repl.take("/clear")
        repl.take("/load it")
        assert repl.turns[1] == {"role": "assistant", "content": "Yes.", **thought}
        repl.hide_thinking = True
        output(repl)
        repl.take("Really?")
        assert output(repl) == "Yes.\n"
        repl.sampling = Sampling(max_tokens=3)  # cut off within its thoughts: nothing was answered
        repl.hide_thinking = False
        repl.take("Now?")
        assert output(repl) == "<think>\nH\n</think>\ncut off at --max-tokens\n"
        assert len(repl.turns) == 4


def test_a_second_turn_computes_only_what_is_new(tmp_path: Path) -> None:
    path = tiny_model(tmp_path, {"llama.context_length": 1024})
    with LLM(path, threads=1) as tiny:
        repl = Repl(tiny, console(file=StringIO()), Sampling(temperature=0, max_tokens=40, ignore_eos=True), refuse)
        repl.take("the quick brown fox jumps over the lazy dog")
        first = repl.last
        assert first is not None
        assert first.usage.cached_tokens == 0
        known = [*tiny.chat_prompt(repl.messages()[:1]), *first.tokens[:-1]]  # of the last token only its id is known
        asked = tiny.chat_prompt([*repl.messages(), {"role": "user", "content": "and then?"}])
        same = next(i for i, (a, b) in enumerate(zip(known, asked, strict=False)) if a != b)
        repl.take("and then?")
        second = repl.last
        assert second is not None
        assert second.usage.prompt_tokens == len(asked)
        assert second.usage.cached_tokens == same >= first.usage.prompt_tokens
        repl.take("/stats")
        assert f"prompt {len(asked)} tokens, {same} of them known, in " in output(repl)


def test_a_second_turn_of_a_real_model(repl: Repl) -> None:
    repl.take("Name three rivers of France.")
    first = repl.last
    assert first is not None
    repl.take("And of Spain?")
    assert repl.last is not None
    # The template puts a token for the end of the turn behind the answer, which was cut off.
    assert repl.last.usage.cached_tokens >= first.usage.prompt_tokens + first.usage.completion_tokens - 1


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
    assert output(repl).startswith("unknown command /nonsense: /? lists them")


def test_help_names_every_command(repl: Repl) -> None:
    repl.take("/help")
    lines = output(repl).splitlines()
    shown = [line[:14].strip() for line in lines if line[:14].strip()]
    assert shown == [*COMMANDS, "/bye", *(key for key, _ in KEYS)]
    for _, text in COMMANDS.values():
        assert text in " ".join(line[14:] for line in lines)


def test_help_fits_a_narrow_terminal(llm: LLM) -> None:
    narrow = console(file=StringIO())
    narrow.width = 40
    repl = Repl(llm, narrow, GREEDY, refuse)
    repl.take("/?")
    lines = output(repl).splitlines()
    assert max(map(len, lines)) <= 40
    assert "answer the last message again" in " ".join(line[14:] for line in lines).replace("  ", " ")


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
    repl.llm, repl.load = old, lambda name, **_loading: llm if name == "new" else refuse(name)
    with pytest.raises(SotolError):
        repl.take("/model nonsense")
    assert (repl.llm, closed) == (old, [])
    repl.take("/model new")
    assert (repl.llm, closed) == (llm, [old])


def test_an_interrupted_answer_is_kept_as_far_as_it_came(repl: Repl, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[str] = []

    def write(piece: str) -> None:
        pieces.append(piece)
        if len(pieces) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(output_module, "answer_writer", lambda *_, **__: write)
    with pytest.raises(KeyboardInterrupt):
        repl.answer("Tell me a story.")
    assert repl.turns[1:] == [{"role": "assistant", "content": "".join(pieces)}]


# ---- taking back, again, keeping


def said(repl: Repl, *lines: str) -> list[str]:
    """What these inputs have written, each."""
    texts = []
    for line in lines:
        repl.take(line)
        texts.append(output(repl))
    return texts


def test_taking_back(repl: Repl) -> None:
    said(repl, "Hi", "What is your name?")
    first = list(repl.turns[:2])
    assert said(repl, "/undo") == ["taken back; 2 messages stay\n"]
    assert repl.turns == first
    assert said(repl, "/undo", "/undo") == ["taken back; 0 messages stay\n", "there is nothing to take back\n"]


def test_again(repl: Repl) -> None:
    assert said(repl, "/retry") == ["there is no message to answer again\n"]
    said(repl, "Hi", "What is your name?")
    before = list(repl.turns)
    for command in ("/retry", "/regen"):
        assert said(repl, command) == [before[-1]["content"] + "\ncut off at --max-tokens\n"]
        assert repl.turns == before


def test_what_could_not_be_answered_again_stays(repl: Repl, monkeypatch: pytest.MonkeyPatch) -> None:
    said(repl, "Hi")
    before = list(repl.turns)

    def fail(*_: object, **__: object) -> Any:
        raise SotolError("no answer")

    monkeypatch.setattr(LLM, "turn", fail)
    with pytest.raises(SotolError):
        repl.take("/retry")
    assert repl.turns == before


def test_keeping_a_conversation(repl: Repl, llm: LLM, data: Path) -> None:
    said(repl, "/system Be brief.", "Hi")
    (kept,) = said(repl, "/save first talk")
    assert kept.startswith("2 messages are kept: /load first talk")
    assert (data / "conversations.db").is_file()
    assert said(repl, "/load") == ["kept conversations: first talk\n"]
    other = Repl(llm, console(file=StringIO()), GREEDY, refuse)
    assert said(other, "/load first talk") == ["2 messages\n"]
    assert other.messages() == repl.messages()
    with pytest.raises(SotolError, match=r"no conversation 'second'; there are: first talk"):
        other.take("/load second")


def test_texts_go_before_the_next_message(repl: Repl, tmp_path: Path) -> None:
    file = tmp_path / "a file.txt"
    file.write_text("one\ntwo\n")
    assert said(repl, f"/read {file}") == ["2 lines go before your next message\n"]
    said(repl, "Count.", "Again.")
    assert [turn["content"] for turn in repl.turns[::2]] == ["one\ntwo\n\nCount.", "Again."]
    with pytest.raises(SotolError, match="can't be read: no such file"):
        repl.take(f"/read {tmp_path / 'none'}")


def test_a_block_in_quotes_is_a_message_whatever_it_says(repl: Repl) -> None:
    said(repl, '"""/help\nexit"""')
    assert repl.turns[0]["content"] == "/help\nexit"


@pytest.mark.parametrize("line", ["/bye", "/quit", "/exit", "exit", " quit ", "bye"])
def test_leaving(line: str, repl: Repl) -> None:
    assert not repl.take(line)


# ---- /set


def test_parameters(repl: Repl) -> None:
    assert said(repl, "/set parameter temperature 0.5", "/set parameter num_predict 3", "/set parameter seed 7") == [
        "temperature: 0.5\n", "max_tokens: 3\n", "seed: 7\n",
    ]  # fmt: skip
    assert repl.sampling == Sampling(temperature=0.5, max_tokens=3, seed=7)
    said(repl, "/set parameter seed -1", "/set parameter stop END")
    assert repl.sampling == Sampling(temperature=0.5, max_tokens=3, stop=["END"])
    (table,) = said(repl, "/set parameter")
    rows = dict(line.split(maxsplit=1) for line in table.splitlines() if len(line.split()) > 1)
    assert (rows["temperature"], rows["ctx"]) == ("0.5", "256")
    assert (rows["sequences"], rows["backend"], rows["prefix_cache"]) == ("64", "cpu", "True")
    assert "n" not in rows


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/set parameter temprature 1", "did you mean temperature"),
        ("/set parameter temperature hot", "temperature is 'hot'; it must be a number"),
        ("/set parameter top_k 1.5", "top_k is '1.5'; it must be a whole number"),
        ("/set parameter top_p 2", "top_p is 2"),
        ("/set nonsense", "/set takes parameter"),
        ("/set effort much", "/set effort takes none, minimal"),
        ("/show nonsense", "/show takes info, parameters, system: not 'nonsense'"),
    ],
)
def test_settings_that_are_none(line: str, message: str, repl: Repl) -> None:
    with pytest.raises(ValueError, match=message):
        repl.take(line)
    assert repl.sampling == GREEDY


def test_what_a_model_is_loaded_with(repl: Repl, llm: LLM) -> None:
    loaded: list[object] = []

    class Old:
        path, context = llm.path, llm.context

        def close(self) -> None:
            loaded.append("closed")

    old: Any = Old()
    repl.llm = old

    def load(name: str, **loading: object) -> LLM:
        loaded.append((name, loading))
        return llm

    repl.load = load
    assert said(repl, "/set parameter num_ctx 128") == ["ctx: 128\n"]
    assert loaded == [(str(llm.path), {"ctx": 128}), "closed"]
    repl.llm = old
    said(repl, "/model other")
    assert loaded[2:] == [("other", {"ctx": 128}), "closed"]
    repl.llm = old
    assert said(repl, "/set parameter kv_memory 50%") == ["kv_memory: 0.5\n"]
    assert loaded[4:] == [(str(llm.path), {"ctx": 128, "kv_memory": 0.5}), "closed"]


def test_small_settings(repl: Repl) -> None:
    said(repl, "/set system Be brief.", "/set verbose", "/set nowordwrap", "/set nothink")
    assert (repl.system, repl.verbose, repl.wordwrap, repl.template) == (
        "Be brief.", True, False, {"enable_thinking": False},
    )  # fmt: skip
    said(repl, "/set quiet", "/set wordwrap", "/set think", "/verbose")
    assert (repl.verbose, repl.wordwrap, repl.template) == (True, True, {"enable_thinking": True})


def test_effort(repl: Repl) -> None:
    said(repl, "/set nothink", "/set effort high")
    assert repl.template == {"reasoning_effort": "high"}
    said(repl, "/set nothink")
    assert repl.template == {"reasoning_effort": "high", "enable_thinking": False}


def test_show_as_ollama_has_it(repl: Repl) -> None:
    said(repl, "/set system Be brief.")
    assert said(repl, "/show") == said(repl, "/show info") == said(repl, "/model")
    assert said(repl, "/show parameters") == said(repl, "/set parameter")
    assert said(repl, "/show system") == ["system message: Be brief.\n"]


# ---- the loop


class Lines:
    """A session that types lines; an exception is raised."""

    def __init__(self, *lines: str | type[BaseException]) -> None:
        self._lines: Iterator[str | type[BaseException]] = iter(lines)

    def prompt(self) -> str:
        line = next(self._lines, EOFError)
        if isinstance(line, str):
            return line
        raise line


@pytest.mark.parametrize("end", [(), ("/quit", "Hi"), ("bye", "Hi")])
def test_talking(end: tuple[str, ...], repl: Repl) -> None:
    repl.talk(Lines(KeyboardInterrupt, "/model nonsense", "Hi", *end))
    lines = output(repl).splitlines()
    assert lines[:2] == ["Ctrl-D or /quit ends sotol", "no model 'nonsense'"]
    assert len(repl.turns) == 2


def test_an_error_can_not_write_to_the_terminal(repl: Repl) -> None:
    repl.talk(Lines("/model \x1b]0;owned\x07" + "x" * 5000))
    assert "\x1b" not in (text := output(repl))
    assert len(text) < 1200


def test_errors_show_tracebacks_in_debug(repl: Repl) -> None:
    repl.talk(Lines("/debug", "/model nonsense"))
    assert "Traceback (most recent call last)" in output(repl)
