"""A Program compiled for the CPU: weights as panels, a tape of kernels, and the memory that they read and write.

T tokens, R rows with results.
"""

import struct
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sotol.backends.cpu.building.library import library_for
from sotol.backends.cpu.layout import Field, parse_fields
from sotol.backends.cpu.running.lower import Call, lower, missing, result_bytes
from sotol.backends.cpu.running.lowerings import LOWERINGS
from sotol.backends.cpu.running.memory import Bytes, Codecs, Memory, block_bytes
from sotol.backends.cpu.running.packing import Packing, cut_into_matrices, pack_key
from sotol.backends.cpu.running.room import room_for_panels, sizes_of
from sotol.backends.cpu.running.threads import NATIVE_KEYS, Tape, default_threads, join_team
from sotol.backends.cpu.target import Target, host_target
from sotol.backends.machine import whole_memory
from sotol.errors import ModelError, SotolError, explained
from sotol.formats.files import files_of
from sotol.formats.weights import Weight
from sotol.program import ops
from sotol.program.fuse import PRODUCTS, fuse
from sotol.program.memory import BLOCK_TOKENS, Copy, Group, group_caches
from sotol.program.plan import plan_memory
from sotol.program.program import Node, Operand, Program, StepInput
from sotol.program.runner import Results, vocabulary_of
from sotol.program.step import Limits, Step
from sotol.progress import Progress

__all__ = ["MOST_THREADS", "CpuRunner", "OpTime", "panel_bytes"]

MOST_THREADS = 1024
CODECS = ("f16", "f32")
SMALLER = "give a smaller ctx, or take a smaller model"


class OpTime(NamedTuple):
    """One op's share of a step, for profiles. The node's weights have names, encodings and shapes, but no bytes."""

    node: Node
    kernel: str
    seconds: float


class _Dropped(NamedTuple):
    """The `Source` of weights whose bytes are panels now."""

    shape: tuple[int, int]
    arrays: Sequence[Bytes] = ()

    def rows(self, first: int, end: int) -> Bytes:  # noqa: ARG002
        raise SotolError("the bytes of a weight were dropped once the backend had its panels")


class CpuRunner:
    """Runs steps of a program on this machine's CPU. One call at a time: callers take turns.

    codecs: how caches store keys and values. A sequence gets the same bits for any number of threads, on any CPU level,
    and with any other sequences in the step.
    """

    def __init__(
        self,
        program: Program,
        limits: Limits,
        *,
        threads: int | None = None,
        codecs: Codecs | str = "f16",
        target: Target | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Raises ModelError for what the CPU backend lacks, ValueError for a bad option, SotolError where the machine
        has too little memory or gives no threads, FormatError for a file that changes meanwhile.
        """
        codecs = Codecs(codecs, codecs) if isinstance(codecs, str) else codecs
        for codec in {codecs.keys, codecs.values, *(c for pair in codecs.others.values() for c in pair)}:
            if codec not in CODECS:
                raise ValueError(f"a cache's codec is one of {CODECS}: not {codec!r:.80}")
        count = default_threads() if threads is None else threads
        if not 1 <= count <= MOST_THREADS:
            raise ValueError(f"threads must be from 1 to {MOST_THREADS}: not {count}")
        if not program.results:
            raise ModelError("a program without results: nothing could be seen of it")
        self._program = fuse(program)
        for problem in missing(self._program, LOWERINGS, limits.context):
            raise ModelError(problem)
        self.groups, self.limits, self.threads = group_caches(self._program.caches()), limits, count
        limits.check_groups(self.groups)
        pages = {c.name for group in self.groups if not group.state for c in group.caches}
        for name in codecs.others.keys() - pages:
            raise ValueError(f"codecs for {name!r:.80}: the program has no such cache of keys and values")
        self._ids = vocabulary_of(self._program)
        matrices, files = _matrices(self._program), files_of(self._program.weights())
        try:
            apart = _experts_in_file(self.groups, limits, codecs, matrices)
            with explained("setting aside memory for the model", SMALLER):
                room = room_for_panels(matrices, experts_in_file=apart)
                plan = plan_memory(self._program, lambda node, output: result_bytes(node.results[output], limits))
                self._memory = Memory(self._program, plan, limits, self.groups, codecs, room)
                self._calls = lower(self._program, plan.phases, self._memory, LOWERINGS)
        finally:
            _drop_bytes(self._program)  # `matrices` still has those that will be packed
        library = library_for(target or host_target())
        keys = [*(call.key for call in self._calls), *map(pack_key, matrices), *NATIVE_KEYS]
        codes = library.load(keys, partial(progress, "compiling kernels") if progress is not None else None)
        work = [
            (matrix, panels, codes[pack_key(matrix)])
            for weight in matrices
            for matrix, panels in cut_into_matrices(weight, self._memory.packed[id(weight)])
        ]
        fields = {key: parse_fields(codes[key].fields) for key in dict.fromkeys(call.key for call in self._calls)}
        self._blocks = [_argument_block(call, fields[call.key]) for call in self._calls]
        tape = [
            (codes[call.key].address, block.ctypes.data, call.last)
            for call, block in zip(self._calls, self._blocks, strict=True)
        ]
        self._tape = Tape(np.array(tape, np.int64), count, (self._memory, self._blocks))
        self._packing = Packing(work, count, files)
        try:
            self._team = join_team(library, self._tape)
        except BaseException:
            self._packing.stop()
            raise
        self._finalizer = weakref.finalize(self, self._team.remove, self._tape)
        self._finalizer.atexit = False

    def wait(self, progress: Progress) -> None:
        """Wait until the weights are packed, which happens in the background. `run` waits by itself."""
        self._packing.wait(lambda done, total: progress("loading weights", done, total))

    def run(self, step: Step) -> Results:
        """The program's results, valid until the next run. ValueError for a step beyond the limits."""
        step.check(self.limits, self.groups, self._ids)
        self._packing.wait()
        self._team.run(self._tape, lambda: self._memory.fill(step))
        return {name: self._memory.rows(x, step.count(str(x.shape[0]))) for name, x in self._program.results.items()}

    def copy(self, copies: Sequence[Copy]) -> None:
        """Copy blocks, in order."""
        for group, source, to in copies:
            self.limits.check_block(group, source)
            self.limits.check_block(group, to)
        self._memory.copy(copies)

    def read(self, group: int, block: int) -> bytes:
        """A block of all the group's caches, as kernels have it."""
        self.limits.check_block(group, block)
        return self._memory.read(group, block)

    def write(self, group: int, block: int, data: bytes) -> None:
        """Give a block what `read` gave; ValueError for data of another size."""
        self.limits.check_block(group, block)
        self._memory.write(group, block, data)

    def profile(self, step: Step, seconds: Callable[[], float]) -> list[OpTime]:
        """Run a step and measure each op; seconds: a clock."""
        step.check(self.limits, self.groups, self._ids)
        self._packing.wait()
        times = np.zeros(len(self._calls) + 1, np.int64)
        begin = seconds()
        self._team.run(self._tape, lambda: self._memory.fill(step), times)
        whole = seconds() - begin
        fractions = np.diff(times) / max(1, times[-1] - times[0])
        nodes = self._program.nodes
        return [
            OpTime(nodes[call.node], str(call.key[0]), whole * float(fraction))
            for call, fraction in zip(self._calls, fractions, strict=True)
        ]

    def memory(self) -> dict[str, int]:
        """Bytes reserved for panels, the cache and results. Pages of the last two are allocated at their first use."""
        return self._memory.sizes()

    def close(self) -> None:
        """End the threads. Steps that wait for the weights fail. Any thread may call this."""
        try:
            self._packing.stop()
        finally:
            self._team.remove(self._tape)
            self._finalizer.detach()


def block_sizes(groups: Sequence[Group], codecs: Codecs) -> list[int]:
    """Bytes of a block of each group."""
    return [sum(block_bytes(cache, codecs) for cache in group.caches) for group in groups]


def panel_bytes(program: Program) -> int:
    """The memory that a program's matrices take as panels; ValueError for an encoding that there are none for."""
    return sizes_of(_matrices(program)).all


def _matrices(program: Program) -> list[Weight]:
    """The weights of the program that become panels, each once: matrices, or those of experts [E, N, K]."""
    nodes = [part for node in program.nodes for part in node.parts or (node,)]
    inputs = [x for node in nodes if node.op in (*PRODUCTS, ops.embed) for x in node.inputs]
    return list(dict.fromkeys(x for x in inputs if isinstance(x, Weight)))


def _drop_bytes(program: Program) -> None:
    """Drop the bytes of the program's weights, in place. Names, encodings and shapes stay, for profiles."""
    bare: dict[Operand, Operand] = {}
    for x in {x for node in program.nodes for x in node.inputs}:
        match x:
            case Weight():
                bare[x] = replace(x, source=_Dropped(x.source.shape))
            case StepInput():  # of the program that this one was made from, which has the weights
                bare[x] = replace(x, program=program)

    program.nodes = [_replaced(node, bare) for node in program.nodes]


def _replaced(node: Node, new: Mapping[Operand, Operand]) -> Node:
    """The node with other inputs. (Not a function within: one that calls itself would keep the weights alive.)"""
    if new.keys().isdisjoint(node.inputs):
        return node
    inputs, parts = tuple(new.get(x, x) for x in node.inputs), tuple(_replaced(part, new) for part in node.parts)
    return node._replace(inputs=inputs, parts=parts)


def _experts_in_file(groups: Sequence[Group], limits: Limits, codecs: Codecs, matrices: Sequence[Weight]) -> bool:
    """Whether this machine can hold the weights, and one full context of keys and values, only without the experts.

    SotolError where it can't hold even that.
    """
    panels, sizes = sizes_of(matrices), block_sizes(groups, codecs)
    token = sum(size // BLOCK_TOKENS for size, group in zip(sizes, groups, strict=True) if not group.state)
    needed, there = panels.all + token * limits.context, whole_memory()
    if needed - panels.experts > there:
        raise SotolError(
            f"the model needs {needed >> 20} MB of memory ({panels.all >> 20} for weights, {token} bytes for each of"
            f" {limits.context} tokens of context), and this machine has {there >> 20} MB: {SMALLER}"
        )
    return needed > there


def _argument_block(call: Call, fields: Sequence[Field]) -> npt.NDArray[np.int64]:
    """A call's arguments laid out as its kernel declares them."""
    names = [name for name, _ in fields]
    if set(names) != call.arguments.keys():
        raise SotolError(f"kernel {call.key} takes {names}, not {sorted(call.arguments)}")
    values = (call.arguments[name] for name in names)
    numbers = [_bits(x) if kind == "f32" else int(x) for x, (_, kind) in zip(values, fields, strict=True)]
    return np.array(numbers, np.int64)


def _bits(x: float) -> int:
    """The bits of x as float32, in the low half of a word."""
    return int.from_bytes(struct.pack("<f", x), "little")
