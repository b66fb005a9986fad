"""Work for measurements: token ids that are the same everywhere, as steps of one sequence. Nothing is sampled."""

from collections.abc import Sequence

import numpy as np

from sotol.program.step import BLOCK_TOKENS, Limits, Step

__all__ = ["decode_steps", "prompt_steps", "pseudo_random_ids"]

MARGIN = 500  # ids at both ends of a vocabulary where control tokens are; small vocabularies are used whole


def pseudo_random_ids(count: int, vocabulary: int, seed: int = 1) -> list[int]:
    """`count` ids by Knuth's linear congruential generator for MMIX, so that other engines can be given the same."""
    margin = MARGIN if vocabulary > 4 * MARGIN else 0
    state, ids = seed, list[int]()
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        ids.append((state >> 33) % (vocabulary - 2 * margin) + margin)
    return ids


def prompt_steps(ids: Sequence[int], limits: Limits) -> list[Step]:
    """Steps that take a prompt into an empty cache, each as large as the limits allow, logits for its last token."""
    chunk = limits.tokens
    return [_step(ids[at : at + chunk], at) for at in range(0, len(ids), chunk)]


def decode_steps(ids: Sequence[int], position: int) -> list[Step]:
    """A step for each id, from a position on."""
    return [_step([token], position + i) for i, token in enumerate(ids)]


def _step(ids: Sequence[int], position: int) -> Step:
    count = len(ids)
    end = position + count
    tokens, positions, starts, rows = (
        np.array(x, np.int32) for x in (ids, range(position, end), (0, count), (count - 1,))
    )
    blocks = np.arange(-(-end // BLOCK_TOKENS), dtype=np.int32)[None]  # [1, B]: nobody else uses the cache
    return Step(tokens, positions, starts, blocks, rows)
