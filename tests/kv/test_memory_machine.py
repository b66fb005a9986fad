"""Memory under all kinds of load: sequences open, run, are preempted and end; the device reveals any wrong block."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.kv.fake_device import Device, Prefixes, check, common, nodes

from sotol.kv.memory import STATE_TOKENS, WORTH_WAITING, Held, Memory
from sotol.program.memory import Group

FULL, STATE = Group(()), Group((), state=True)
STEP = 48  # tokens of a step, for one sequence


@dataclass(eq=False)
class Running:
    """A sequence from the scheduler's view."""

    key: Hashable
    tokens: list[int]
    prompt: int  # tokens of its prompt, also after it was preempted
    held: Held


class MemoryMachine(RuleBasedStateMachine):
    """The calls of a scheduler, in any valid order."""

    groups: tuple[Group, ...] = (FULL,)
    most: tuple[int, ...] = (40,)  # blocks of each group, at most
    least: tuple[int, ...] = (4,)
    reuse = True

    @initialize(data=st.data())
    def start(self, data: st.DataObject) -> None:
        self.blocks = [data.draw(st.integers(low, high)) for low, high in zip(self.least, self.most, strict=True)]
        self.memory = Memory(self.groups, self.blocks, step_tokens=STEP, reuse=self.reuse)
        self.device, self.prefixes = Device(self.groups, self.blocks), Prefixes()
        self.running: list[Running] = []
        self.texts: list[list[int]] = [[0] * 40, [1, 2] * 290]

    # ---- rules

    @rule(data=st.data(), key=st.sampled_from(["", "", "", "other"]))
    def open(self, data: st.DataObject, key: str) -> None:
        """Add a new text, or one with the prefix of another."""
        text = data.draw(st.sampled_from(self.texts))
        cut = data.draw(st.sampled_from([len(text), len(text), len(text) // 32 * 16, 0]) | st.integers(0, len(text)))
        new = data.draw(st.sampled_from([1, 16, 70]) | st.integers(0 if cut else 1, 20))
        token = data.draw(st.integers(0, 2))
        tokens = text[:cut] + [token + (i % 7 == 3) for i in range(new)]
        most = data.draw(st.sampled_from([len(tokens) - 1] * 5 + [0, len(tokens)]))
        self.begin(key, tokens, most)

    def begin(self, key: Hashable, tokens: list[int], most: int) -> None:
        promised = max((self.promise(r, key, tokens, most) for r in self.running), default=0)
        held = self.memory.open(tokens, most, key)
        if held is None:
            assert promised >= WORTH_WAITING
            return
        assert held.length == held.reused <= most
        assert self.reuse or not held.length
        assert promised - held.length < WORTH_WAITING + 15 or not self.reuse  # 15: a part without room to copy it
        assert held.length % 16 == 0 or STATE not in self.groups
        self.texts.append(tokens)
        self.running.append(Running(key, list(tokens), len(tokens), held))

    def promise(self, other: Running, key: Hashable, tokens: list[int], most: int) -> int:
        """The prefix that is usable once a running sequence has computed what it promised; 0: it promises nothing."""
        prompt = other.tokens[: other.prompt]
        shared = common(prompt[: len(prompt) // 16 * 16], tokens[: len(tokens) // 16 * 16]) // 16 * 16
        if key != other.key:
            return 0
        if STATE in self.groups:
            last = (len(prompt) - 1) // 16 * 16
            ends = [e for e in range(16, min(shared, most) + 1, 16) if e % STATE_TOKENS == 0 or e == last]
            shared = max(ends, default=0)
        return min(shared, most) if shared > other.held.length // 16 * 16 else 0

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        """Some of the sequences run a step; one without room is preempted or waits."""
        batch: list[tuple[Running, int]] = []
        for sequence in data.draw(st.lists(st.sampled_from(self.running), unique=True, min_size=1, max_size=3)):
            if sequence.held.length == len(sequence.tokens):
                sequence.tokens += [data.draw(st.integers(0, 2))] * data.draw(st.sampled_from([1, 1, 3, 20]))
            end = min(len(sequence.tokens), sequence.held.length + data.draw(st.sampled_from([1, 5, STEP, STEP])))
            stop = self.memory.stop(sequence.held, end)
            assert sequence.held.length < stop <= end
            if self.extend(sequence, stop):
                batch.append((sequence, stop))
            elif data.draw(st.booleans()):
                self.give_way(sequence, again=data.draw(st.booleans()))
        self.run([(s, stop) for s, stop in batch if s in self.running])

    def extend(self, sequence: Running, end: int) -> bool:
        held = sequence.held
        needs, available = self.memory.needs(held, end), self.memory.available()
        before = [len(row) + first for row, first in zip(held.blocks, held.first, strict=True)]
        if not self.memory.extend(held, end):
            assert before == [len(row) + first for row, first in zip(held.blocks, held.first, strict=True)]
            wanted = [
                max(0, (1 if group.state else -(-end // 16)) - b) for group, b in zip(self.groups, before, strict=True)
            ]
            assert any(want > have for want, have in zip(wanted, self.memory.available(), strict=True))
            return False
        for g, group in enumerate(self.groups):
            if not group.state:
                assert len(held.blocks[g]) + held.first[g] >= -(-end // 16)
                assert held.first[g] == (max(0, held.length - group.window + 1) // 16 if group.window else 0)
            assert needs[g] <= available[g] or group.window
        return True

    def run(self, batch: list[tuple[Running, int]]) -> None:
        tables = self.memory.tables([sequence.held for sequence, _ in batch])
        self.device.copy(self.memory.take_copies())
        kept = {(g, node.blocks[g]) for _, _, node in nodes(self.memory) for g in range(len(self.groups))}
        for row, (sequence, end) in enumerate(batch):
            begin = sequence.held.length
            for g, (group, table) in enumerate(zip(self.groups, tables, strict=True)):
                columns = (
                    [0]
                    if group.state
                    else range(begin // 16 - table.first[row], (end - 1) // 16 - table.first[row] + 1)
                )
                for column in columns:
                    block = int(table.blocks[row, column])
                    assert self.memory._pools[g].count(block) == 1, "a block that is written has another owner"
                    assert (g, block) not in kept, "a block of the tree is written"
            self.device.run(tables, row, self.prefixes.of(sequence.key, sequence.tokens[:end]), begin)
        for sequence, end in batch:
            self.memory.commit(sequence.held, sequence.tokens, end)
            assert sequence.held.length == end
            if not self.reuse:
                assert not any(True for _ in nodes(self.memory))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), new=st.integers(0, 40), most=st.sampled_from([STEP, STEP, 7]), close=st.booleans())
    def finish(self, data: st.DataObject, new: int, most: int, close: bool) -> None:
        """One sequence computes its prompt and generates some tokens, if there is room."""
        sequence = data.draw(st.sampled_from(self.running))
        token = data.draw(st.integers(0, 2))
        while sequence.held.length < len(sequence.tokens) or new:
            if sequence.held.length == len(sequence.tokens):
                sequence.tokens.append(token)
                new -= 1
            stop = self.memory.stop(sequence.held, min(len(sequence.tokens), sequence.held.length + most))
            if not self.extend(sequence, stop):
                break
            self.run([(sequence, stop)])
        if close:
            self.texts.append(list(sequence.tokens))
            self.give_way(sequence, again=False)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        sequence = data.draw(st.sampled_from(self.running))
        self.texts.append(list(sequence.tokens))
        self.give_way(sequence, again=False)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def preempt(self, data: st.DataObject) -> None:
        self.give_way(data.draw(st.sampled_from(self.running)), again=True)

    def give_way(self, sequence: Running, *, again: bool) -> None:
        self.running.remove(sequence)
        self.memory.close(sequence.held)
        if again:
            self.begin(sequence.key, sequence.tokens, len(sequence.tokens) - 1)

    @rule()
    def clear(self) -> None:
        self.memory.clear()
        assert all(load.kept == 0 for load in self.memory.load())

    # ---- invariants

    @invariant()
    def all_is_counted(self) -> None:
        if hasattr(self, "memory"):
            copied = not self.memory._copies  # otherwise nodes describe contents that copies have yet to make
            check(self.memory, [s.held for s in self.running], self.device if copied else None, self.prefixes)

    def teardown(self) -> None:
        if not hasattr(self, "memory"):
            return
        for sequence in self.running:
            self.memory.close(sequence.held)
        self.device.copy(self.memory.take_copies())
        check(self.memory, [], self.device, self.prefixes)
        assert all(load.held == 0 for load in self.memory.load())
        self.memory.clear()
        assert all(load.free == load.blocks for load in self.memory.load())
        assert not any(True for _ in nodes(self.memory))
        assert self.memory._tree is None or not self.memory._tree._roots


def machine(groups: tuple[Group, ...], least: tuple[int, ...], most: tuple[int, ...], reuse: bool = True) -> Any:
    """The test case for these groups."""
    name = "Machine" + "".join(f"{'S' if group.state else 'P'}{group.window}" for group in groups)
    case = type(name, (MemoryMachine,), {"groups": groups, "least": least, "most": most, "reuse": reuse})
    test: Any = case.TestCase  # type: ignore[attr-defined]
    test.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
    return test


TestFull = machine((FULL,), (1,), (40,))
TestFullAndWindow = machine((FULL, Group((), 24)), (3, 3), (40, 20))
TestWindow = machine((Group((), 24),), (3,), (30,))
TestNarrowWindow = machine((FULL, Group((), 1), Group((), 9)), (3, 3, 3), (40, 9, 9))
TestState = machine((STATE,), (1,), (8,))
TestEverything = machine((FULL, Group((), 24), Group((), 40), STATE), (6, 6, 6, 1), (60, 30, 30, 9))
TestSeveral = machine((FULL, FULL, STATE, STATE), (4, 5, 1, 2), (40, 30, 8, 6))
TestAlone = machine((FULL, Group((), 24), STATE), (6, 6, 1), (60, 30, 6), reuse=False)
