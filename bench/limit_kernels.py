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

from sotol.backends.cpu import dots
from sotol.backends.cpu.compile import emit
from sotol.backends.cpu.simd import (
    I8,
    I16,
    I32,
    VF,
    WIDTH,
    Builder,
    Value,
    call,
    constant,
    fma_ir,
    i32x16,
    lane_sum,
    load,
    offset,
    prefetch,
    splat,
    splat_ir,
    store_bytes,
    to_int,
)
from sotol.backends.cpu.target import Target
from sotol.backends.cpu.tiles import load_rows, rows_of, store_rows, tile_of

__all__ = ["Loop", "compiled", "floats", "group_dots", "int8", "reader"]

Loop = Callable[..., int]
PRODUCTS = 32 * WIDTH  # multiply-adds of a group of 32 inputs and 16 rows for one token
TOKENS = 4  # that share a group's weights
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
    """read(address, size, stride, step, ahead): four vectors `stride` bytes apart, then again `step` bytes on."""

    def read(address: int, size: int, stride: int, step: int, ahead: int) -> int:
        a = b = c = d = splat(np.float32(0))
        for i in range(size // 256):
            at = address + i * step
            if prefetching:
                for k in range(4):
                    prefetch(at + k * stride + ahead, 64)
            a, b = a + load(at), b + load(at + stride)
            c, d = c + load(at + 2 * stride), d + load(at + 3 * stride)
        return int(lane_sum(a + b + (c + d)))

    return read


# ---- int8


def _pairs(b: Builder, weights: Sequence[Value], x: Value, multiply: str, widen: str) -> Value:
    """VPMADDUBSW: as `dots` does for weights of four bits, whose sums of eight pairs are exact in 16 bits."""
    half, quarter = ir.VectorType(I16, x.type.count // 2), ir.VectorType(I32, x.type.count // 4)
    pairs = [call(b, multiply, half, w, x) for w in weights]
    return call(b, widen, quarter, reduce(b.add, pairs), ir.Constant(half, [1] * half.count))


def _accumulated(b: Builder, weights: Sequence[Value], x: Value, name: str) -> Value:
    """VPDPBUSD, in two chains as `dots` has them."""
    sums = [ir.Constant(ir.VectorType(I32, x.type.count // 4), None)] * 2
    for j, w in enumerate(weights):
        sums[j % 2] = call(b, name, sums[j % 2].type, sums[j % 2], w, x)
    return b.add(*sums)


# form of the dot product: i32 lanes of a hardware register, eight registers' products with one, its instructions
INT8: dict[str, tuple[int, Callable[..., Value], tuple[str, ...]]] = {
    "avx2": (8, _pairs, ("llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd")),
    "avx512": (16, _pairs, ("llvm.x86.avx512.pmaddubs.w.512", "llvm.x86.avx512.pmaddw.d.512")),
    "avxvnni": (8, _accumulated, ("llvm.x86.avx512.vpdpbusd.256",)),
    "vnni": (16, _accumulated, ("llvm.x86.avx512.vpdpbusd.512",)),
}


def _summing(parts: Callable[[Builder, list[Value], Value], list[Value]]) -> Loop:
    """loop(rounds, memory): the sum of what `parts` makes of eight vectors of weights and an address that moves."""

    @intrinsic  # type: ignore[untyped-decorator]
    def add(_context: Any, _sums: Any, _weights: Any, _x: Any) -> Any:
        def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
            sums, weights, x = args
            for part in parts(b, [b.extract_value(weights, j) for j in range(dots.VECTORS)], x):
                sums = b.add(sums, part)
            return sums

        return i32x16(i32x16, dots.group_bytes, types.int64), generate

    load_weights = dots.unpacker(8)

    def loop(rounds: int, memory: int) -> int:
        sums, weights = to_int(splat(np.float32(0))), load_weights(memory)
        for i in range(rounds):
            sums = add(sums, weights, memory + 32 * (i & 63))
        store_bytes(memory, sums)
        return 0

    return loop


def int8(target: Target) -> tuple[Loop, int] | None:
    """The level's int8 products with all operands in registers, and how many a round has; None for levels without."""
    if target.dot not in INT8:
        return None
    lanes, products, instructions = INT8[target.dot]
    parts = WIDTH // lanes
    register, whole = ir.VectorType(I8, 4 * lanes), ir.VectorType(I32, lanes)

    def step(b: Builder, vectors: list[Value], x: Value) -> list[Value]:
        # Eight registers of weights, whatever their width; so that nothing is computed once for all, inputs differ.
        weights = [dots._part(b, vectors[j // parts], 4 * lanes * (j % parts), 4 * lanes) for j in range(dots.VECTORS)]
        inputs = splat_ir(b, b.trunc(x, I32), whole)
        sums = [
            products(b, weights, b.bitcast(b.xor(inputs, constant(whole, 1 + k)), register), *instructions)
            for k in range(parts)
        ]
        return [dots._join(b, sums)]

    return _summing(step), PRODUCTS


def group_dots(target: Target, bits: int) -> tuple[Loop, int]:
    """`dots.DOTS` alone: a group's weights of so many bits in registers, inputs of four tokens from the first cache."""

    def step(b: Builder, vectors: list[Value], x: Value) -> list[Value]:
        return dots.DOTS[target.dot](b, vectors, [offset(b, x, 64 * t) for t in range(TOKENS)], bits)

    return _summing(step), TOKENS * PRODUCTS


def floats(target: Target) -> tuple[Loop, int]:
    """f32 multiply-adds in registers."""
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

    return loop, rows * WIDTH
