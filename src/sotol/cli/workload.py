"""Work for measurements: token ids that are the same everywhere, as steps of one sequence. Nothing is sampled."""

from collections.abc import Sequence

import numpy as np

from sotol.program.memory import BLOCK_TOKENS, Group
from sotol.program.runner import Runner
from sotol.program.step import Step, Table

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


def prompt_steps(ids: Sequence[int], runner: Runner) -> list[Step]:
    """Steps that take a prompt into empty memory, each as large as the limits allow, logits for its last token."""
    chunk = runner.limits.tokens
    return [_step(ids[at : at + chunk], at, runner) for at in range(0, len(ids), chunk)]


def decode_steps(ids: Sequence[int], position: int, runner: Runner) -> list[Step]:
    """A step for each id, from a position on."""
    return [_step([token], position + i, runner) for i, token in enumerate(ids)]


def _step(ids: Sequence[int], position: int, runner: Runner) -> Step:
    count = len(ids)
    end = position + count
    tokens, positions, starts, rows = (
        np.array(x, np.int32) for x in (ids, range(position, end), (0, count), (count - 1,))
    )
    tables = (_table(*pair, position, end) for pair in zip(runner.groups, runner.limits.blocks, strict=True))
    return Step(tokens, positions, starts, tuple(tables), rows)


def _table(group: Group, blocks: int, position: int, end: int) -> Table:
    """Nobody else uses the memory: all blocks in turn, what a window has left behind is written again."""
    first = max(0, position - group.window + 1) // BLOCK_TOKENS if group.window else 0
    columns = range(1) if group.state else range(first, -(-end // BLOCK_TOKENS))
    return Table(np.array([[n % blocks for n in columns]], np.int32), np.array([first], np.int32))
