"""The loops that `limits.py` times, from the primitives that the CPU backend's kernels are made of.

Importing this imports Numba.
"""

import ctypes
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sotol.backends.cpu.building.compile import emit
from sotol.backends.cpu.layout import LANES
from sotol.backends.cpu.target import Target
from sotol.backends.cpu.vectors.simd import (
    I8,
    I16,
    I32,
    VF,
    Builder,
    Value,
    call,
    constant,
    fma_ir,
    i32x16,
    lane_sum,
    load,
    load_ir,
    offset,
    prefetch,
    splat,
    splat_ir,
    store_bytes,
    to_int,
)
from sotol.backends.cpu.vectors.tiles import load_rows, rows_of, store_rows, tile_of

__all__ = ["Loop", "compiled", "floats", "int8", "reader"]

Loop = Callable[..., int]
CHAINS = {4: 3, 8: 6, 16: 12}  # f32 tiles' rows, by f32 lanes of the hardware: enough to hide the latency of an fma


_ENGINES: list[Any] = []  # hold the code that functions of `compiled` run


def compiled(loop: Loop, parameters: int, target: Target) -> Loop:
    """The loop as a native function of so many integers."""
    code = emit(loop, parameters, "loop", target)  # first: Numba makes LLVM ready
    machine = llvm.Target.from_default_triple().create_target_machine(reloc="pic", codemodel="small", jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    native = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * parameters)
    _ENGINES.append(engine)
    return native(engine.get_function_address("loop"))


def reader(*, prefetching: bool) -> Loop:
    """read(address, size, stride, advance, ahead): four vectors `stride` bytes apart, then again `advance` bytes on."""

    def read(address: int, size: int, stride: int, advance: int, ahead: int) -> int:
        a = b = c = d = splat(np.float32(0))
        for i in range(size // 256):
            at = address + i * advance
            if prefetching:
                for k in range(4):
                    prefetch(at + k * stride + ahead, 64)
            a, b = a + load(at), b + load(at + stride)
            c, d = c + load(at + 2 * stride), d + load(at + 3 * stride)
        return int(lane_sum(a + b + (c + d)))

    return read


# ---- int8


def _pairs(b: Builder, weights: Sequence[Value], x: Value, multiply: str, widen: str) -> Value:
    """VPMADDUBSW: sums of eight pairs are exact in 16 bits where weights have four."""
    half, quarter = ir.VectorType(I16, x.type.count // 2), ir.VectorType(I32, x.type.count // 4)
    pairs = [call(b, multiply, half, w, x) for w in weights]
    return call(b, widen, quarter, reduce(b.add, pairs), constant(half, 1))


def _accumulated(b: Builder, weights: Sequence[Value], x: Value, name: str) -> Value:
    """VPDPBUSD, in two chains for its latency."""
    sums = [constant(ir.VectorType(I32, x.type.count // 4), 0)] * 2
    for j, w in enumerate(weights):
        sums[j % 2] = call(b, name, sums[j % 2].type, sums[j % 2], w, x)
    return b.add(*sums)


def _plain(b: Builder, weights: Sequence[Value], x: Value) -> Value:
    """Products of i32, byte by byte."""
    kind = ir.VectorType(I32, x.type.count // 4)
    inputs, total = b.bitcast(x, kind), constant(kind, 0)
    for j, w in enumerate(weights):
        for i in range(4):
            q = b.and_(b.lshr(b.bitcast(w, kind), constant(kind, 8 * i)), constant(kind, 255))
            total = b.add(total, b.mul(q, b.xor(inputs, constant(kind, 4 * j + i))))
    return total


# form of the dot product: i32 lanes of a register, the products of eight registers with one, the instructions for it
INT8: dict[str, tuple[int, Callable[..., Value], tuple[str, ...]]] = {
    "generic": (16, _plain, ()),
    "avx2": (8, _pairs, ("llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd")),
    "avx512": (16, _pairs, ("llvm.x86.avx512.pmaddubs.w.512", "llvm.x86.avx512.pmaddw.d.512")),
    "avxvnni": (8, _accumulated, ("llvm.x86.avx512.vpdpbusd.256",)),
    "vnni": (16, _accumulated, ("llvm.x86.avx512.vpdpbusd.512",)),
    "amx": (16, _accumulated, ("llvm.x86.avx512.vpdpbusd.512",)),  # what its vectors do: the tiles do more
}


def int8(target: Target) -> tuple[Loop, int]:
    """The int8 products of the level's dot product, operands in registers, and how many a round has."""
    lanes, products, instructions = INT8[target.dot]
    register, whole = ir.VectorType(I8, 4 * lanes), ir.VectorType(I32, lanes)
    both = ir.Constant(ir.VectorType(I32, LANES), list(range(LANES)))

    @intrinsic  # type: ignore[untyped-decorator]
    def add_products(_context: Any, _sums: Any, _weights: Any, _x: Any) -> Any:
        """sums + products of the same eight registers of weights with inputs that differ from round to round."""

        def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
            weights = [load_ir(b, offset(b, args[1], 4 * lanes * j), register) for j in range(8)]
            inputs = splat_ir(b, b.trunc(args[2], I32), whole)
            parts = [
                products(b, weights, b.bitcast(b.xor(inputs, constant(whole, k)), register), *instructions)
                for k in range(LANES // lanes)
            ]
            return b.add(args[0], b.shuffle_vector(*parts, both) if len(parts) > 1 else parts[0])

        return i32x16(i32x16, types.int64, types.int64), generate

    def loop(rounds: int, memory: int) -> int:
        sums = to_int(splat(np.float32(0)))
        for i in range(rounds):
            sums = add_products(sums, memory, i)
        store_bytes(memory, sums)
        return 0

    return loop, 8 * 4 * LANES


def floats(target: Target) -> tuple[Loop, int]:
    """f32 multiply-adds in registers, and how many a round has."""
    rows = CHAINS[target.lanes]

    @intrinsic  # type: ignore[untyped-decorator]
    def multiply_add(_context: Any, tile: Any) -> Any:
        def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
            half = constant(VF, 0.5)  # v / 2 + 1 / 2 tends to 1: no infinities, no subnormals
            return tile_of(b, [[fma_ir(b, v, half, half) for v in row] for row in rows_of(b, tile, args[0])])

        return tile(tile), generate

    def loop(rounds: int, memory: int) -> int:
        tile = load_rows(rows, 1, memory, 64)
        for _ in range(rounds):
            tile = multiply_add(tile)
        store_rows(tile, memory, 64)
        return 0

    return loop, rows * LANES
