"""Floats of 4 and 8 bits as their formats define them, without sotol's tables."""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["E2M1", "FP4", "NF4", "e4m3", "e5m2"]

Array = npt.NDArray[Any]
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
NF4 = np.array([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
], np.float32)  # fmt: skip
FP4 = np.array([0, 0.0625, 8, 12, 4, 6, 2, 3, -0.0, -0.0625, -8, -12, -4, -6, -2, -3], np.float32) / np.float32(12)


def e4m3(codes: Array) -> npt.NDArray[np.float32]:
    """OCP 8-bit Floating Point v1.0, E4M3: without infinities, and with one NaN of either sign."""
    return np.where(codes.astype(np.int64) & 127 == 127, np.float32(np.nan), _floats(codes, 4, 3, 7))


def e5m2(codes: Array) -> npt.NDArray[np.float32]:
    """OCP 8-bit Floating Point v1.0, E5M2: as IEEE 754 has it for other sizes."""
    size, sign = codes.astype(np.int64) & 127, np.where(codes.astype(np.int64) > 127, -1, 1)
    beyond = np.where(size == 124, np.inf, np.nan) * sign
    return np.where(size < 124, _floats(codes, 5, 2, 15), beyond).astype(np.float32)


def _floats(codes: Array, exponent_bits: int, mantissa_bits: int, bias: int) -> npt.NDArray[np.float32]:
    codes = codes.astype(np.int64)
    exponent, mantissa = codes >> mantissa_bits & (1 << exponent_bits) - 1, codes & (1 << mantissa_bits) - 1
    fraction = mantissa / 2.0**mantissa_bits
    size = np.where(exponent == 0, fraction * 2.0 ** (1 - bias), (1 + fraction) * 2.0 ** (exponent - bias))
    return np.where(codes >> 7 == 1, -size, size).astype(np.float32)
