"""Responses in the database against a model of whole conversations, in any order of calls; what is forgotten, when."""

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from sotol.conversations import DatabaseFile, Responses

OWNERS = st.sampled_from(["key 1", "127.0.0.1"])


def item(text: str) -> dict[str, Any]:
    return {"type": "message", "content": text}


class Machine(RuleBasedStateMachine):
    """Responses that continue each other, and are deleted."""

    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.file = DatabaseFile(Path(self._folder.name) / "c.db")
        self.kept = Responses(self.file)
        self.known: dict[str, tuple[str, list[dict[str, Any]], list[dict[str, Any]]]] = {}
        self.count = 0

    def teardown(self) -> None:
        self.file.close()
        self._folder.cleanup()

    def put(self, owner: str, previous: str | None, before: list[dict[str, Any]]) -> str:
        self.count += 1
        id_ = f"resp_{self.count}"
        own, output = [item(f"asked {self.count}")], [item(f"said {self.count}")]
        self.kept.put(owner, {"id": id_, "previous_response_id": previous, "output": output}, own)
        self.known[id_] = (owner, [*before, *own], output)
        return id_

    @rule(target=ids, owner=OWNERS)
    def begin(self, owner: str) -> str:
        return self.put(owner, None, [])

    @rule(target=ids, id_=ids)
    def go_on(self, id_: str) -> str:
        if id_ not in self.known:
            return id_
        owner, items, output = self.known[id_]
        return self.put(owner, id_, [*items, *output])

    @rule(id_=ids, owner=OWNERS)
    def delete(self, id_: str, owner: str) -> None:
        there = id_ in self.known and self.known[id_][0] == owner
        assert self.kept.delete(owner, id_) == there
        if there:
            del self.known[id_]

    @rule()
    def reopen(self) -> None:
        self.file.close()

    @invariant()
    def each_has_its_conversation(self) -> None:
        for number in range(1, self.count + 1):
            id_ = f"resp_{number}"
            for owner in ("key 1", "127.0.0.1"):
                found = self.kept.get(owner, id_)
                if id_ not in self.known or self.known[id_][0] != owner:
                    assert found is None
                    continue
                assert found is not None
                assert (found.items, found.response["output"]) == self.known[id_][1:]
                assert found.own == 1

    @invariant()
    def nothing_stays_that_nobody_has(self) -> None:
        if not self.known:
            with self.file.reading() as connection:
                assert connection.execute("SELECT count(*) FROM responses").fetchone() == (0,)


Machine.TestCase.settings = settings(max_examples=20, stateful_step_count=15)
TestMachine = Machine.TestCase


def test_what_nobody_used_for_long_is_forgotten(tmp_path: Path) -> None:
    """The last of a conversation first: those before it are part of it."""
    file = DatabaseFile(tmp_path / "c.db")
    kept = Responses(file)
    for id_, previous in (("a", None), ("b", "a"), ("c", None)):
        kept.put("", {"id": id_, "previous_response_id": previous, "output": []}, [])
    with file.writing() as connection:
        connection.execute("UPDATE responses SET used = 1 WHERE id <> 'c'")
    kept.put("", {"id": "d", "output": []}, [])
    assert [kept.get("", id_) is not None for id_ in "abcd"] == [True, False, True, True]
    with file.writing() as connection:
        connection.execute("UPDATE responses SET used = 1 WHERE id = 'a'")
    kept.put("", {"id": "e", "output": []}, [])
    assert kept.get("", "a") is None
    file.close()
