"""The factors of 16 rows as f32, from the forms that encodings store them in: the keys of `quant.FACTORS`."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sotol.backends.cpu.layout import LANES
from sotol.backends.cpu.vectors.simd import (
    I8,
    VF,
    VI,
    Builder,
    Value,
    constant,
    f16_loader,
    f32x16,
    load,
    load_bfloats,
    load_ir,
)

__all__ = ["factor_loader", "multiplier_loader"]


def factor_loader(factor: str, f16: str) -> Any:
    """load(address) -> f32x16 of 16 factors of a form of `quant.FACTORS`; f16: the target's form of its conversion."""
    loaders = {"f32": load, "bf16": load_bfloats, "e8m0": _load_e8m0_half, "e4m3": _load_e4m3_half}
    return f16_loader(f16) if factor == "f16" else loaders[factor]


def multiplier_loader(*, floating: bool) -> Any:
    """load(address) -> f32x16 of 16 multipliers of a byte: `quant.Layout.floating` or int8."""
    return _load_e4m3_half if floating else load_multipliers


@intrinsic
def load_multipliers(_context: Any, _address: Any) -> Any:
    """16 int8 at an address as f32."""

    def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
        return b.sitofp(load_ir(b, args[0], ir.VectorType(I8, LANES)), VF)

    return f32x16(types.int64), generate


def _load_bytes(b: Builder, address: Value) -> Value:
    """16 bytes as i32."""
    return b.zext(load_ir(b, address, ir.VectorType(I8, LANES)), VI)


@intrinsic
def _load_e8m0_half(_context: Any, _address: Any) -> Any:
    """As `quant.layout.decode_e8m0_half`: the byte less 1 is the exponent, but 0 and 1 are subnormal."""

    def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
        x = _load_bytes(b, args[0])
        normal = b.shl(b.sub(x, constant(VI, 1)), constant(VI, 23))
        # 2^21 or 2^22: a shift by the lanes of a vector is slow where there is no instruction for it.
        subnormal = b.add(constant(VI, 1 << 21), b.shl(x, constant(VI, 21)))
        return b.bitcast(b.select(b.icmp_unsigned("<", x, constant(VI, 2)), subnormal, normal), VF)

    return f32x16(types.int64), generate


@intrinsic
def _load_e4m3_half(_context: Any, _address: Any) -> Any:
    """As `quant.layout.decode_e4m3_half`: exponent and mantissa move to their places in a f32, whose bias is another.

    What has the exponent 0 is a whole number of 2^-10.
    """

    def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
        stored = _load_bytes(b, args[0])
        is_nan = b.icmp_unsigned("==", stored, constant(VI, 127))
        x = b.and_(stored, constant(VI, 127))  # without the sign
        normal = b.add(b.shl(x, constant(VI, 20)), constant(VI, (127 - 7 - 1) << 23))
        subnormal = b.fmul(b.sitofp(x, VF), constant(VF, 2.0**-10))
        value = b.select(b.icmp_unsigned("<", x, constant(VI, 8)), subnormal, b.bitcast(normal, VF))
        return b.select(is_nan, constant(VF, 0.0), value)

    return f32x16(types.int64), generate
