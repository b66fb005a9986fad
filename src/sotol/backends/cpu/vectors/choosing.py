"""Vectors whose lanes decide for themselves, and lanes that lie apart in memory: what encoders need (`kernels/fit.py`,
`kernels/rounding.py`).

Importing this imports Numba, as `simd.py` does.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sotol.backends.cpu.layout import LANES
from sotol.backends.cpu.vectors.simd import (
    F32,
    I8,
    I32,
    I64,
    VF,
    VI,
    call,
    clamp_ir,
    f16_to_f32_ir,
    f32_to_f16_ir,
    f32x16,
    i32x16,
    load_ir,
    splat_ir,
    stack_ir,
    store_ir,
)  # fmt: skip

LARGEST_F16 = 65504.0


@intrinsic
def choose(_context: Any, _a: Any, _b: Any, _x: Any, _y: Any) -> Any:
    """Lane by lane: x where a > b, else y."""

    def generate(_c: Any, b: Any, _s: Any, args: Any) -> Any:
        return b.select(b.fcmp_ordered(">", args[0], args[1]), args[2], args[3])

    return f32x16(f32x16, f32x16, f32x16, f32x16), generate


@intrinsic
def square_root(_context: Any, _v: Any) -> Any:
    """The correctly rounded square roots of 16 lanes."""

    def generate(_c: Any, b: Any, _s: Any, args: Any) -> Any:
        return call(b, "llvm.sqrt.v16f32", VF, args[0])

    return f32x16(f32x16), generate


@intrinsic
def truncated(_context: Any, _v: Any) -> Any:
    """16 lanes, which must be within int32, rounded towards zero. (Old CPUs have no instruction that gives floats.)"""

    def generate(_c: Any, b: Any, _s: Any, args: Any) -> Any:
        return b.sitofp(b.fptosi(args[0], VI), VF)

    return f32x16(f32x16), generate


@intrinsic
def digit(_context: Any, _v: Any, _shift: Any, _bits: Any) -> Any:
    """The number in some bits, from bit `shift` on, of 16 lanes of whole numbers >= 0."""

    def generate(_c: Any, b: Any, _s: Any, args: Any) -> Any:
        v, shift, bits = args
        mask = b.sub(b.shl(ir.Constant(I64, 1), bits), ir.Constant(I64, 1))
        moved = b.lshr(b.fptosi(v, VI), splat_ir(b, b.trunc(shift, I32), VI))
        return b.sitofp(b.and_(moved, splat_ir(b, b.trunc(mask, I32), VI)), VF)

    return f32x16(f32x16, types.int64, types.int64), generate


@intrinsic
def lanes_above(_context: Any, _a: Any, _b: Any) -> Any:
    """A bit for each lane, lane 0 lowest: whether a > b."""

    def generate(_c: Any, b: Any, _s: Any, args: Any) -> Any:
        bits = b.bitcast(b.fcmp_ordered(">", args[0], args[1]), ir.IntType(LANES))
        return b.zext(bits, I64)

    return types.int64(f32x16, f32x16), generate


@intrinsic
def gather(_context: Any, _address: Any, _stride: Any) -> Any:
    """16 f32 at address, address + stride, … (stride in bytes)."""

    def generate(_c: Any, b: Any, _s: Any, args: Any) -> Any:
        address, stride = args
        v = ir.Constant(VF, ir.Undefined)
        for lane in range(LANES):
            v = b.insert_element(v, load_ir(b, address, F32), ir.Constant(I32, lane))
            address = b.add(address, stride)
        return v

    return f32x16(types.int64, types.int64), generate


@intrinsic(prefer_literal=True)
def scatter_bytes(_context: Any, address: Any, stride: Any, v: Any) -> Any:
    """The lowest bytes of 16 integer lanes to address, address + stride, … (stride in bytes, a literal)."""
    apart = stride.literal_value

    def generate(c: Any, b: Any, _s: Any, args: Any) -> Any:
        small = b.trunc(args[2], ir.VectorType(I8, LANES))
        for lane in range(LANES):
            place = b.add(args[0], ir.Constant(I64, apart * lane))
            store_ir(b, b.extract_element(small, ir.Constant(I32, lane)), place)
        return c.get_dummy_value()

    return types.void(types.int64, stride, i32x16), generate


def rounder_to_half(form: str) -> Any:
    """rounded(v): 16 f32 rounded to f16, at most its largest number, in the target's form."""

    @intrinsic
    def rounded(_context: Any, _v: Any) -> Any:
        def generate(_c: Any, b: Any, _s: Any, args: Any) -> Any:
            place = stack_ir(b, 2 * LANES)
            store_ir(b, f32_to_f16_ir(form, b, clamp_ir(b, args[0], LARGEST_F16)), place)
            return f16_to_f32_ir(form, b, place)

        return f32x16(f32x16), generate

    return rounded


def half_storer(form: str) -> Any:
    """store(address, f32) -> 1 if it is beyond f16, else 0: a number as f16, in the target's form."""

    @intrinsic
    def store(_context: Any, _address: Any, _x: Any) -> Any:
        def generate(_c: Any, b: Any, _s: Any, args: Any) -> Any:
            bits = b.extract_element(f32_to_f16_ir(form, b, splat_ir(b, args[1], VF)), ir.Constant(I32, 0))
            store_ir(b, bits, args[0])
            infinite = b.icmp_unsigned(
                "==", b.and_(bits, ir.Constant(bits.type, 0x7FFF)), ir.Constant(bits.type, 0x7C00)
            )
            return b.zext(infinite, I64)

        return types.int64(types.int64, types.float32), generate

    return store
