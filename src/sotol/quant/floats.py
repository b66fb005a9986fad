"""Weights stored as numbers of their own: F32, F16, BF16 and F64, whole numbers of 8 to 64 bits, and truth values.

All become float32, which rounds what has more than 24 bits.
"""

from functools import partial

import numpy as np

from sotol.quant.encoding import Encoding, to_half
from sotol.quant.layout import Float32Array, UInt8Array

__all__ = ["FLOATS", "UNSIGNED", "WHOLES", "encode_f32"]


def decode_f32(data: UInt8Array) -> Float32Array:
    """[..., 4 n] bytes -> [..., n], a view."""
    return data.view("<f4")


def encode_f32(x: Float32Array) -> UInt8Array:
    """[..., n] -> [..., 4 n] bytes, a view where x allows it."""
    return np.ascontiguousarray(x, "<f4").view(np.uint8)


def decode_f16(data: UInt8Array) -> Float32Array:
    """[..., 2 n] bytes -> [..., n]."""
    with np.errstate(invalid="ignore"):  # a broken file may hold a NaN that some CPUs tell of
        return data.view("<f2").astype(np.float32)


def encode_f16(x: Float32Array) -> UInt8Array:
    """[..., n] -> [..., 2 n] bytes; ValueError for finite numbers beyond 65504."""
    return to_half(np.ascontiguousarray(x)).view(np.uint8)


def decode_bf16(data: UInt8Array) -> Float32Array:
    """[..., 2 n] bytes -> [..., n]: a bfloat16 is the upper half of a float32."""
    return (data.view("<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)


def encode_bf16(x: Float32Array) -> UInt8Array:
    """[..., n] -> [..., 2 n] bytes, rounded to nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + np.uint64(0x7FFF) + ((bits >> np.uint64(16)) & np.uint64(1))) >> np.uint64(16)
    quiet = (bits >> np.uint64(16)) | np.uint64(0x40)  # rounding could carry a NaN's mantissa into infinity
    return np.where(np.isnan(x), quiet, rounded).astype("<u2").view(np.uint8)


def decode_as(dtype: str, data: UInt8Array) -> Float32Array:
    """[..., size * n] bytes of numbers of a NumPy type -> [..., n], rounded to the nearest; infinite beyond float32."""
    with np.errstate(over="ignore", invalid="ignore"):  # the latter as in `decode_f16`
        return data.view(dtype).astype(np.float32)


def encode_f64(x: Float32Array) -> UInt8Array:
    """[..., n] -> [..., 8 n] bytes."""
    return np.ascontiguousarray(x, "<f8").view(np.uint8)


FLOATS = (
    Encoding("F32", values=1, size=4, ggml_type=0, decode=decode_f32, encode=encode_f32),
    Encoding("F16", values=1, size=2, ggml_type=1, decode=decode_f16, encode=encode_f16),
    Encoding("BF16", values=1, size=2, ggml_type=30, decode=decode_bf16, encode=encode_bf16),
    Encoding("F64", values=1, size=8, ggml_type=28, decode=partial(decode_as, "<f8"), encode=encode_f64, recoded="F32"),
)
WHOLES = tuple(
    Encoding(name, values=1, size=size, ggml_type=kind, decode=partial(decode_as, f"<i{size}"), recoded="F32")
    for name, kind, size in (("I8", 24, 1), ("I16", 25, 2), ("I32", 26, 4), ("I64", 27, 8))
)
# What SafeTensors has besides, and GGML has not.
UNSIGNED = tuple(
    Encoding(name, values=1, size=np.dtype(dtype).itemsize, decode=partial(decode_as, dtype), recoded="F32")
    for name, dtype in (("U8", "<u1"), ("U16", "<u2"), ("U32", "<u4"), ("U64", "<u8"), ("BOOL", "?"))
)
