"""Running a Program over whole texts in steps of given sizes, on any backend."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sotol.backends.cpu import CpuRunner
from sotol.backends.reference import ReferenceRunner
from sotol.program.program import Program
from sotol.program.step import BLOCK_TOKENS, Limits, Step

__all__ = ["RUNNERS", "Runner", "limits_for", "make_step", "run_text"]

Array = npt.NDArray[Any]


class Runner(Protocol):
    """What backends have in common."""

    def run(self, step: Step) -> Array: ...


# Each computes in float32 and keeps keys and values in float32.
RUNNERS: dict[str, Callable[[Program, Limits], AbstractContextManager[Runner]]] = {
    "reference": lambda program, limits: nullcontext(ReferenceRunner(program, limits)),
    "cpu": lambda program, limits: closing(CpuRunner(program, limits, threads=2, precision="f32", codec="f32")),
}


def limits_for(context: int, sequences: int = 1) -> Limits:
    """Limits for steps as large as the context."""
    blocks = sequences * -(-context // BLOCK_TOKENS)
    return Limits(sequences * context, sequences, sequences * context, context, blocks)


def make_step(
    tokens: Sequence[Sequence[int]], begins: Sequence[int], tables: Sequence[Sequence[int]], rows: Sequence[int]
) -> Step:
    """A step of some tokens of each sequence, from its position `begin` on, with its block table."""
    width = max(len(table) for table in tables)
    return Step(
        np.concatenate([np.asarray(part, np.int32) for part in tokens]),
        np.concatenate([np.arange(b, b + len(part), dtype=np.int32) for part, b in zip(tokens, begins, strict=True)]),
        np.cumsum([0, *(len(part) for part in tokens)], dtype=np.int32),
        np.array([[*table, *[0] * (width - len(table))] for table in tables], np.int32),
        np.asarray(rows, np.int32),
    )


def run_text(runner: Runner, ids: Sequence[int], chunks: Sequence[int]) -> Array:
    """Logits [T, V] of one text, its tokens given in steps of these sizes, its blocks in a shuffled order."""
    assert sum(chunks) == len(ids)
    table = np.random.default_rng(len(ids)).permutation(-(-len(ids) // BLOCK_TOKENS)).tolist()
    logits, begin = list[Array](), 0
    for size in chunks:
        step = make_step([ids[begin : begin + size]], [begin], [table], range(size))
        logits.append(np.array(runner.run(step)))
        begin += size
    return np.concatenate(logits)
