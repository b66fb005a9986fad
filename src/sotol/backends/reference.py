"""The reference backend: runs a Program op by op in NumPy. Slow; every other backend is tested against it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sotol.arrays import Array
from sotol.backends.machine import available_memory
from sotol.formats.weights import Weight
from sotol.program.memory import BLOCK_TOKENS, Cache, Copy, Group, Paged, State, group_caches
from sotol.program.program import INNER, Constant, Node, Operand, Program, StepInput, Tensor
from sotol.program.runner import Results, vocabulary_of
from sotol.program.step import Limits, Step
from sotol.progress import Progress

__all__ = ["ReferenceRunner", "available_memory", "block_bytes", "make_runner", "missing"]


class _Pages:
    """A paged cache of keys and values: the `cache` argument of ops, and the blocks for copies."""

    def __init__(self, layout: Paged, group: int, blocks: int, dtypes: tuple[Any, Any]) -> None:
        self.layout, self._group = layout, group
        widths = (layout.key, layout.value)
        self._sides = [  # [blocks, 16, K, d] and [blocks, 16, K, e]
            np.zeros((blocks, BLOCK_TOKENS, layout.heads, width), dtype)
            for width, dtype in zip(widths, dtypes, strict=True)
        ]
        self.key_type, self.value_type = (np.finfo(side.dtype) for side in self._sides)

    def write(self, step: Step, keys: Array, values: Array) -> None:
        slots = np.array(step.slots(self._group))
        for side, rows in zip(self._sides, (keys, values), strict=True):
            side[slots // BLOCK_TOKENS, slots % BLOCK_TOKENS] = rows

    def read(self, step: Step, s: int) -> tuple[Array, Array, Array]:
        """Positions [C] of sequence s up to its last token of the step, and their keys and values [C, K, …]."""
        table = step.tables[self._group]
        positions = np.arange(table.first[s] * BLOCK_TOKENS, step.positions[step.starts[s + 1] - 1] + 1)
        blocks = table.blocks[s, positions // BLOCK_TOKENS - table.first[s]]
        keys, values = (side[blocks, positions % BLOCK_TOKENS] for side in self._sides)
        return positions, keys, values

    def arrays(self) -> list[Array]:
        return self._sides


class _States:
    """A cache of one state array for each sequence: the `state` argument of ops, and the blocks for copies."""

    def __init__(self, layout: State, group: int, blocks: int, dtype: npt.DTypeLike) -> None:
        self._group = group
        self._states = np.zeros((blocks, *layout.shape), dtype)

    def read(self, step: Step) -> Array:
        """[S, …]: copies of the states of a step's sequences."""
        return self._states[step.tables[self._group].blocks[:, 0]]

    def write(self, step: Step, states: Array) -> None:
        self._states[step.tables[self._group].blocks[:, 0]] = states

    def arrays(self) -> list[Array]:
        return [self._states]


class ReferenceRunner:
    """Runs steps of a program in one floating-point type, with weights decoded exactly.

    dtype: that of activations. cache: that of keys and values, or one for each (the CPU backend has float16 and
    float32).
    """

    def __init__(
        self,
        program: Program,
        limits: Limits,
        dtype: npt.DTypeLike = np.float32,
        cache: npt.DTypeLike | tuple[npt.DTypeLike, npt.DTypeLike] = np.float32,
    ) -> None:
        self._nodes, self._results, self._dtype = list(program.nodes), dict(program.results), np.dtype(dtype)
        self.limits, self.groups, self.threads = limits, group_caches(program.caches()), 1
        limits.check_groups(self.groups)
        dtypes = cache if isinstance(cache, tuple) else (cache, cache)
        self._caches: dict[Cache, _Pages | _States] = {}
        for number, (group, blocks) in enumerate(zip(self.groups, limits.blocks, strict=True)):
            for c in group.caches:
                match c.layout:
                    case Paged() as paged:
                        self._caches[c] = _Pages(paged, number, blocks, dtypes)
                    case State() as state:
                        self._caches[c] = _States(state, number, blocks, self._dtype)
        self._ids = vocabulary_of(program)
        self._decoded: dict[Weight, Array] = {}

    def run(self, step: Step) -> Results:
        """The program's results, new arrays."""
        step.check(self.limits, self.groups, self._ids)
        values: list[tuple[Any, ...]] = []
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # exp may overflow; NaN is propagated
            for node in self._nodes:
                parts: list[tuple[Any, ...]] = []
                for part in node.parts or (node,):
                    parts.append(self._compute(part, values, parts, step))
                results_from = node.results_from or tuple((0, output) for output in range(len(node.results)))
                values.append(tuple(parts[part][output] for part, output in results_from))
        return {name: values[x.index][x.output] for name, x in self._results.items()}

    def copy(self, copies: Sequence[Copy]) -> None:
        for group, source, to in copies:
            self.limits.check_block(group, source)
            self.limits.check_block(group, to)
            for array in self._arrays(group):
                array[to] = array[source]

    def read(self, group: int, block: int) -> bytes:
        self.limits.check_block(group, block)
        return b"".join(array[block].tobytes() for array in self._arrays(group))

    def write(self, group: int, block: int, data: bytes) -> None:
        self.limits.check_block(group, block)
        arrays = self._arrays(group)
        needed = sum(array[block].nbytes for array in arrays)
        if len(data) != needed:
            raise ValueError(f"a block of group {group} has {needed} bytes, not {len(data)}")
        begin = 0
        for array in arrays:
            end = begin + array[block].nbytes
            array[block] = np.frombuffer(data[begin:end], array.dtype).reshape(array[block].shape)
            begin = end

    def wait(self, progress: Progress) -> None:
        """Nothing to do: weights are decoded on demand."""

    def close(self) -> None:
        """Nothing to do: it has no threads."""

    def _arrays(self, group: int) -> list[Array]:
        return [array for cache in self.groups[group].caches for array in self._caches[cache].arrays()]

    def _compute(
        self, node: Node, values: list[tuple[Any, ...]], parts: list[tuple[Any, ...]], step: Step
    ) -> tuple[Any, ...]:
        inputs = [self._value(x, values, parts, step) for x in node.inputs]
        results = node.op.meaning(*inputs, **node.attributes)
        return results if isinstance(results, tuple) else (results,)

    def _value(self, x: Operand, values: list[tuple[Any, ...]], parts: list[tuple[Any, ...]], step: Step) -> Any:
        match x:
            case Tensor():
                return (parts if x.program is INNER else values)[x.index][x.output]
            case Weight():
                if x not in self._decoded:
                    self._decoded[x] = x.decode().astype(self._dtype)
                return self._decoded[x]
            case Constant():
                return x.value.astype(self._dtype) if x.value.dtype.kind == "f" else x.value
            case Cache():
                return self._caches[x]
            case StepInput():
                return step if x.name == "step" else getattr(step, x.name)


# ---- the functions of `program.runner.Backend`


def missing(program: Program, context: int = 1) -> list[str]:  # noqa: ARG001  (as of `Backend`)
    """Weights whose encoding can't be decoded; every op is supported."""
    return [f"{x.name} is stored as {x.encoding.name}" for x in program.weights() if x.encoding.decode is None]


def block_bytes(groups: Sequence[Group]) -> list[int]:
    """Bytes of one block of each group, in float32."""
    return [sum(map(_block_bytes, group.caches)) for group in groups]


def _block_bytes(cache: Cache) -> int:
    layout = cache.layout
    if isinstance(layout, State):
        return 4 * layout.size
    return 4 * BLOCK_TOKENS * layout.heads * (layout.key + layout.value)


def make_runner(
    program: Program,
    limits: Limits,
    *,
    threads: int | None = None,  # noqa: ARG001  (NumPy has its own threads)
    progress: Progress | None = None,  # noqa: ARG001  (making one takes no time)
) -> ReferenceRunner:
    """A runner with activations and caches in float32."""
    return ReferenceRunner(program, limits)
