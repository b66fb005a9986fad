"""The database against a model of dictionaries, in any order of calls (Hypothesis); exports come back as they were."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from sotol.conversations import Conversations, NewMessage, exported, imported, markdown

OWNERS = st.sampled_from(["", "a"])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
WORDS = st.sampled_from(["salmon", "trout", "a salmon swims", "Forelle", ""])
FIELDS = st.sampled_from(["messages", "parent", "role", "content", "details", "calls", "title", "leaf", "status"])
MESSAGES = st.lists(st.tuples(st.sampled_from(["user", "assistant", "tool"]), WORDS | TEXT), min_size=1, max_size=4)


@dataclass
class Known:
    """What a conversation should be."""

    owner: str
    title: str
    leaf: int | None = None
    messages: dict[int, tuple[int | None, str, str]] = field(default_factory=dict)


class Machine(RuleBasedStateMachine):
    """Calls in any order."""

    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.db = Conversations(Path(self._folder.name) / "c.db")
        self.known: dict[str, Known] = {}

    def teardown(self) -> None:
        self.db.close()
        self._folder.cleanup()

    @rule(target=ids, owner=OWNERS, title=WORDS)
    def begin(self, owner: str, title: str) -> str:
        made = self.db.begin(owner, title)
        self.known[made.id] = Known(owner, title)
        return made.id

    @rule(id_=ids, new=MESSAGES, data=st.data())
    def add(self, id_: str, new: list[tuple[Any, str]], data: st.DataObject) -> None:
        known = self.known[id_]
        parent = data.draw(st.sampled_from([None, *known.messages]))
        for message in self.db.add(known.owner, id_, parent, [NewMessage(role, text) for role, text in new]):
            known.messages[message.id] = (parent, message.role, message.content)
            parent = known.leaf = message.id

    @rule(id_=ids, text=WORDS, data=st.data())
    def write(self, id_: str, text: str, data: st.DataObject) -> None:
        known = self.known[id_]
        if known.messages:
            message = data.draw(st.sampled_from(sorted(known.messages)))
            self.db.write(message, text, "", {}, "complete")
            known.messages[message] = (*known.messages[message][:2], text)

    @rule(id_=ids, title=WORDS, data=st.data())
    def change(self, id_: str, title: str, data: st.DataObject) -> None:
        known = self.known[id_]
        leaf = data.draw(st.sampled_from([None, *known.messages]))
        self.db.change(known.owner, id_, title=title, leaf=leaf)
        known.title, known.leaf = title, known.leaf if leaf is None else leaf

    @rule(id_=consumes(ids))
    def delete(self, id_: str) -> None:
        self.db.delete(self.known.pop(id_).owner, id_)

    @rule(target=ids, id_=ids, owner=OWNERS)
    def copy(self, id_: str, owner: str) -> Any:
        known = self.known[id_]
        whole = [(self.db.get(known.owner, id_), self.db.messages(known.owner, id_))]
        ((conversation, messages),) = imported(exported(whole))
        made = self.db.put(owner, conversation, messages)
        assert exported([(made, self.db.messages(owner, made.id))]) == exported(whole)
        new = dict(zip(known.messages, (message.id for message in self.db.messages(owner, made.id)), strict=True))
        moved = {new[old]: (None if parent is None else new[parent], role, text)
                 for old, (parent, role, text) in known.messages.items()}  # fmt: skip
        self.known[made.id] = Known(owner, known.title, None if known.leaf is None else new[known.leaf], moved)
        return multiple(made.id)

    @rule()
    def reopen(self) -> None:
        self.db.close()

    @invariant()
    def all_is_as_it_should_be(self) -> None:
        for id_, known in self.known.items():
            kept = self.db.get(known.owner, id_)
            assert (kept.title, kept.leaf) == (known.title, known.leaf)
            found = {message.id: message[1:4] for message in self.db.messages(known.owner, id_)}
            assert found == known.messages

    @invariant()
    def searches_find_what_is_there(self) -> None:
        for owner in ("", "a"):
            for word in ("salmon", "Tr", "forelle"):
                should = {
                    id_ for id_, known in self.known.items()
                    if known.owner == owner
                    and any(word.casefold() in text.casefold()
                            for text in (known.title, *(text for _, _, text in known.messages.values())))
                }  # fmt: skip
                assert {entry.conversation.id for entry in self.db.listed(owner, word, limit=1000)} == should


Machine.TestCase.settings = settings(max_examples=25, stateful_step_count=20)
TestMachine = Machine.TestCase


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "x"}, "format is 'x'; the file must be an export"),
        ({"version": 2}, "version is 2; this sotol reads version 1"),
        ({"conversations": {}}, "conversations must be a list"),
        ({"conversations": [1]}, r"conversations\[0\] must be an object"),
        ({"conversations": [{"title": "", "messages": [{"parent": 0}]}]}, r"messages\[0\].parent must be null or"),
        ({"conversations": [{"title": 1, "messages": []}]}, r"conversations\[0\].title must be a text"),
    ],
)
def test_files_that_are_none(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        imported({**exported([]), **change})


@given(st.recursive(st.none() | st.booleans() | st.integers() | TEXT, lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(FIELDS | TEXT, inner, max_size=6)))  # fmt: skip
def test_any_json_is_read_or_refused(value: Any) -> None:
    for data in (value, {**exported([]), "conversations": [value]}, {"sotol": 1, "turns": value, "model": "m"}):
        try:
            read = imported(data)
        except ValueError:
            continue
        for conversation, messages in read:
            markdown(conversation, messages)


def test_markdown_fences_are_longer_than_what_they_hold() -> None:
    call = {"id": "1", "name": "f", "arguments": "```"}
    message = {"parent": None, "role": "assistant", "content": "x", "reasoning": "````", "details": {"calls": [call]},
               "status": "complete", "created": 0}  # fmt: skip
    about = {"title": "T", "model": "m", "settings": {"system": "a\nb"}, "created": 0, "changed": 0, "leaf": 0}
    (whole,) = imported({**exported([]), "conversations": [{**about, "messages": [message]}]})
    text = markdown(*whole)
    assert "`````\n````\n`````" in text
    assert "````json\n```\n````" in text
    assert "> a\n> b" in text


def test_details_that_readers_could_not_read_are_left_out() -> None:
    usage = {"prompt": 1, "completion": 2}
    given = {"model": "m", "speed": 1.5, "context": True, "finish": 3, "usage": usage, "own": "x"}
    message = {"parent": None, "role": "assistant", "content": "x", "reasoning": "", "details": given,
               "status": "complete", "created": 0}  # fmt: skip
    about = {"title": "T", "model": "m", "settings": {}, "created": 0, "changed": 0, "leaf": 0, "messages": [message]}
    file = {**exported([]), "conversations": [about]}
    ((_, (read,)),) = imported(file)
    assert read.details == {"model": "m", "speed": 1.5, "usage": usage}
    usage["cached"] = None  # type: ignore[assignment]
    with pytest.raises(ValueError, match="usage must have prompt and completion, and whole numbers"):
        imported(file)
