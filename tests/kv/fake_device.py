"""A fake device that records what was written where, and a check of all reference counts of `Memory`.

What a token's row or a state holds is a number for the whole prefix that it was computed from: equal numbers, equal
prefixes. So whoever reads a wrong block, an old one or another key's sees it.
"""

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence

from sotol.kv.memory import Held, Memory
from sotol.kv.radix import PrefixNode
from sotol.program.memory import Copy, Group
from sotol.program.step import Table

__all__ = ["Device", "Prefixes", "check", "common", "nodes"]

BLOCK = 16


class Prefixes:
    """A unique number for each prefix of each key, from 1 on."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, Hashable], int] = {}

    def of(self, key: Hashable, tokens: Sequence[int]) -> list[int]:
        """For each position, the number of the prefix that ends there."""
        numbers: list[int] = []
        before = self._numbers.setdefault((0, ("key", key)), len(self._numbers) + 1)
        for token in tokens:
            before = self._numbers.setdefault((before, token), len(self._numbers) + 1)
            numbers.append(before)
        return numbers


class Device:
    """The blocks of all groups: 16 numbers in a paged block, one in a state."""

    def __init__(self, groups: Sequence[Group], blocks: Sequence[int]) -> None:
        self.groups = groups
        self.memory = [[[0] * (1 if g.state else BLOCK) for _ in range(n)] for g, n in zip(groups, blocks, strict=True)]

    def copy(self, copies: Sequence[Copy]) -> None:
        """Run copies one after the other."""
        for group, source, to in copies:
            self.memory[group][to] = list(self.memory[group][source])

    def run(self, tables: Sequence[Table], row: int, prefix: Sequence[int], begin: int) -> None:
        """Compute the tokens after the first `begin` of a sequence, and check all blocks that they attend to.

        prefix: the numbers of its tokens, to the last one of this step.
        """
        for group, table, blocks in zip(self.groups, tables, self.memory, strict=True):
            if group.state:
                slot = blocks[table.blocks[row, 0]]
                assert begin == 0 or slot[0] == prefix[begin - 1], "a state of other tokens"
                slot[0] = prefix[-1]
                continue
            first = int(table.first[row])
            for position in range(begin, len(prefix)):
                blocks[table.blocks[row, position // BLOCK - first]][position % BLOCK] = prefix[position]
            oldest = max(0, begin - group.window + 1) if group.window else 0
            for position in range(oldest, len(prefix)):
                assert position // BLOCK >= first, "a window dropped what is seen"
                seen = blocks[table.blocks[row, position // BLOCK - first]][position % BLOCK]
                assert seen == prefix[position], f"position {position} holds another prefix"


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """The length of the common prefix."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def nodes(memory: Memory) -> Iterator[tuple[Hashable, list[int], PrefixNode]]:
    """All nodes of the tree except roots: (key, tokens from the root on, node)."""
    if memory._tree is None:
        return
    for key, root in memory._tree._roots.items():
        todo = [(list[int](), root)]
        while todo:
            before, node = todo.pop()
            for tokens, child in node.children.items():
                assert child.parent is node
                assert child.tokens == tokens
                assert len(tokens) == BLOCK or not child.children
                yield key, [*before, *tokens], child
                todo.append(([*before, *tokens], child))


def check(
    memory: Memory, helds: Sequence[Held], device: Device | None = None, prefixes: Prefixes | None = None
) -> None:
    """Check counts and lists against sequences and nodes; with a device, also the contents of the nodes' blocks."""
    groups, pools, tree = memory._groups, memory._pools, memory._tree
    owners = [Counter(block for held in helds for block in held.blocks[g]) for g in range(len(groups))]
    kept = [0] * len(groups)
    paged = [g for g, group in enumerate(groups) if not group.state]
    full = [g for g in paged if not groups[g].window]
    for key, tokens, node in nodes(memory):
        assert tree is not None
        has = [g for g, block in enumerate(node.blocks) if block is not None]
        assert has or node.promises or node.standing or node.children, "a node of nothing"
        assert not full or set(full) <= set(has) or not has, "blocks without a full block"
        assert (
            not set(full) & set(has)
            or node.parent is None
            or node.parent.parent is None
            or set(full) <= {g for g, block in enumerate(node.parent.blocks) if block is not None}
        ), "a full block behind none"
        for g, block in enumerate(node.blocks):
            if block is None:
                assert node not in tree._idle[g]._cheap or g in full
                continue
            idle = node in tree._idle[g]._cheap or node in tree._idle[g]._dear
            assert idle == (pools[g].count(block) == 1), "idle, but somebody has it, or the other way round"
            kept[g] += idle
            owners[g][block] += 1
            if device is not None and prefixes is not None:
                numbers = prefixes.of(key, tokens)
                expected = numbers[-1:] if groups[g].state else numbers[-len(node.tokens) :]
                assert device.memory[g][block][: len(expected)] == expected, "a node's block holds another prefix"
        copyable = sorted(
            child.tokens for child in node.children.values() if all(child.blocks[g] is not None for g in paged)
        )
        assert node.whole == (copyable if len(paged) == len(groups) else [])
    for g, (pool, count) in enumerate(zip(pools, owners, strict=True)):
        assert [pool.count(block) for block in range(pool.size)] == [count[block] for block in range(pool.size)]
        assert pool.free + len(count) == pool.size
        load = memory.load()[g]
        assert load == (pool.size, pool.free, pool.size - pool.free - kept[g], kept[g])
        assert memory.available()[g] == pool.free + kept[g]
    if tree is not None:
        for g in full:
            if tree.idle(g):
                children = tree._idle[g].oldest().children.values()
                assert all(child.blocks[g] is None for child in children), "a parent is older than its child"
        for root in tree._roots.values():
            assert root.children or root.standing
