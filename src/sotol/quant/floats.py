"""Weights stored as floating-point numbers: F32, F16 and BF16, blocks of one number."""

import numpy as np

from sotol.quant.encoding import Encoding, to_half
from sotol.quant.layout import Float32Array, UInt8Array

__all__ = ["FLOATS"]


def decode_f32(data: UInt8Array) -> Float32Array:
    """[..., 4 n] bytes -> [..., n], a view."""
    return data.view("<f4")


def encode_f32(x: Float32Array) -> UInt8Array:
    """[..., n] -> [..., 4 n] bytes, a view where x allows it."""
    return np.ascontiguousarray(x, "<f4").view(np.uint8)


def decode_f16(data: UInt8Array) -> Float32Array:
    """[..., 2 n] bytes -> [..., n]."""
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


FLOATS = (
    Encoding("F32", values=1, size=4, ggml_type=0, decode=decode_f32, encode=encode_f32),
    Encoding("F16", values=1, size=2, ggml_type=1, decode=decode_f16, encode=encode_f16),
    Encoding("BF16", values=1, size=2, ggml_type=30, decode=decode_bf16, encode=encode_bf16),
)
