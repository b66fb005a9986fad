"""A Step: one ragged batch through a Program. Prefill, decode and any mixture of them have the same form.

T tokens of S sequences, R rows with results, B columns of a block table.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from sotol.arrays import Int32Array
from sotol.program.memory import BLOCK_TOKENS, Group

__all__ = ["BLOCK_TOKENS", "DIMS", "Limits", "Step", "Table"]

DIMS = ("T", "S", "R")  # the dimensions that differ from step to step


class Limits(NamedTuple):
    """The largest step that a runner accepts, and how many blocks it has."""

    tokens: int  # T
    sequences: int  # S
    rows: int  # R
    context: int  # tokens of one sequence, prompt and answer
    blocks: tuple[int, ...]  # of each group of caches

    def of(self, dim: str) -> int:
        """The largest T, S or R."""
        return {"T": self.tokens, "S": self.sequences, "R": self.rows}[dim]

    def check_groups(self, groups: Sequence[Group]) -> None:
        """ValueError unless `blocks` has one number for each group."""
        if len(self.blocks) != len(groups):
            raise ValueError(f"limits for {len(self.blocks)} groups of caches: the program has {len(groups)}")

    def check_block(self, group: int, block: int) -> None:
        """ValueError unless the block exists."""
        if not (0 <= group < len(self.blocks) and 0 <= block < self.blocks[group]):
            raise ValueError(f"there is no block {block} of group {group}")


class Table(NamedTuple):
    """The block table of a group: position p of sequence s is in block blocks[s, p // 16 - first[s]].

    In a group of states, blocks[s, 0] is the block of sequence s.
    """

    blocks: Int32Array  # [S, B]
    first: Int32Array  # [S] how many blocks come before column 0: a sliding window no longer needs them


class Step(NamedTuple):
    """Contiguous int32 arrays, made by the scheduler and read by kernels."""

    tokens: Int32Array  # [T] ids
    positions: Int32Array  # [T] in the sequence, from 0; ascending by one within a step
    starts: Int32Array  # [S + 1] the tokens of sequence s are starts[s] : starts[s + 1]
    tables: tuple[Table, ...]  # one block table for each of the program's groups
    logit_rows: Int32Array  # [R] indices of the tokens whose results are wanted

    def count(self, dim: str) -> int:
        """T, S or R of this step."""
        return {"T": len(self.tokens), "S": len(self.starts) - 1, "R": len(self.logit_rows)}[dim]

    def slots(self, group: int) -> list[int]:
        """[T] where each token's keys and values go in a paged group: block * 16 + index in the block."""
        slots: list[int] = []
        positions, starts, table = self.positions.tolist(), self.starts.tolist(), self.tables[group]
        first = table.first.tolist()
        for s, (begin, end) in enumerate(pairwise(starts)):
            column = positions[begin] // BLOCK_TOKENS - first[s]
            blocks = table.blocks[s, column : positions[end - 1] // BLOCK_TOKENS - first[s] + 1].tolist()
            base = (column + first[s]) * BLOCK_TOKENS
            slots += [
                blocks[(p - base) // BLOCK_TOKENS] * BLOCK_TOKENS + p % BLOCK_TOKENS for p in positions[begin:end]
            ]
        return slots

    def check(self, limits: Limits, groups: Sequence[Group], vocabulary: int) -> None:
        """ValueError unless every index is within the limits: kernels check no bounds."""
        # Lists, because NumPy is slower for the few numbers of most steps, and each step waits for this check.
        tokens, positions, starts, rows = (
            x.tolist() for x in (self.tokens, self.positions, self.starts, self.logit_rows)
        )
        t, s, sequences = len(tokens), len(starts) - 1, list(pairwise(starts))
        if not (0 < t <= limits.tokens and 0 < s <= limits.sequences and 0 < len(rows) <= limits.rows):
            raise ValueError(f"a step of {t} tokens, {s} sequences, {len(rows)} rows exceeds {limits}")
        if len(positions) != t or starts[0] != 0 or starts[-1] != t or any(end <= begin for begin, end in sequences):
            raise ValueError("a step's sequences must cover its tokens, in order, none empty")
        if min(tokens) < 0 or max(tokens) >= vocabulary:
            raise ValueError(f"token ids must be in 0..{vocabulary - 1}")
        if min(positions) < 0 or max(positions) >= limits.context:
            raise ValueError(f"positions must be in 0..{limits.context - 1}")
        for begin, end in sequences:  # the first token of a sequence may have any position: the rest is cached
            if positions[begin:end] != list(range(positions[begin], positions[begin] + end - begin)):
                raise ValueError("positions must ascend by one within a sequence")
        if len(self.tables) != len(groups):
            raise ValueError(f"a step for {len(groups)} groups of caches has {len(self.tables)} tables")
        bounds = [(positions[begin], positions[end - 1]) for begin, end in sequences]
        for table, group, blocks in zip(self.tables, groups, limits.blocks, strict=True):
            _check_table(table, group, blocks, bounds)
        if min(rows) < 0 or max(rows) >= t:
            raise ValueError(f"logit rows must be in 0..{t - 1}")


def _check_table(table: Table, group: Group, blocks: int, bounds: Sequence[tuple[int, int]]) -> None:
    """ValueError unless a block table is complete. bounds: first and last position of each sequence."""
    if len(table.blocks) != len(bounds) or len(table.first) != len(bounds):
        raise ValueError(f"a table of blocks has {len(table.blocks)} rows for {len(bounds)} sequences")
    if table.blocks.size == 0 or table.blocks.min() < 0 or table.blocks.max() >= blocks:
        raise ValueError(f"block ids must be in 0..{blocks - 1}")
    if group.state:
        return
    columns = table.blocks.shape[1]
    for first, (begin, last) in zip(table.first.tolist(), bounds, strict=True):
        seen = max(begin - group.window + 1, 0) if group.window else 0
        if not 0 <= first <= seen // BLOCK_TOKENS or last // BLOCK_TOKENS - first >= columns:
            raise ValueError("a table of blocks does not have all that its sequence sees")
