"""Blocks of floats of four bits without a search, as native code: the bytes of `quant/curves.py`'s encoders of MXFP4
and NVFP4.
"""

import numpy as np

from sotol.backends.cpu.kernels.fit import compiled, number
from sotol.backends.cpu.layout import VECTOR_BYTES
from sotol.backends.cpu.vectors.choosing import choose
from sotol.backends.cpu.vectors.simd import (
    absolute,
    lane_max,
    load,
    load_f32,
    load_i32,
    load_i64,
    maximum,
    splat,
    stack,
    store_bytes,
    store_f32,
    store_i32,
    store_i64,
    to_int,
)  # fmt: skip
from sotol.quant.curves import DOUBLED_E2M1, LARGEST_E2M1

NUMBERS = tuple(map(float, DOUBLED_E2M1[:8]))
LARGEST_E4M3 = 448.0


@compiled
def nearest(x, step):
    """The codes of the nearest step * number of 16 numbers, the smaller one of two: `curves.nearest_e2m1`."""
    size, zero = absolute(x), number(0)
    least, code = size, zero
    for i in range(1, 8):
        error = absolute(number(NUMBERS[i]) * step - size)
        code = choose(least, error, number(i), code)
        least = choose(least, error, error, least)
    signed = choose(code, zero, code + number(8), zero)
    return choose(zero, x, signed, code)


@compiled
def bits_of(x, place):
    """The bits of a float32, by way of a place in memory."""
    store_f32(place, x)
    return load_i32(place)


@compiled
def float_of(bits, place):
    """The float32 of these bits, by way of a place in memory."""
    store_i32(place, np.int32(bits))
    return load_f32(place)


def block_of_mxfp4(_store_half):
    """block(x, out) -> 0: a power of two, 16 bytes of 2 codes, 16 numbers apart."""

    @compiled
    def block(x, out):
        low, high, place = load(x), load(x + VECTOR_BYTES), stack(VECTOR_BYTES)
        exponent = bits_of(lane_max(maximum(absolute(low), absolute(high))), place) >> np.int32(23)
        stored = max(exponent - np.int32(2), np.int32(0))
        step = float_of(np.int32(0x00200000) << stored if stored < 2 else (stored - np.int32(1)) << np.int32(23), place)
        wide = splat(step)
        store_i32(out, stored)  # its first byte stays
        store_bytes(out + 1, to_int(nearest(low, wide) + number(16) * nearest(high, wide)))
        return 0

    return block


def block_of_nvfp4(_store_half):
    """block(x, out) -> whether a number is beyond what E4M3 times E2M1 reaches: 4 factors, 4 times 8 bytes of 2 codes,
    8 numbers apart."""

    @compiled
    def block(x, out):
        beyond, factors, place = 0, np.int32(0), stack(VECTOR_BYTES)
        for i in range(4):
            v = load(x + VECTOR_BYTES * i)
            largest = lane_max(absolute(v))
            beyond |= largest > np.float32(LARGEST_E4M3 * LARGEST_E2M1)
            stored = rounded(min(largest / np.float32(LARGEST_E2M1), np.float32(LARGEST_E4M3)), place)
            factors |= stored << np.int32(8 * i)
            store_bytes(place, to_int(nearest(v, splat(decoded(stored, place)))))
            store_i64(out + 4 + 8 * i, load_i64(place) | load_i64(place + 8) << 4)
        store_i32(out, factors)
        return beyond

    return block


@compiled
def rounded(x, place):
    """The E4M3 nearest to x, halves away from zero: `curves.to_e4m3`."""
    if x < np.float32(2.0**-6):
        return min(np.int32(x * np.float32(512) + np.float32(0.5)), np.int32(7))
    bits = (bits_of(x, place) + np.int32(1 << 19)) >> np.int32(20)
    return min(max(bits - np.int32((127 - 7) << 3), np.int32(0)), np.int32(0x7E))


@compiled
def decoded(stored, place):
    """Half of what an E4M3 >= 0 stands for: `layout.decode_e4m3_half`."""
    exponent, mantissa = stored >> np.int32(3), stored & np.int32(7)
    if exponent == 0:
        return np.float32(mantissa) * np.float32(2.0**-10)
    return float_of((exponent + np.int32(127 - 8)) << np.int32(23) | mantissa << np.int32(20), place)
