"""A Step: one ragged batch through a Program. Prefill, decode and any mixture of them are the same thing.

T tokens of S sequences, R rows with logits, B blocks of the longest block table.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["BLOCK_TOKENS", "Ids", "Limits", "Step"]

Ids = npt.NDArray[np.int32]
BLOCK_TOKENS = 16  # tokens of a cache block


class Limits(NamedTuple):
    """The largest step that a compiled program must take, and its cache."""

    tokens: int  # T
    sequences: int  # S
    rows: int  # R
    context: int  # tokens of one sequence
    blocks: int  # of the cache, each BLOCK_TOKENS long


class Step(NamedTuple):
    """Plain arrays, int32 and contiguous, made by the scheduler, read by kernels."""

    tokens: Ids  # [T]
    positions: Ids  # [T] from 0; ascending by one within a sequence
    starts: Ids  # [S + 1] the tokens of sequence s are starts[s] : starts[s + 1]
    blocks: Ids  # [S, B] block tables; position p of a sequence is in block p // 16, at p % 16
    logit_rows: Ids  # [R] tokens that want logits

    @property
    def slots(self) -> Ids:
        """[T] where each token's K and V go: block * 16 + place in the block."""
        slots: list[int] = []
        positions, starts = self.positions.tolist(), self.starts.tolist()
        for blocks, (begin, end) in zip(self.blocks, pairwise(starts), strict=True):
            first = positions[begin] // BLOCK_TOKENS
            table = blocks[first : positions[end - 1] // BLOCK_TOKENS + 1].tolist()
            slots += [table[p // BLOCK_TOKENS - first] * BLOCK_TOKENS + p % BLOCK_TOKENS for p in positions[begin:end]]
        return np.array(slots, np.int32)

    def check(self, limits: Limits, vocabulary: int) -> None:
        """Raise ValueError unless every index stays inside what was compiled: kernels check no bounds."""
        # Lists: arrays take longer for the few numbers of most steps, and a step waits for this.
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
        for begin, end in sequences:  # the first token of each may have any position
            if positions[begin:end] != list(range(positions[begin], positions[begin] + end - begin)):
                raise ValueError("positions must ascend by one within a sequence")
        last = max(positions[end - 1] for _, end in sequences)
        if len(self.blocks) != s or last // BLOCK_TOKENS >= self.blocks.shape[1]:
            raise ValueError("a block table is too short for its sequence")
        if self.blocks.min() < 0 or self.blocks.max() >= limits.blocks:
            raise ValueError(f"block ids must be in 0..{limits.blocks - 1}")
        if min(rows) < 0 or max(rows) >= t:
            raise ValueError(f"logit rows must be in 0..{t - 1}")
