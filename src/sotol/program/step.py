"""A Step: one ragged batch through a Program. Prefill, decode and any mixture of them are the same thing.

T tokens of S sequences, R rows with logits, B blocks of the longest block table.
"""

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
        sequence = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        blocks = self.blocks[sequence, self.positions // BLOCK_TOKENS]
        return (blocks * BLOCK_TOKENS + self.positions % BLOCK_TOKENS).astype(np.int32)

    def check(self, limits: Limits, vocabulary: int) -> None:
        """Raise ValueError unless every index stays inside what was compiled: kernels check no bounds."""
        t, s = len(self.tokens), len(self.starts) - 1
        if not (0 < t <= limits.tokens and 0 < s <= limits.sequences and 0 < len(self.logit_rows) <= limits.rows):
            raise ValueError(f"a step of {t} tokens, {s} sequences, {len(self.logit_rows)} rows exceeds {limits}")
        if len(self.positions) != t or self.starts[0] != 0 or self.starts[-1] != t or (np.diff(self.starts) < 1).any():
            raise ValueError("a step's sequences must cover its tokens, in order, none empty")
        if self.tokens.min() < 0 or self.tokens.max() >= vocabulary:
            raise ValueError(f"token ids must be in 0..{vocabulary - 1}")
        if self.positions.min() < 0 or self.positions.max() >= limits.context:
            raise ValueError(f"positions must be in 0..{limits.context - 1}")
        inside = np.ones(t, bool)
        inside[self.starts[:-1]] = False  # the first token of each sequence may have any position
        if (np.diff(self.positions, prepend=0)[inside] != 1).any():
            raise ValueError("positions must ascend by one within a sequence")
        ends = self.positions[self.starts[1:] - 1]
        if self.blocks.shape[0] != s or (ends // BLOCK_TOKENS).max() >= self.blocks.shape[1]:
            raise ValueError("a block table is too short for its sequence")
        if self.blocks.min() < 0 or self.blocks.max() >= limits.blocks:
            raise ValueError(f"block ids must be in 0..{limits.blocks - 1}")
        if self.logit_rows.min() < 0 or self.logit_rows.max() >= t:
            raise ValueError(f"logit rows must be in 0..{t - 1}")
