"""A Program lowered for the CPU: weights in panels, a tape of kernels, and the memory that they work in.

T tokens, R rows with logits, V vocabulary.
"""

import math
import mmap
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sotol.backends.cpu.building.library import Code, library_for
from sotol.backends.cpu.layout import CODEC_BYTES, SPAN, SUMS_EXTRA, padded, parse_fields
from sotol.backends.cpu.machine import whole_memory
from sotol.backends.cpu.panels import packed_shape
from sotol.backends.cpu.running.lower import Call, lower, missing, result_bytes
from sotol.backends.cpu.running.packing import Packing, pack_key
from sotol.backends.cpu.running.threads import PROGRAM_KEYS, Team, default_threads
from sotol.backends.cpu.target import Target, host_target
from sotol.errors import ModelError, SotolError, explained
from sotol.formats.files import files_of, in_memory
from sotol.formats.weights import Weight
from sotol.program import fuse, ops
from sotol.program.plan import plan_memory
from sotol.program.program import Array, Cache, Constant, Node, Operand, Program, StepInput
from sotol.program.step import BLOCK_TOKENS, Limits, Step
from sotol.progress import Progress

__all__ = ["MOST_THREADS", "PRECISIONS", "CpuRunner", "OpTime"]

PRECISIONS = ("int8", "f32")
MOST_THREADS = 1024
TILE_TOKENS = 24  # tokens of an attention tile: a piece of work is a tile, or a span of it, for one kv head
LARGE_SHARE = 16  # a tile with more than one part in so many of a step's attention is split
SPAN_ROWS = 2048  # tokens x spans of split tiles, at most: bounds the memory of their sums

SMALLER = "give a smaller ctx, or take a smaller model"
NOTHING = np.zeros((), np.uint8)  # a byte that stands for all that were let go

Float32Array = npt.NDArray[np.float32]


class OpTime(NamedTuple):
    """One op's share of a step, for profiles. The node's weights have names, encodings and shapes, but no bytes."""

    node: Node
    kernel: str
    seconds: float


class CpuRunner:
    """Runs steps of a program on this machine's CPU. One step at a time: callers take turns.

    precision: "int8" quantises activations before integer weights (the default arithmetic), "f32" does not. codec: how
    the cache stores keys and values, "f16" or "f32". The same step gives the same bits for any number of threads,
    any CPU level and any company in the batch.
    """

    def __init__(
        self,
        program: Program,
        limits: Limits,
        *,
        threads: int | None = None,
        precision: str = "int8",
        codec: str = "f16",
        target: Target | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Raises ModelError for what the CPU backend lacks, ValueError for a bad option, SotolError where the machine
        has too little memory or gives no threads, FormatError for a file that changes meanwhile.
        """
        if precision not in PRECISIONS or codec not in CODEC_BYTES:
            raise ValueError(
                f"precision is one of {PRECISIONS} and codec of {tuple(CODEC_BYTES)}: not {precision}, {codec}"
            )
        count = default_threads() if threads is None else threads
        if not 1 <= count <= MOST_THREADS:
            raise ValueError(f"threads must be from 1 to {MOST_THREADS}: not {count}")
        for problem in missing(program, limits.context):
            raise ModelError(problem)
        self.limits, self.threads = limits, count
        quantized = fuse.quantize_inputs(program) if precision == "int8" else program
        self._program = fuse.join_pairs(quantized)
        if quantized is not program:
            quantized.nodes.clear()  # it and its tensors hold each other, and with them the weights
        self.vocabulary = int(self._program.nodes[-1].shape[-1])
        tables = (node.inputs[0] for node in program.nodes if node.op is ops.embed)
        self._ids = min(x.shape[0] for x in tables if isinstance(x, Weight))
        matrices, files = _matrices(self._program), files_of(_weights(self._program))
        try:
            _check_memory(self._program, limits, codec, matrices)
            with explained("setting aside memory for the model", SMALLER):
                self._memory = _Memory(self._program, limits, codec, _room_for_panels(matrices))
                self._calls = lower(self._program, self._memory)
        finally:
            _drop_bytes(self._program)  # `matrices` has those that are still wanted
        library = library_for(target or host_target())
        keys = [*(call.key for call in self._calls), *map(pack_key, matrices.values()), *PROGRAM_KEYS]
        codes = library.load(keys, partial(progress, "compiling kernels") if progress is not None else None)
        work = [(weight, self._memory.packed[name], codes[pack_key(weight)]) for name, weight in matrices.items()]
        self._blocks = [_argument_block(call, codes[call.key]) for call in self._calls]
        tape = [
            (codes[call.key].address, block.ctypes.data, call.last)
            for call, block in zip(self._calls, self._blocks, strict=True)
        ]
        self._packing = Packing(work, count, files)
        try:
            self._team = Team(np.array(tape, np.int64), count, library, (self._memory, self._blocks))
        except BaseException:
            self._packing.stop()
            raise

    def wait(self, progress: Progress) -> None:
        """Until the weights are loaded, which goes on behind the caller's back; `run` waits for it by itself."""
        self._packing.wait(lambda done, total: progress("loading weights", done, total))

    def run(self, step: Step) -> Float32Array:
        """Logits [R, V], valid until the next run. ValueError for a step beyond the limits."""
        step.check(self.limits, self._ids)
        self._packing.wait()
        self._team.run(lambda: self._memory.fill(step))
        return self._memory.logits(len(step.logit_rows), self.vocabulary)

    def profile(self, step: Step, seconds: Callable[[], float]) -> list[OpTime]:
        """Run a step and say where its time went; seconds: a clock."""
        step.check(self.limits, self._ids)
        self._packing.wait()
        times = np.zeros(len(self._calls) + 1, np.int64)
        begin = seconds()
        self._team.run(lambda: self._memory.fill(step), times)
        whole = seconds() - begin
        share = np.diff(times) / max(1, times[-1] - times[0])
        nodes = self._program.nodes
        return [
            OpTime(nodes[call.node], str(call.key[0]), whole * float(part))
            for call, part in zip(self._calls, share, strict=True)
        ]

    def memory(self) -> dict[str, int]:
        """Bytes set aside: for panels, the cache and results. The last two become real as they are first used."""
        return self._memory.sizes()

    def close(self) -> None:
        """End the threads; several threads may. Steps that wait for the weights fail."""
        try:
            self._packing.stop()
        finally:
            self._team.close()


class _Memory:
    """All that kernels read and write, at fixed addresses: implements `lower.Places`."""

    def __init__(
        self, program: Program, limits: Limits, codec: str, packed: Mapping[str, npt.NDArray[np.uint8]]
    ) -> None:
        """packed: the matrices' panels, by name."""
        self.codec, self.packed = codec, packed
        self.table_width = -(-limits.context // (4 * BLOCK_TOKENS)) * 4  # attention reads four blocks at a time
        self._limit = {"T": limits.tokens, "R": limits.rows}
        plan = plan_memory(program, lambda node: result_bytes(node, self._limit))
        self._arena, self._offsets = _zeros(plan.size), plan.offsets
        self._vectors: dict[int, tuple[str, Array]] = {}  # by the id of the operand, with its name
        caches = program.caches()
        self._caches = {c: _zeros(limits.blocks * BLOCK_TOKENS * _token_bytes(c, codec)) for c in caches}
        rows = min(SPAN_ROWS, limits.tokens * -(-limits.context // SPAN))
        heads = max((int(node.shape[1]) for node in program.nodes if node.op is ops.attention), default=0)
        widest, kv_heads = (max((getattr(c, size) for c in caches), default=0) for size in ("width", "heads"))
        self._span_sums = _zeros(rows * heads * (padded(widest) + SUMS_EXTRA) * 4)
        tiles = limits.sequences + limits.tokens // TILE_TOKENS
        self._finished = np.zeros(tiles * kv_heads, np.int64)
        t, s = limits.tokens, limits.sequences
        self._inputs = {
            name: np.zeros(size, np.int32)
            for name, size in {
                "tokens": t, "positions": t, "slots": t, "logit_rows": limits.rows, "tile_sequences": tiles,
                "tile_tokens": tiles, "tile_counts": tiles, "tile_sums": tiles, "part_tiles": tiles + rows,
                "part_spans": tiles + rows, "blocks": s * self.table_width,
            }.items()
        }  # fmt: skip
        self._counts = {name: np.zeros(1, np.int64) for name in ("T", "R", "parts")}

    def sizes(self) -> dict[str, int]:
        """Bytes by what they are for."""
        parts = {"panels": self.packed.values(), "cache": self._caches.values(), "results": [self._arena]}
        return {name: sum(array.nbytes for array in arrays) for name, arrays in parts.items()}

    def limit(self, dim: str) -> int:
        return self._limit[dim]

    def result(self, node: int) -> int:
        return int(self._arena.ctypes.data) + self._offsets[node]

    def input(self, name: str) -> int:
        return int((self._counts if name in self._counts else self._inputs)[name].ctypes.data)

    def panels(self, weight: Weight) -> tuple[int, int, int]:
        packed = self.packed[weight.name]
        return int(packed.ctypes.data), len(packed), packed.shape[1]

    def vector(self, x: Operand) -> int:
        if id(x) not in self._vectors:
            assert isinstance(x, Weight | Constant)
            values = in_memory(x).decode() if isinstance(x, Weight) else x.value
            values = np.ascontiguousarray(values, np.float32).reshape(-1)
            if rest := padded(values.size) - values.size:  # kernels read whole vectors
                values = np.concatenate([values, np.zeros(rest, np.float32)])
            self._vectors[id(x)] = x.name, values
        return int(self._vectors[id(x)][1].ctypes.data)

    def cache(self, cache: Cache) -> int:
        return int(self._caches[cache].ctypes.data)

    @property
    def span_sums(self) -> int:
        return int(self._span_sums.ctypes.data)

    @property
    def finished_parts(self) -> int:
        return int(self._finished.ctypes.data)

    def fill(self, step: Step) -> None:
        """Put a step where kernels read it."""
        tiles = _attention_tiles(step.starts.tolist())
        sequences, tokens, counts = zip(*tiles, strict=True)
        positions = step.positions.tolist()
        parts, sums = _attention_parts(counts, [positions[first + count - 1] for _, first, count in tiles])
        blocks = self._inputs["blocks"].reshape(-1, self.table_width)
        width = min(step.blocks.shape[1], self.table_width)
        blocks[: len(step.blocks), :width] = step.blocks[:, :width]
        blocks[: len(step.blocks), width:] = 0  # any block: its keys are masked
        for name, values in (
            ("tokens", step.tokens), ("positions", step.positions), ("slots", step.slots),
            ("logit_rows", step.logit_rows), ("tile_sequences", sequences), ("tile_tokens", tokens),
            ("tile_counts", counts), ("tile_sums", sums), ("part_tiles", [tile for tile, _ in parts]),
            ("part_spans", [span for _, span in parts]),
        ):  # fmt: skip
            self._inputs[name][: len(values)] = values
        self._counts["T"][0], self._counts["R"][0] = len(step.tokens), len(step.logit_rows)
        self._counts["parts"][0] = len(parts)

    def logits(self, rows: int, vocabulary: int) -> Float32Array:
        stride, start = padded(vocabulary), self._offsets[-1]
        flat = self._arena[start : start + rows * stride * 4].view(np.float32)
        return flat.reshape(rows, stride)[:, :vocabulary]


def _attention_tiles(starts: list[int]) -> list[tuple[int, int, int]]:
    """Runs of up to TILE_TOKENS tokens of one sequence: sequence, first token, tokens."""
    return [
        (sequence, token, min(TILE_TOKENS, end - token))
        for sequence, (begin, end) in enumerate(pairwise(starts))
        for token in range(begin, end, TILE_TOKENS)
    ]


def _attention_parts(counts: Sequence[int], last: Sequence[int]) -> tuple[list[tuple[int, int]], list[int]]:
    """Tiles as parts that threads can share out evenly: each part's tile and span (-1: all); where tiles' sums begin.

    counts, last: each tile's tokens and last position. Only large tiles are split, so that few sums go through memory.
    """
    spans = [position // SPAN + 1 for position in last]
    work = [count * n for count, n in zip(counts, spans, strict=True)]
    total, rows = sum(work), 0
    whole, split, sums = list[int](), list[tuple[int, int]](), list[int]()
    for tile, n in enumerate(spans):
        sums.append(rows)
        if n > 1 and work[tile] * LARGE_SHARE > total and rows + work[tile] <= SPAN_ROWS:
            split += [(tile, span) for span in range(n)]
            rows += work[tile]
        else:
            whole.append(tile)
    whole.sort(key=lambda tile: -last[tile])  # long ones first
    return [*((tile, -1) for tile in whole), *split], sums


def _weights(program: Program) -> list[Weight]:
    """All weights that the program reads, some more than once."""
    return [x for node in program.nodes for x in node.inputs if isinstance(x, Weight)]


def _matrices(program: Program) -> dict[str, Weight]:
    """The matrices of the program, by name."""
    return {
        x.name: x
        for node in program.nodes
        for x in node.inputs
        if isinstance(x, Weight) and node.op in (ops.linear, ops.linear_add, ops.embed)
    }


def _drop_bytes(program: Program) -> None:
    """Let go of the bytes of the program's weights, in place: what stays says their sizes, for profiles."""

    def bare(x: Operand) -> Operand:
        match x:
            case Weight():
                return replace(x, data=np.broadcast_to(NOTHING, x.data.shape))
            case StepInput():  # of the program that this one was made from, which has the weights
                return replace(x, program=program)
        return x

    program.nodes = [node._replace(inputs=tuple(map(bare, node.inputs))) for node in program.nodes]


def _token_bytes(cache: Cache, codec: str) -> int:
    """What a token's keys and values take in a cache."""
    return 2 * cache.heads * padded(cache.width) * CODEC_BYTES[codec]


def _check_memory(program: Program, limits: Limits, codec: str, matrices: Mapping[str, Weight]) -> None:
    """SotolError where this machine can't hold the weights, and one full context of keys and values."""
    panels = sum(math.prod(packed_shape(weight)) for weight in matrices.values())
    token = sum(_token_bytes(cache, codec) for cache in program.caches())
    needed, there = panels + token * limits.context, whole_memory()
    if needed > there:
        raise SotolError(
            f"the model needs {needed >> 20} MB of memory ({panels >> 20} for weights, {token} bytes for each of"
            f" {limits.context} tokens of context), and this machine has {there >> 20} MB: {SMALLER}"
        )


def _room_for_panels(matrices: Mapping[str, Weight]) -> dict[str, npt.NDArray[np.uint8]]:
    """Memory for the panels of matrices, by name: uint8 [panels, bytes]."""
    shapes = [packed_shape(weight) for weight in matrices.values()]
    sizes = [-(-count * size // 64) * 64 for count, size in shapes]
    arena, start, packed = _zeros(sum(sizes)), 0, dict[str, npt.NDArray[np.uint8]]()
    for name, (count, size), space in zip(matrices, shapes, sizes, strict=True):
        packed[name] = arena[start : start + count * size].reshape(count, size)
        start += space
    return packed


def _zeros(size: int) -> npt.NDArray[np.uint8]:
    """Zeros at the start of a page, in large pages where the system has them: it gives memory when it is touched."""
    if sys.platform == "win32":
        return np.zeros(size, np.uint8)
    space = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            space.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(space, np.uint8)


def _argument_block(call: Call, code: Code) -> npt.NDArray[np.int64]:
    """A call's arguments laid out as its kernel declares them."""
    fields = parse_fields(code.fields)
    names = [name for name, _ in fields]
    if set(names) != call.arguments.keys():
        raise SotolError(f"kernel {call.key} takes {names}, not {sorted(call.arguments)}")
    block = np.zeros(len(fields), np.int64)
    for i, (name, kind) in enumerate(fields):
        if kind == "f32":
            block[i : i + 1].view(np.float32)[0] = call.arguments[name]
        else:
            block[i] = int(call.arguments[name])
    return block
