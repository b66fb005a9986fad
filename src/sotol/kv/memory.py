"""Block management: which blocks each running sequence has in each group of caches. The scheduler's only interface.

It handles block ids only: backends own the memory and run the copies that are requested here. One thread calls it, for
each sequence in this order: `open`; then for each step `stop`, `extend`, `tables`, `take_copies`, the step itself,
`commit`; at the end `close`. Only these calls change a `Held`. Copies run in the order of their requests and before the
next step, so a copy may read a block that has been allocated to another sequence since.
"""

from array import array
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from sotol.kv.pool import BlockPool
from sotol.kv.radix import PrefixNode, Tree
from sotol.program.memory import BLOCK_TOKENS, Copy, Group
from sotol.program.step import Table

__all__ = ["GroupLoad", "Held", "Memory"]

STATE_TOKENS = 512  # a snapshot of the state is kept every 512 prompt tokens; a multiple of BLOCK_TOKENS
WORTH_WAITING = 64  # a sequence waits if another is about to compute at least this many tokens of its prefix


class GroupLoad(NamedTuple):
    """How many blocks of a group are in use, for monitoring; blocks = free + held + kept."""

    blocks: int
    free: int
    held: int  # owned by running sequences
    kept: int  # owned by the prefix tree alone: evicted when a sequence needs a block


@dataclass(slots=True, eq=False)
class Held:
    """What one running sequence has in memory. Callers may read `length` and `reused`; the rest is `Memory`'s."""

    length: int = 0  # tokens in memory
    reused: int = 0  # how many of these were in the prefix cache at `open`
    room: int = 0  # tokens that its blocks have room for
    blocks: "list[array[int]]" = field(default_factory=list)  # its block table in each group, from column `first` on
    first: list[int] = field(default_factory=list)  # of each group: how many blocks its window has let go of
    root: PrefixNode | None = None
    path: list[PrefixNode] = field(default_factory=list)  # the tree's nodes of its full blocks
    tail: tuple[int, ...] = ()  # its tokens after the last full block
    coming: list[tuple[int, PrefixNode]] = field(default_factory=list)  # nodes to compute, with their ends; last first
    prompt: int = 0  # the length at which the state of its prompt is kept
    kept: PrefixNode | None = None  # where a state was last kept for it
    counted: bool = False  # whether the tree has counted its use of the reused prefix
    closed: bool = False


class Memory:
    """The block pools of all groups, the prefix tree, and which sequence owns which blocks."""

    def __init__(self, groups: Sequence[Group], blocks: Sequence[int], *, step_tokens: int, reuse: bool = True) -> None:
        """blocks: how many each group's pool has. step_tokens: the most tokens of one sequence in a step.

        reuse: whether sequences share the blocks of common prefixes; without it, each computes its own.
        """
        if len(groups) != len(blocks):
            raise ValueError(f"memory of {len(groups)} groups needs as many counts of blocks, not {len(blocks)}")
        if step_tokens < 1:
            raise ValueError(f"step_tokens must be 1 or more, not {step_tokens}")
        self._groups = tuple(groups)
        self._pools = [BlockPool(count) for count in blocks]
        self._tree = Tree(groups, self._pools) if reuse and groups else None
        self._step_tokens = step_tokens
        self._paged = [g for g, group in enumerate(groups) if not group.state]
        self._windows = [(g, group.window) for g, group in enumerate(groups) if group.window]
        self._states = [g for g, group in enumerate(groups) if group.state]
        self._copies: list[Copy] = []

    # ---- a sequence

    def open(self, tokens: Sequence[int], most: int, key: Hashable = ()) -> Held | None:
        """Admit a sequence: it shares the blocks of the longest cached prefix of tokens[:most], `Held.length` tokens.

        None: another running sequence is about to compute a much longer prefix of these tokens; try again after a
        step. key: whatever else the contents of a block depend on (an adapter, images): only sequences with equal keys
        share. Pass most = len(tokens) - 1 if the last token must be run because its result is wanted.
        """
        if not 0 <= most <= len(tokens):
            raise ValueError(f"most must be in 0..{len(tokens)}, the number of tokens, not {most}")
        held = Held(blocks=[array("i") for _ in self._groups], first=[0] * len(self._groups))
        tree = self._tree
        if tree is None:
            return held
        match = tree.find(key, tokens, most)
        if match.coming - len(match.path) * BLOCK_TOKENS - match.common >= WORTH_WAITING:
            return None
        held.root = tree.root(key)
        # The last token always runs, so a state after it would be of no use to a sequence with the same tokens.
        held.prompt = max(0, len(tokens) - 1) // BLOCK_TOKENS * BLOCK_TOKENS
        held.path = match.path
        tree.stand(None, _last(held))
        self._reuse(tree, held)
        if match.part is not None and self._can_take(self._paged):
            self._copy_part(tree, held, match.part, tokens[held.length : held.length + match.common])
        held.reused = held.length
        self._promise(tree, held, tokens)
        return held

    def extend(self, held: Held, end: int) -> bool:
        """Allocate room for the tokens held.length .. end in every group, evicting blocks of the tree if needed.

        False: there are too few blocks, and nothing has changed, except that blocks before the windows were released.
        """
        _refuse_closed(held)
        for g, window in self._windows:
            column = (held.length - window + 1) // BLOCK_TOKENS
            if column > held.first[g]:
                self._leave_behind(held, g, column)
        if end <= held.room:
            return True
        wanted = self._wanted(held, end)
        if any(count > have for count, have in zip(wanted, self.available(), strict=True)):
            return False
        for g, count in enumerate(wanted):
            if count:
                held.blocks[g].extend(self._take(g, count))
        held.room = -(-end // BLOCK_TOKENS) * BLOCK_TOKENS
        return True

    def stop(self, held: Held, end: int) -> int:
        """Where a step that would compute held.length .. end must end, so that a snapshot of the state can be kept.

        Greater than held.length, at most `end`; always `end` for programs without states.
        """
        if not self._states or self._tree is None:
            return end
        if held.length < held.prompt:
            return min(end, held.prompt, (held.length // STATE_TOKENS + 1) * STATE_TOKENS)
        return min(end, (held.length // BLOCK_TOKENS + 1) * BLOCK_TOKENS)

    def commit(self, held: Held, tokens: Sequence[int], length: int) -> None:
        """A step has run: tokens[:length] are in memory. Full blocks enter the tree, where other sequences find them.

        ValueError for a length beyond the allocated room.
        """
        _refuse_closed(held)
        if not held.length <= length <= min(held.room, len(tokens)):
            raise ValueError(f"can't commit {length} of {len(tokens)} tokens: {held.length} are, {held.room} have room")
        held.length = length
        if self._tree is None:
            return
        if not held.counted:
            held.counted = True
            self._tree.count_use(held.path)
        whole = length // BLOCK_TOKENS
        if whole > len(held.path):
            self._enter_all(self._tree, held, tokens, whole)
        if not self._states:
            held.tail = tuple(tokens[whole * BLOCK_TOKENS : length])
        elif length == whole * BLOCK_TOKENS and whole:
            self._keep_state(self._tree, held)

    def close(self, held: Held) -> None:
        """The sequence ends or is preempted. Its blocks stay in the tree until they are evicted."""
        _refuse_closed(held)
        held.closed = True
        if self._tree is not None:
            self._leave_tree(self._tree, held)
        else:
            for g, row in enumerate(held.blocks):
                self._release(g, row)

    # ---- a step

    def tables(self, helds: Sequence[Held]) -> tuple[Table, ...]:
        """The block tables of a step with these sequences, one for each group; shorter rows are padded with zeros."""
        tables = []
        for g in range(len(self._groups)):
            rows = [held.blocks[g] for held in helds]
            columns = max(map(len, rows), default=0) or 1
            data = b"".join([row.tobytes().ljust(columns * row.itemsize, b"\0") for row in rows])
            blocks = np.frombuffer(bytearray(data), np.int32).reshape(len(rows), columns)
            tables.append(Table(blocks, np.array([held.first[g] for held in helds], np.int32)))
        return tuple(tables)

    def take_copies(self) -> list[Copy]:
        """The copies that must run, in this order, before the next step. Each is returned once."""
        copies, self._copies = self._copies, []
        return copies

    # ---- how much there is

    def needs(self, held: Held, end: int) -> tuple[int, ...]:
        """Blocks of each group that the sequence would still allocate until it has `end` tokens, step by step.

        In a group with a window, no more than one step attends to: earlier blocks are released on the way.
        """
        needs = self._wanted(held, end)
        for g, window in self._windows:
            behind = max(0, (held.length - window + 1) // BLOCK_TOKENS - held.first[g])
            # A step attends to window + step_tokens - 1 positions, which lie in at most this many blocks.
            most = (window + self._step_tokens - 3) // BLOCK_TOKENS + 2
            needs[g] = max(0, min(needs[g], most - (len(held.blocks[g]) - behind)))
        return tuple(needs)

    def available(self) -> tuple[int, ...]:
        """Blocks of each group that could be allocated: free, or owned by the tree alone."""
        if self._tree is None:
            return tuple(pool.free for pool in self._pools)
        return tuple(pool.free + self._tree.idle(g) for g, pool in enumerate(self._pools))

    def load(self) -> tuple[GroupLoad, ...]:
        """How full each group is."""
        loads = []
        for pool, available in zip(self._pools, self.available(), strict=True):
            loads.append(GroupLoad(pool.size, pool.free, pool.size - available, available - pool.free))
        return tuple(loads)

    def clear(self) -> None:
        """Evict all blocks that no running sequence owns.

        After a copy failed, the contents of blocks are unknown: close all sequences, then call this.
        """
        if self._tree is not None:
            self._tree.clear()

    # ---- inside

    def _can_take(self, groups: Sequence[int]) -> bool:
        """Whether each of the groups has a block available."""
        available = self.available()
        return all(available[g] for g in groups)

    def _take(self, g: int, count: int) -> list[int]:
        """Allocate blocks that are available, evicting from the tree as needed."""
        while self._pools[g].free < count:
            assert self._tree is not None
            self._tree.evict(g)
        return self._pools[g].take(count)

    def _wanted(self, held: Held, end: int) -> list[int]:
        """How many blocks of each group the sequence lacks for `end` tokens."""
        columns = -(-end // BLOCK_TOKENS)
        return [
            max(0, (1 if group.state else columns - first) - len(row))
            for group, first, row in zip(self._groups, held.first, held.blocks, strict=True)
        ]

    def _release(self, g: int, blocks: Iterable[int]) -> None:
        """Give back blocks that are not in the tree."""
        for block in blocks:
            self._pools[g].release(block)

    def _leave_behind(self, held: Held, g: int, column: int) -> None:
        """Release the blocks before a column: the window has passed them."""
        row, first = held.blocks[g], held.first[g]
        if self._tree is None:
            self._release(g, row[: column - first])
        else:
            for node in held.path[first:column]:
                self._tree.leave(node, g)
        del row[: column - first]
        held.first[g] = column

    def _leave_tree(self, tree: Tree, held: Held) -> None:
        """Release a sequence's blocks; the full ones and the last, partial one stay in the tree until evicted."""
        for _, node in held.coming:
            tree.withdraw(node)
        if held.kept is not None:
            tree.share_state(held.kept)  # so that the node no longer references `held`
        last = _last(held)
        nodes = list(held.path)
        tail = tree.tail(last, held.tail) if held.tail else None
        if tail is not None:
            self._enter(tree, held, tail, len(nodes))
            nodes.append(tail)
        for g in self._states:
            self._release(g, held.blocks[g])
        for g in self._paged:
            self._release(g, held.blocks[g][len(nodes) - held.first[g] :])
        for column in range(len(nodes) - 1, -1, -1):
            for g in self._paged:
                if column >= held.first[g]:
                    tree.leave(nodes[column], g)
        tree.stand(last, None)

    def _reuse(self, tree: Tree, held: Held) -> None:
        """Share the blocks of the nodes on the sequence's path, and copy the state of the last one."""
        if not held.path:
            return
        held.length = held.room = len(held.path) * BLOCK_TOKENS
        for g in self._paged:
            window = self._groups[g].window
            held.first[g] = max(0, held.length - window + 1) // BLOCK_TOKENS if window else 0
            held.blocks[g].extend([tree.use(node, g) for node in held.path[held.first[g] :]])
        tree.share_state(held.path[-1])
        self._copy(tree, held, held.path[-1], self._states)

    def _copy_part(self, tree: Tree, held: Held, part: PrefixNode, tokens: Sequence[int]) -> None:
        """Copy on write: a node begins with the sequence's next tokens, so it gets a copy of that block to go on in."""
        self._copy(tree, held, part, self._paged)
        held.tail = tuple(tokens)
        held.room += BLOCK_TOKENS
        held.length += len(tokens)

    def _copy(self, tree: Tree, held: Held, node: PrefixNode, groups: Sequence[int]) -> None:
        """Give the sequence copies of a node's blocks in some groups, each of which has a block available.

        If the only available block is the node's own, which is idle, the sequence takes it over without a copy.
        """
        tree.touch(node)
        sources = [node.blocks[g] for g in groups]  # read first: allocating may evict this very node
        for g, source in zip(groups, sources, strict=True):
            assert source is not None
            (block,) = self._take(g, 1)
            held.blocks[g].append(block)
            if block != source:
                self._copies.append(Copy(g, source, block))

    def _promise(self, tree: Tree, held: Held, tokens: Sequence[int]) -> None:
        """Mark the nodes of the prompt that the sequence is about to compute, so that others can wait for them."""
        node, known = _last(held), len(held.path) * BLOCK_TOKENS
        last = held.prompt if self._states else len(tokens)
        for end in range(known + BLOCK_TOKENS, last + 1, BLOCK_TOKENS):
            node = tree.child(node, tuple(tokens[end - BLOCK_TOKENS : end]))
            if not self._states or end % STATE_TOKENS == 0 or end == held.prompt:
                tree.promise(node)
                held.coming.append((end, node))
        held.coming.reverse()

    def _enter_all(self, tree: Tree, held: Held, tokens: Sequence[int], whole: int) -> None:
        """The first `whole` blocks are computed: those that are new to the tree enter it."""
        old = node = _last(held)
        for column in range(len(held.path), whole):
            node = tree.child(node, tuple(tokens[column * BLOCK_TOKENS : (column + 1) * BLOCK_TOKENS]))
            self._enter(tree, held, node, column)
            held.path.append(node)
        tree.stand(old, node)
        while held.coming and held.coming[-1][0] <= held.length:
            tree.withdraw(held.coming.pop()[1])

    def _enter(self, tree: Tree, held: Held, node: PrefixNode, column: int) -> None:
        """Share the sequence's blocks of a column with a node; where the node has its own, the sequence takes those."""
        tree.drop_tails(node)
        for g in self._paged:
            row, i = held.blocks[g], column - held.first[g]
            row[i] = tree.enter(node, g, row[i])

    def _keep_state(self, tree: Tree, held: Held) -> None:
        """After a full block: keep a snapshot of the state there, if others could use it and there is room."""
        node, generated = held.path[-1], held.length > held.prompt
        if generated and held.kept is not None:
            tree.drop_state(held.kept, held)  # only the latest one of an answer is kept; those of prompts stay
            held.kept = None
        if not (generated or held.length == held.prompt or held.length % STATE_TOKENS == 0):
            return
        if tree.has_state(node):
            tree.touch(node)
        elif self._can_take(self._states):
            for g in self._states:
                (block,) = self._take(g, 1)
                self._copies.append(Copy(g, held.blocks[g][0], block))
                tree.keep_state(node, g, block, held if generated else None)
            held.kept = node


def _refuse_closed(held: Held) -> None:
    if held.closed:
        raise ValueError("the sequence is closed: open it again")


def _last(held: Held) -> PrefixNode:
    """The node of a sequence's last full block."""
    node = held.path[-1] if held.path else held.root
    assert node is not None
    return node
