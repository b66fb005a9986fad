"""Conversations of a terminal: kept in the database that the page has, and as they were when they come back."""

import json
from pathlib import Path

import platformdirs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sotol.cli.conversations import Conversation, Session, latest, load, names, resumed, save
from sotol.conversations import Conversations, NewMessage, branch, default_path
from sotol.errors import FormatError, SotolError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
TURNS = st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": TEXT}))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platformdirs, "user_data_dir", lambda name: str(tmp_path / name))


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def kept() -> Conversations:
    return Conversations(default_path())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(TEXT, st.none() | TEXT, TURNS)
def test_what_is_kept_comes_back(model: str, system: str | None, said: list[dict[str, str]]) -> None:
    it = Conversation(model, system, said)
    save("it", it)
    assert load("it") == it
    assert names() == ["it"]


def test_nothing_is_made_by_looking() -> None:
    assert names() == []
    assert not default_path().parent.exists()


@pytest.mark.parametrize("name", ["", " x", "x" * 201, "a\0", "a\nb"])
def test_names_that_are_none(name: str) -> None:
    for act in (load, lambda name: save(name, Conversation("m", None, []))):
        with pytest.raises(ValueError, match="is no name: give one of a line"):
            act(name)


def test_a_conversation_goes_on() -> None:
    assert latest().id is None
    session = latest()
    id_ = session.keep(Conversation("m.gguf", "Be brief", turns("Hi", "Hello")))
    assert session.keep(Conversation("m.gguf", "Be brief", turns("Hi", "Hello", "Why?", "So."))) == id_
    again = latest()
    assert (again.id, again.model, again.system) == (id_, "m.gguf", "Be brief")
    assert again.turns == turns("Hi", "Hello", "Why?", "So.")
    other = Session()
    other.keep(Conversation("m.gguf", None, turns("What?", "That.")))
    assert latest().id == other.id != id_
    assert resumed(id_).turns == again.turns
    assert resumed("Hi").id == id_
    with pytest.raises(SotolError, match=r"no conversation 'x'; there are: What\?, Hi"):
        resumed("x")


def test_where_turns_differ_a_branch_begins() -> None:
    session = Session()
    id_ = session.keep(Conversation("m", None, turns("Hi", "Hello", "Why?", "So.")))
    session.keep(Conversation("m", None, turns("Hi", "Hello", "How?", "Thus.")))
    session.keep(Conversation("m", None, turns("Hi")))  # taken back
    db = kept()
    messages = db.messages("", id_)
    assert [message.content for message in messages] == ["Hi", "Hello", "Why?", "So.", "How?", "Thus."]
    assert messages[4].parent == messages[1].id
    assert [message.content for message in branch(messages, db.get("", id_).leaf)] == ["Hi"]
    db.close()
    session.keep(Conversation("m", None, turns("Hi", "Hey")))
    assert resumed(id_).turns == turns("Hi", "Hey")


def test_a_conversation_of_the_page() -> None:
    """Its settings hold; results of tools stay in the tree, and are not shown."""
    db = kept()
    made = db.begin("", "Rivers", "m", {"system": "S", "temperature": 0.25, "think": False, "tools": []})
    call = {"id": "1", "name": "f", "arguments": "{}"}
    messages = [
        NewMessage("user", "Hi"),
        NewMessage("assistant", "", details={"calls": [call]}),
        NewMessage("tool", "3", details={"call": "1"}),
        NewMessage("assistant", "Three.", "It said 3."),
    ]
    added = db.add("", made.id, None, messages)
    db.close()
    session = resumed("Rivers")
    assert session.turns == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Three.", "reasoning_content": "It said 3."},
    ]
    assert (session.sampling, session.template) == ({"temperature": 0.25}, {"enable_thinking": False})
    session.keep(Conversation("m", "T", [*session.turns, *turns("More", "Yes.")]))
    db = kept()
    assert db.messages("", made.id)[4].parent == added[3].id
    assert db.get("", made.id).settings == {"system": "T", "temperature": 0.25, "think": False, "tools": []}
    db.close()


def test_what_save_wrote_before_there_was_a_database() -> None:
    folder = default_path().parent / "conversations"
    folder.mkdir(parents=True)
    old = {"sotol": 1, "model": "m", "system": "S", "turns": turns("Hi", "Hello")}
    (folder / "it.json").write_text(json.dumps(old))
    assert load("it") == Conversation("m", "S", turns("Hi", "Hello"))
    with pytest.raises(SotolError, match="no conversation"):
        load("../conversations/it")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "\xff",
        "[" * 100_000,
        json.dumps({"sotol": 1, "model": "m", "system": None, "turns": [{"role": "system", "content": "x"}]}),
        json.dumps({"sotol": 1, "model": "m", "system": None, "turns": [{"role": "user", "content": 1}]}),
        json.dumps({"sotol": 1, "model": 5, "system": None, "turns": []}),
        json.dumps({"sotol": 2, "model": "m", "system": None, "turns": []}),
    ],
)
def test_files_that_are_none(text: str) -> None:
    folder = default_path().parent / "conversations"
    folder.mkdir(parents=True)
    (folder / "it.json").write_text(text, encoding="latin-1")
    with pytest.raises(FormatError, match="is no conversation that sotol saved"):
        load("it")


def test_a_place_where_nothing_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sotol").write_text("")
    with pytest.raises(SotolError, match="can't be written: "):
        save("it", Conversation("m", None, []))
    assert names() == []
    monkeypatch.setattr(platformdirs, "user_data_dir", lambda name: f"~/{name}")
    with pytest.raises(SotolError, match="set HOME"):
        load("it")
