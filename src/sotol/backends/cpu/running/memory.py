"""All memory that kernels read and write while a program runs, at fixed addresses.

T tokens, S sequences, R rows with results.
"""

import math
import mmap
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sotol.arrays import Array, Int32Array
from sotol.backends.cpu.layout import BLOCK_KEYS, CODEC_BYTES, GROUP, LATENT, QUAD_BLOCKS, SPAN_EXTRA, padded
from sotol.backends.cpu.running.lower import CachePlace, width_of
from sotol.backends.cpu.running.sharing import AttentionWork, Tiles, most_span_rows
from sotol.formats.files import in_memory
from sotol.formats.weights import Weight
from sotol.program import ops
from sotol.program.memory import BLOCK_TOKENS, Cache, Copy, Group, Paged, State
from sotol.program.plan import Plan
from sotol.program.program import Constant, Operand, Program, Tensor
from sotol.program.step import DIMS, Limits, Step

__all__ = ["Codecs", "Memory", "block_bytes", "page_bytes", "zeros"]

assert (BLOCK_KEYS, GROUP) == (BLOCK_TOKENS, ops.GROUP), "the sizes that kernels are compiled for: see layout.py"
Bytes = npt.NDArray[np.uint8]
ATTENTION = (ops.attention, ops.attention_with_sinks)


class Codecs(NamedTuple):
    """How caches store keys and values: "f16" or "f32"; others: (keys, values) of single caches, by name."""

    keys: str = "f16"
    values: str = "f16"
    others: Mapping[str, tuple[str, str]] = {}

    def of(self, cache: Cache) -> tuple[str, str]:
        """The codecs of keys and of values; a latent cache stores no values."""
        keys, values = self.others.get(cache.name, (self.keys, self.values))
        return keys, LATENT if isinstance(cache.layout, Paged) and cache.layout.latent else values


def page_bytes(layout: Paged, codecs: tuple[str, str]) -> tuple[int, int]:
    """Bytes of the keys, and of the values, of one head's block."""
    sizes = zip((layout.key, layout.value), codecs, strict=True)
    keys, values = (BLOCK_TOKENS * padded(width) * CODEC_BYTES[codec] for width, codec in sizes)
    return keys, values


def block_bytes(cache: Cache, codecs: Codecs) -> int:
    """What a block takes in a cache."""
    if isinstance(cache.layout, State):
        *rows, width = cache.layout.shape
        return math.prod(rows) * padded(width) * 4
    return cache.layout.heads * sum(page_bytes(cache.layout, codecs.of(cache)))


class _Tables:
    """A group's block table, as kernels read it (see `attention.attend`).

    Attention reads the blocks of a quad together, so a row of the table begins with the first block of a quad, and its
    width is whole quads.
    """

    def __init__(self, group: Group, limits: Limits, number: int) -> None:
        self._state, self._number = group.state, number
        self.width = 1 if group.state else -(-limits.context // (QUAD_BLOCKS * BLOCK_TOKENS)) * QUAD_BLOCKS
        self.blocks = np.zeros((limits.sequences, self.width), np.int32)
        self.firsts = np.zeros(limits.sequences, np.int32)
        self.slots = np.zeros(limits.tokens, np.int32)

    @cached_property
    def addresses(self) -> tuple[int, int, int]:
        """Of blocks, firsts and slots."""
        return _address(self.blocks), _address(self.firsts), _address(self.slots)

    def fill(self, step: Step) -> None:
        blocks, first = step.tables[self._number]
        columns = min(blocks.shape[1], self.width)
        if self._state or not first.any():
            self.firsts[: len(first)] = 0
            self.blocks[: len(blocks), :columns] = blocks[:, :columns]
            self.blocks[: len(blocks), columns:] = 0  # any block will do: its keys are masked
        else:
            for s, number in enumerate(first.tolist()):
                before = number % QUAD_BLOCKS
                self.firsts[s] = number - before
                row = self.blocks[s]
                row[:] = 0
                row[before : before + columns] = blocks[s, : self.width - before]
        if not self._state:
            self.slots[: len(step.tokens)] = step.slots(self._number)


class Memory:
    """Implements `lower.Places`."""

    def __init__(
        self,
        program: Program,
        plan: Plan,
        limits: Limits,
        groups: Sequence[Group],
        codecs: Codecs,
        packed: Mapping[int, Bytes],
    ) -> None:
        """packed: memory for the matrices' panels, by the id of the weight: a weight would keep its file open."""
        self.packed, self._limits, self._codecs = packed, limits, codecs
        self._arena, self._offsets = zeros(plan.size), plan.offsets
        self._vectors: dict[int, tuple[str, Array]] = {}  # by the id of the operand, with its name
        self._columns: dict[int, Constant] = {}  # by the id of a matrix
        self._groups = groups
        self._group_of = {cache: number for number, group in enumerate(groups) for cache in group.caches}
        self._caches = {
            cache: zeros(blocks * block_bytes(cache, codecs)).reshape(blocks, -1)
            for group, blocks in zip(groups, limits.blocks, strict=True)
            for cache in group.caches
        }
        self._tables = [_Tables(group, limits, number) for number, group in enumerate(groups)]
        self._counts = {dim: np.zeros(1, np.int64) for dim in DIMS}
        self._inputs: dict[str, Int32Array] = {"starts": np.zeros(limits.sequences + 1, np.int32)}
        names = {"positions": "T"} | {x.name: str(x.shape[0]) for x in program.step_inputs() if x.shape}
        self._inputs |= {name: np.zeros(limits.of(dim), np.int32) for name, dim in names.items()}
        self._tiles = Tiles(limits)
        windows = {(c.layout.window, c.layout.chunked) for c in self._caches if isinstance(c.layout, Paged)}
        self._work = {(w, chunked): AttentionWork(limits, self._tiles, w, chunked=chunked) for w, chunked in windows}
        self._scratch: dict[int, tuple[Bytes, npt.NDArray[np.int64]]] = {}
        self._sorted: dict[int, tuple[Int32Array, npt.NDArray[np.int64]]] = {}
        nodes = (part for node in program.nodes for part in node.parts or (node,))
        reading = [(n.shape[1], n.inputs[1]) for n in nodes if n.op in ATTENTION]
        layouts = [
            (int(heads), c.layout) for heads, c in reading if isinstance(c, Cache) and isinstance(c.layout, Paged)
        ]
        record = max((heads * 4 * (padded(layout.value) + SPAN_EXTRA) for heads, layout in layouts), default=0)
        self._sums_bytes = most_span_rows(limits) * record
        self._most_finished = self._tiles.most * max((layout.heads for _, layout in layouts), default=0)

    def sizes(self) -> dict[str, int]:
        """Bytes by what they are for."""
        kinds = {"panels": self.packed.values(), "cache": self._caches.values(), "results": [self._arena]}
        return {name: sum(array.nbytes for array in arrays) for name, arrays in kinds.items()}

    # ---- addresses, for `lower`, each asked of NumPy once: it takes a microsecond

    @cached_property
    def _arena_address(self) -> int:
        return _address(self._arena)

    @cached_property
    def _addresses(self) -> dict[str, int]:
        return {name: _address(array) for arrays in (self._inputs, self._counts) for name, array in arrays.items()}

    @cached_property
    def _work_addresses(self) -> dict[tuple[int, bool], dict[str, int]]:
        return {
            seen: {name: _address(x) for name, x in (self._tiles.arrays | w.arrays | {"shares": w.count}).items()}
            for seen, w in self._work.items()
        }

    def limit(self, dim: str) -> int:
        return self._limits.of(dim)

    def result(self, node: int, output: int = 0) -> int:
        return self._arena_address + self._offsets[node][output]

    def count(self, dim: str) -> int:
        return self._addresses[dim]

    def input(self, name: str) -> int:
        return self._addresses[name]

    def panels(self, weight: Weight) -> tuple[int, int, int]:
        packed = self.packed[id(weight)]
        return _address(packed), len(packed), packed.shape[1]

    def vector(self, x: Operand) -> int:
        if id(x) not in self._vectors:
            assert isinstance(x, Weight | Constant)
            values = in_memory(x).decode() if isinstance(x, Weight) else x.value
            values = np.ascontiguousarray(values, np.float32 if values.dtype.kind == "f" else np.int32).reshape(-1)
            if rest := padded(values.size) - values.size:  # kernels read whole vectors
                values = np.concatenate([values, np.zeros(rest, values.dtype)])
            self._vectors[id(x)] = x.name, values
        return _address(self._vectors[id(x)][1])

    def columns(self, x: Weight) -> int:
        """A small matrix, transposed: each column's numbers are whole vectors."""
        if id(x) not in self._columns:
            values = in_memory(x).decode().T  # [k, N]
            whole = np.zeros((len(values), padded(values.shape[1])), np.float32)
            whole[:, : values.shape[1]] = values
            self._columns[id(x)] = Constant(f"columns of {x.name}", whole)
        return self.vector(self._columns[id(x)])

    def cache(self, cache: Cache) -> CachePlace:
        tables, size = self._tables[self._group_of[cache]], block_bytes(cache, self._codecs)
        blocks, firsts, slots = tables.addresses
        codecs, address = self._codecs.of(cache), _address(self._caches[cache])
        values_at = page_bytes(cache.layout, codecs)[0] if isinstance(cache.layout, Paged) else 0
        return CachePlace(address, size, values_at, codecs, blocks, tables.width, firsts, slots)

    def attention(self, window: int, *, chunked: bool) -> dict[str, int]:
        return self._work_addresses[window, chunked]

    def attention_scratch(self, number: int) -> tuple[int, int]:
        if number not in self._scratch:
            self._scratch[number] = zeros(self._sums_bytes), np.zeros(self._most_finished, np.int64)
        sums, finished = self._scratch[number]
        return _address(sums), _address(finished)

    def sorted_choices(self, node: int, count: int) -> tuple[int, int]:
        """Of `count` choices at most. Each node has its own, outside of the arena: a thread that comes late to a
        product with experts still reads there that no pieces are left, when others' results are in the arena's memory.
        """
        if node not in self._sorted:
            self._sorted[node] = np.zeros(count, np.int32), np.zeros(count + 2, np.int64)
        order, runs = self._sorted[node]
        return _address(order), _address(runs)

    # ---- steps

    def fill(self, step: Step) -> None:
        """Write a step to where kernels read it."""
        for name, array in self._inputs.items():
            values = getattr(step, name)
            array[: len(values)] = values
        for dim, count in self._counts.items():
            count[0] = step.count(dim)
        for tables in self._tables:
            tables.fill(step)
        self._tiles.fill(step)
        for work in self._work.values():
            work.fill()

    def rows(self, x: Tensor, count: int) -> npt.NDArray[np.float32]:
        """A result of the last step, a view: [count, width]."""
        width = width_of(x.shape)
        stride, start = padded(width), self._offsets[x.index][x.output]
        flat = self._arena[start : start + count * stride * 4].view(np.float32)
        return flat.reshape(count, stride)[:, :width]

    # ---- blocks

    def copy(self, copies: Sequence[Copy]) -> None:
        for group, source, to in copies:
            for blocks in self._blocks(group):
                blocks[to] = blocks[source]

    def read(self, group: int, block: int) -> bytes:
        return b"".join(blocks[block].tobytes() for blocks in self._blocks(group))

    def write(self, group: int, block: int, data: bytes) -> None:
        caches = self._blocks(group)
        needed = sum(blocks.shape[1] for blocks in caches)
        if len(data) != needed:
            raise ValueError(f"a block of group {group} has {needed} bytes, not {len(data)}")
        begin = 0
        for blocks in caches:
            blocks[block] = np.frombuffer(data, np.uint8, blocks.shape[1], begin)
            begin += blocks.shape[1]

    def _blocks(self, group: int) -> list[Bytes]:
        return [self._caches[cache] for cache in self._groups[group].caches]


def _address(array: npt.NDArray[np.generic]) -> int:
    return int(array.ctypes.data)


def zeros(size: int) -> Bytes:
    """Zeros, aligned to a page, in large pages where the system has them. A page is allocated when it is first used."""
    if sys.platform == "win32":
        return np.zeros(size, np.uint8)
    space = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            space.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(space, np.uint8)
