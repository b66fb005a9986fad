"""Running a Program over whole texts in steps of given sizes, on any backend."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt

from sotol.backends.cpu import CpuRunner
from sotol.backends.reference import ReferenceRunner
from sotol.program.memory import Group, group_caches
from sotol.program.program import Program
from sotol.program.runner import Runner
from sotol.program.step import BLOCK_TOKENS, Limits, Step, Table

__all__ = ["RUNNERS", "blocks_for", "limits_for", "make_step", "make_table", "run_text"]

Array = npt.NDArray[Any]

# Each computes in float32 and keeps keys and values in float32.
RUNNERS: dict[str, Callable[[Program, Limits], AbstractContextManager[Runner]]] = {
    "reference": lambda program, limits: nullcontext(ReferenceRunner(program, limits)),
    "cpu": lambda program, limits: closing(CpuRunner(program, limits, threads=2, codecs="f32")),
}


def blocks_for(groups: Iterable[Group], pages: int, states: int) -> tuple[int, ...]:
    """As many pages for each group, or as many states."""
    return tuple(states if group.state else pages for group in groups)


def limits_for(program: Program, context: int, sequences: int = 1) -> Limits:
    """Limits for steps as large as the context."""
    pages, tokens = sequences * -(-context // BLOCK_TOKENS), sequences * context
    blocks = blocks_for(group_caches(program.caches()), pages, sequences)
    return Limits(tokens, sequences, tokens, context, blocks)


def make_table(blocks: Sequence[Sequence[int]], first: Sequence[int] | None = None) -> Table:
    """The blocks of each sequence, from its block number `first` on; rows that are too short are filled with 0."""
    width = max(len(row) for row in blocks)
    filled = np.array([[*row, *[0] * (width - len(row))] for row in blocks], np.int32)
    return Table(filled, np.array(first or [0] * len(blocks), np.int32))


def make_step(
    tokens: Sequence[Sequence[int]],
    begins: Sequence[int],
    tables: Sequence[Sequence[int]],
    rows: Sequence[int],
    *,
    groups: int = 1,
) -> Step:
    """A step of some tokens of each sequence, from its position `begin` on, with its blocks: the same in each group."""
    return Step(
        np.concatenate([np.asarray(part, np.int32) for part in tokens]),
        np.concatenate([np.arange(b, b + len(part), dtype=np.int32) for part, b in zip(tokens, begins, strict=True)]),
        np.cumsum([0, *(len(part) for part in tokens)], dtype=np.int32),
        (make_table(tables),) * groups,
        np.asarray(rows, np.int32),
    )


def run_text(runner: Runner, ids: Sequence[int], chunks: Sequence[int], result: str = "logits") -> Array:
    """Logits [T, V] of one text, its tokens given in steps of these sizes, its blocks in a shuffled order.

    Each group has an order of its own.
    """
    assert sum(chunks) == len(ids)
    rng = np.random.default_rng(len(ids))
    pages = -(-len(ids) // BLOCK_TOKENS)
    tables = tuple(make_table([[0] if g.state else rng.permutation(pages).tolist()]) for g in runner.groups)
    logits, begin = list[Array](), 0
    for size in chunks:
        step = make_step([ids[begin : begin + size]], [begin], [[0]], range(size))._replace(tables=tables)
        logits.append(np.array(runner.run(step)[result]))
        begin += size
    return np.concatenate(logits)
