"""Programs of one op over activations that the test chooses, for holding kernels to their meaning."""

from collections.abc import Sequence

import numpy as np

from sotol.backends.cpu import CpuRunner
from sotol.backends.cpu.target import Target
from sotol.backends.reference import ReferenceRunner
from sotol.formats.weights import Weight
from sotol.program import ops
from sotol.program.program import Program, StepInput, Tensor
from sotol.program.step import BLOCK_TOKENS, Limits, Step
from sotol.quant import Float32Array

__all__ = ["Inputs", "cpu", "ids", "limits_of", "reference", "single_step", "weight"]


def ids(numbers: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.array(numbers, np.int32)


def weight(values: Float32Array, encoding: str = "F32", name: str = "w") -> Weight:
    return Weight.from_values(name, values, encoding)


class Inputs:
    """A program under construction whose first nodes bring arrays in, as rows of embedding matrices."""

    def __init__(self) -> None:
        self.program = Program()
        self.step = StepInput(self.program, "step")
        self.positions = StepInput(self.program, "positions", ("T",))
        self.logit_rows = StepInput(self.program, "logit_rows", ("R",))
        self._tokens = StepInput(self.program, "tokens", ("T",))

    def rows(self, values: Float32Array, name: str) -> Tensor:
        """values [T, N] as a tensor, for steps whose token t has the id t."""
        return ops.embed(weight(values, name=name), self._tokens)


def single_step(tokens: int) -> Step:
    """One sequence of so many tokens, all of whose rows are wanted; token t has the id t."""
    every = ids(range(tokens))
    blocks = ids([list(range(-(-tokens // BLOCK_TOKENS)))])  # type: ignore[list-item]
    return Step(every, every, ids([0, tokens]), blocks, every)


def limits_of(step: Step) -> Limits:
    tokens, sequences = len(step.tokens), len(step.starts) - 1
    context, blocks = int(step.positions.max()) + 1, int(step.blocks.max()) + 1
    return Limits(tokens, sequences, len(step.logit_rows), context, blocks)


def reference(
    program: Program, steps: Sequence[Step], limits: Limits | None = None, *, cache: str = "float32"
) -> Float32Array:
    """The last step's result in float64."""
    runner = ReferenceRunner(program, limits or limits_of(steps[-1]), np.float64, cache)
    return [runner.run(step) for step in steps][-1]


def cpu(
    program: Program,
    steps: Sequence[Step],
    target: Target,
    *,
    threads: int = 1,
    precision: str = "f32",
    codec: str = "f32",
    limits: Limits | None = None,
) -> Float32Array:
    """The last step's result by the CPU backend."""
    runner = CpuRunner(
        program, limits or limits_of(steps[-1]), threads=threads, precision=precision, codec=codec, target=target
    )
    try:
        return [runner.run(step).copy() for step in steps][-1]
    finally:
        runner.close()
