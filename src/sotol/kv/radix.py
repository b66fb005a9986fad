"""The prefix cache: a radix tree of runs of 16 tokens, each with the ids of the blocks that hold it.

A tree of shared prefixes that evicts its leaves first is RadixAttention's idea (Zheng et al., 2023, arXiv 2312.07104).
Here a prefix may need more than its full-attention blocks: those of each window's last tokens, and a kept state.

The tree holds one reference to each of its blocks. A block that has no other owner is idle and may be evicted. Only the
methods here change nodes and idle lists; `Memory` calls them, and keeps account of the blocks of running sequences.
"""

from bisect import bisect_left, insort
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sotol.kv.ages import Ages
from sotol.kv.pool import BlockPool
from sotol.program.memory import BLOCK_TOKENS, Group

__all__ = ["Match", "PrefixNode", "Tree"]

Run = tuple[int, ...]
OFTEN = 2  # a node that at least this many sequences reused is evicted late


@dataclass(slots=True, eq=False)
class PrefixNode:
    """16 tokens after those of its parents, and their blocks. A tail is a leaf with fewer than 16 tokens.

    A node has a full-attention block only if all its parents do; without one it has no other blocks either.
    """

    tokens: Run
    parent: "PrefixNode | None"  # None: a root, the empty prefix of a key
    blocks: list[int | None]  # of each group; of a state, a snapshot after the last token
    key: Hashable = None  # only of a root
    children: "dict[Run, PrefixNode]" = field(default_factory=dict)
    whole: list[Run] = field(default_factory=list)  # sorted: the children with a block in every paged group
    uses: int = 0  # how many sequences reused this node
    promises: int = 0  # running sequences that are about to compute it
    standing: int = 0  # running sequences whose last full block it is
    keeper: object = None  # the sequence whose state is kept here, while no other has used it


class Match(NamedTuple):
    """The cached prefix of some tokens."""

    path: list[PrefixNode]  # the longest prefix that can be used
    part: PrefixNode | None  # a child of the last node that begins with some of the next tokens
    common: int  # how many of them
    coming: int  # length of the prefix that will be usable once running sequences have computed theirs


class Tree:
    """One tree for each key, over the block pools of all groups."""

    def __init__(self, groups: Sequence[Group], pools: Sequence[BlockPool]) -> None:
        self._pools = pools
        self._full = [g for g, group in enumerate(groups) if not group.state and not group.window]
        self._windows = [(g, group.window) for g, group in enumerate(groups) if group.window]
        self._states = [g for g, group in enumerate(groups) if group.state]
        self._paged = [g for g, group in enumerate(groups) if not group.state]
        self._ends = [g for g, group in enumerate(groups) if not group.window]  # the last node of a prefix needs these
        self._roots: dict[Hashable, PrefixNode] = {}
        full, states = Ages[PrefixNode](), Ages[PrefixNode]()
        # The full-attention blocks of a node are evicted together, and so are its states.
        self._idle = [states if group.state else Ages[PrefixNode]() if group.window else full for group in groups]
        everything = list(range(len(groups)))
        self._together = [
            self._states if group.state else [g] if group.window else everything for g, group in enumerate(groups)
        ]

    def idle(self, group: int) -> int:
        """How many blocks of a group could be evicted."""
        return len(self._idle[group])

    # ---- look-up

    def find(self, key: Hashable, tokens: Sequence[int], most: int) -> Match:
        """The longest usable prefix of tokens[:most]; changes nothing. Takes time linear in the prefix's length."""
        root = self._roots.get(key)
        if root is None:
            return Match([], None, 0, 0)
        path: list[PrefixNode] = []
        usable = coming = 0
        runs = [0] * len(self._windows)  # of each window: how many nodes in a row have a block, up to this one
        node: PrefixNode | None = root
        for end in range(BLOCK_TOKENS, min(len(tokens), most + BLOCK_TOKENS - 1) + 1, BLOCK_TOKENS):
            assert node is not None
            node = node.children.get(tuple(tokens[end - BLOCK_TOKENS : end]))
            if node is None:
                break
            path.append(node)
            if node.promises and (end <= most or not self._states):
                coming = min(end, most)
            if end <= most and self._usable(node, end, runs):
                usable = len(path)
        del path[usable:]
        part, common = None, 0
        if not self._states:
            begin = usable * BLOCK_TOKENS
            part, common = _best_part(
                path[-1] if path else root, tuple(tokens[begin : min(most, begin + BLOCK_TOKENS)])
            )
        return Match(path, part, common, coming)

    def _usable(self, node: PrefixNode, end: int, runs: list[int]) -> bool:
        """Whether a prefix of `end` tokens that ends with this node can be reused. Updates runs."""
        blocks, usable = node.blocks, True
        for i, (g, window) in enumerate(self._windows):
            runs[i] = 0 if blocks[g] is None else runs[i] + 1
            usable = usable and runs[i] >= end // BLOCK_TOKENS - max(0, end - window + 1) // BLOCK_TOKENS
        return usable and all(blocks[g] is not None for g in self._ends)

    # ---- calls for running sequences

    def root(self, key: Hashable) -> PrefixNode:
        """The root of a key: the empty prefix."""
        if key not in self._roots:
            self._roots[key] = PrefixNode((), None, [None] * len(self._pools), key)
        return self._roots[key]

    def child(self, node: PrefixNode, tokens: Run) -> PrefixNode:
        """The child for these tokens, made if needed. The caller gives it a block or a promise, or stands on it."""
        child = node.children.get(tokens)
        if child is None:
            child = node.children[tokens] = PrefixNode(tokens, node, [None] * len(self._pools))
        return child

    def stand(self, old: PrefixNode | None, new: PrefixNode | None) -> None:
        """Move a running sequence from one node to another. The node where it stands and its parents stay."""
        if new is not None:
            new.standing += 1
        if old is not None:
            old.standing -= 1
            self._prune(old)

    def promise(self, node: PrefixNode) -> None:
        """A running sequence will compute this node and its parents."""
        node.promises += 1

    def withdraw(self, node: PrefixNode) -> None:
        """Take a promise back: the node is computed, or its sequence has ended."""
        node.promises -= 1
        self._prune(node)

    def enter(self, node: PrefixNode, group: int, block: int) -> int:
        """Share a sequence's block with the tree; if the node has a block already, the sequence uses that one instead.

        Returns the block that the sequence has now.
        """
        known = node.blocks[group]
        if known is None:
            self._pools[group].share(block)
            self._set(node, group, block)
            return block
        self._pools[group].release(block)
        return self.use(node, group)

    def use(self, node: PrefixNode, group: int) -> int:
        """Give a running sequence a reference to a node's block; returns the block."""
        block = node.blocks[group]
        assert block is not None
        self._pools[group].share(block)
        self._idle[group].discard(node)
        return block

    def leave(self, node: PrefixNode, group: int) -> None:
        """Take such a reference back. Leave children before their parents: then they are older, and evicted first."""
        block = node.blocks[group]
        assert block is not None
        if self._pools[group].release(block) == 1:
            self._idle[group].add(node, dear=node.uses >= OFTEN and group in self._full)

    def touch(self, node: PrefixNode) -> None:
        """Mark a node's idle blocks as the most recently used."""
        for idle in self._idle:
            idle.touch(node)

    def count_use(self, path: Sequence[PrefixNode]) -> None:
        """Count that a sequence reused these nodes."""
        for node in path:
            node.uses += 1

    # ---- tails

    def drop_tails(self, node: PrefixNode) -> None:
        """Drop tails that are the beginning of a node: a part of the node's block can be copied just as well."""
        parent, tokens = node.parent, node.tokens
        assert parent is not None
        if len(parent.children) > 1:
            for length in range(1, len(tokens)):
                tail = parent.children.get(tokens[:length])
                if tail is not None:
                    self._drop(tail, self._paged)

    def tail(self, node: PrefixNode, tokens: Run) -> PrefixNode | None:
        """A child for fewer than 16 tokens; None if another child already begins with all of them."""
        place = bisect_left(node.whole, tokens)
        if place < len(node.whole) and node.whole[place][: len(tokens)] == tokens:
            return None
        return self.child(node, tokens)

    # ---- states

    def has_state(self, node: PrefixNode) -> bool:
        """Whether a state is kept after this node."""
        return all(node.blocks[g] is not None for g in self._states)

    def keep_state(self, node: PrefixNode, group: int, block: int, keeper: object) -> None:
        """Keep a state after a node, in a block that was allocated for it. The block is the tree's, and idle."""
        node.keeper = keeper
        self._set(node, group, block)
        self._idle[group].add(node)

    def share_state(self, node: PrefixNode) -> None:
        """Another sequence uses this node's state, or its keeper has ended: it now stays until it is evicted."""
        node.keeper = None

    def drop_state(self, node: PrefixNode, keeper: object) -> None:
        """Drop a state that this sequence kept, unless others have used it."""
        if node.keeper is keeper:
            self._drop(node, self._states)

    # ---- eviction

    def evict(self, group: int) -> None:
        """Free at least one idle block of a group; KeyError if there is none."""
        self._drop(self._idle[group].oldest(), self._together[group])

    def clear(self) -> None:
        """Evict all idle blocks."""
        for group, idle in enumerate(self._idle):
            while len(idle):
                self.evict(group)

    def _drop(self, node: PrefixNode, groups: Sequence[int]) -> None:
        """Free a node's idle blocks in some groups."""
        if node.parent is not None and self._copyable(node) and any(g in groups for g in self._paged):
            whole = node.parent.whole
            del whole[bisect_left(whole, node.tokens)]
        for g in groups:
            block = node.blocks[g]
            if block is not None:
                self._pools[g].release(block)
                self._idle[g].discard(node)
                node.blocks[g] = None
        self._prune(node)

    def _set(self, node: PrefixNode, group: int, block: int) -> None:
        node.blocks[group] = block
        if node.parent is not None and group in self._paged and self._copyable(node):
            insort(node.parent.whole, node.tokens)

    def _copyable(self, node: PrefixNode) -> bool:
        """Whether a part of a node can be reused by copying: never with states, which exist only at its end."""
        return not self._states and all(node.blocks[g] is not None for g in self._paged)

    def _prune(self, node: PrefixNode) -> None:
        """Remove a node that nothing needs any more, and then its parents likewise."""
        while not (node.children or node.promises or node.standing or any(b is not None for b in node.blocks)):
            parent = node.parent
            if parent is None:
                self._roots.pop(node.key, None)
                return
            del parent.children[node.tokens]
            node = parent


def _best_part(node: PrefixNode, tokens: Run) -> tuple[PrefixNode | None, int]:
    """The child that has most of the next tokens in common, and how many.

    In a sorted list, a neighbour has the longest common prefix, so this is quick for nodes with thousands of children.
    """
    whole = node.whole
    best, common = None, 0
    place = bisect_left(whole, tokens)
    for key in whole[max(0, place - 1) : place + 1]:
        length = next(
            (i for i, (a, b) in enumerate(zip(key, tokens, strict=False)) if a != b), min(len(key), len(tokens))
        )
        if length > common:
            best, common = node.children[key], length
    return best, common
