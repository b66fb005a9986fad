"""Programs of one op over activations that the test chooses, for holding kernels to their meaning."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from tests.support.running import make_step

from sotol.backends.cpu import CpuRunner
from sotol.backends.cpu.running.memory import Codecs
from sotol.backends.cpu.target import Target
from sotol.backends.reference import ReferenceRunner
from sotol.formats.weights import Weight
from sotol.program import ops
from sotol.program.fuse import quantize_inputs
from sotol.program.memory import Group, group_caches
from sotol.program.program import Program, StepInput, Tensor
from sotol.program.runner import Runner
from sotol.program.step import BLOCK_TOKENS, Limits, Step
from sotol.quant import Float32Array

__all__ = ["Inputs", "cpu", "ended", "ids", "limits_of", "reference", "single_step", "weight"]


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


def single_step(tokens: int, groups: int = 1) -> Step:
    """One sequence of so many tokens, all of whose rows are wanted; token t has the id t. Group's blocks are alike."""
    every = range(tokens)
    return make_step([every], [0], [range(-(-tokens // BLOCK_TOKENS))], every, groups=groups)


def limits_of(program: Program, step: Step) -> Limits:
    """Limits that the step reaches."""
    context = int(step.positions.max()) + 1
    blocks = tuple(int(table.blocks.max()) + 1 for table in step.tables)
    return Limits(step.count("T"), step.count("S"), step.count("R"), context, blocks[: len(_groups(program))])


def ended(program: Program) -> Program:
    """The program, with its last tensor as its result unless it has results."""
    last = [i for i, node in enumerate(program.nodes) if node.results][-1]
    result = program.nodes[last].results[0]
    return replace(program, results=program.results or {"result": Tensor(program, last, *result)})


def reference(
    program: Program,
    steps: Sequence[Step],
    limits: Limits | None = None,
    *,
    cache: npt.DTypeLike | tuple[npt.DTypeLike, npt.DTypeLike] = "float32",
) -> Float32Array:
    """The last step's result in float64."""
    limits = limits or limits_of(program, steps[-1])
    return _last(ReferenceRunner(ended(program), limits, np.float64, cache), steps)


def cpu(
    program: Program,
    steps: Sequence[Step],
    target: Target,
    *,
    threads: int = 1,
    precision: str = "f32",
    codecs: Codecs | str = "f32",
    limits: Limits | None = None,
) -> Float32Array:
    """The last step's result by the CPU backend. precision: "int8" quantises what meets integer weights."""
    limits, whole = limits or limits_of(program, steps[-1]), ended(program)
    whole = quantize_inputs(whole) if precision == "int8" else whole
    with closing(CpuRunner(whole, limits, threads=threads, codecs=codecs, target=target)) as runner:
        return _last(runner, steps)


def _last(runner: Runner, steps: Sequence[Step]) -> Float32Array:
    """The only result of the last step; programs without caches are given steps of some all the same."""
    groups = len(runner.groups)
    for step in steps:
        results = runner.run(step._replace(tables=step.tables[:groups]))
    (result,) = results.values()
    return np.array(result)


def _groups(program: Program) -> tuple[Group, ...]:
    return group_caches(program.caches())
