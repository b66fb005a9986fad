"""RMS norm, and the quantisation of activations to int8. N width."""

import numpy as np
from numba import njit

from sotol.backends.cpu.compile import Kernel
from sotol.backends.cpu.layout import QUANT_RECORD
from sotol.backends.cpu.simd import (
    absolute,
    fma,
    lane_max,
    lane_sum,
    load,
    maximum,
    rint,
    splat,
    sqrt,
    store,
    store_bytes,
    store_f32,
    to_int,
)
from sotol.backends.cpu.target import Target

ROWS = 4  # rows of a piece


def rms_norm(_target: Target) -> Kernel:
    """x / rms(x) * weight over the last axis of rows x each vectors."""

    def pieces(a):
        return (a.rows * a.each + ROWS - 1) // ROWS

    def piece(a, p):
        for row in range(p * ROWS, min((p + 1) * ROWS, a.rows * a.each)):
            x, out = a.x + row * a.width * 4, a.out + row * a.width * 4
            total = splat(np.float32(0))
            for i in range(0, 4 * a.width, 64):
                v = load(x + i)
                total = fma(v, v, total)
            mean = lane_sum(total) / np.float32(a.width)
            factor = splat(np.float32(1) / sqrt(mean + a.eps))
            for i in range(0, 4 * a.width, 64):
                store(out + i, load(x + i) * factor * load(a.weight + i))

    return Kernel("rows:count each width eps:f32 x weight out", pieces, piece)


@njit(error_model="numpy")
def quantize_group(x, out, quant):
    """32 f32 at x -> 32 int8 at out; at quant their scale and the sums of the int8: all, first half, second half."""
    first, second = load(x), load(x + 64)
    most = lane_max(maximum(absolute(first), absolute(second)))
    inverse = splat(np.float32(127) / most if most > np.float32(0) else np.float32(0))
    low, high = rint(first * inverse), rint(second * inverse)
    store_bytes(out, to_int(low))
    store_bytes(out + 16, to_int(high))
    low_sum, high_sum = lane_sum(low), lane_sum(high)  # of small integers: exact
    store_f32(quant, most / np.float32(127))
    store_f32(quant + 4, low_sum + high_sum)
    store_f32(quant + 8, low_sum)
    store_f32(quant + 12, high_sum)


def quantize(_target: Target) -> Kernel:
    """Rows of f32 to int8 in groups of 32."""

    def pieces(a):
        return (a.rows + ROWS - 1) // ROWS

    def piece(a, p):
        groups = a.width // 32
        for g in range(p * ROWS * groups, min((p + 1) * ROWS, a.rows) * groups):
            quantize_group(a.x + 128 * g, a.out + 32 * g, a.quant + QUANT_RECORD * g)

    return Kernel("rows:count width x out quant", pieces, piece)
