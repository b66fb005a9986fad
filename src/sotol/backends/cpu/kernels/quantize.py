"""Quantization of activations to int8, in groups of 32 along a row: what products with integer weights read.

`quantize_group` is also the end of fused kernels, which quantize what they have just computed.
"""

import numpy as np
from numba import njit

from sotol.backends.cpu.kernel import Kernel
from sotol.backends.cpu.layout import GROUP, LANES, QUANT_RECORD, VECTOR_BYTES
from sotol.backends.cpu.target import Target
from sotol.backends.cpu.vectors.simd import (
    absolute,
    lane_max,
    lane_sum,
    load,
    maximum,
    rint,
    splat,
    store_bytes,
    store_f32,
    store_i32,
    to_int,
)

PIECE_ROWS = 4


@njit(error_model="numpy")
def quantize_group(first, second, out, record):
    """A group's 32 f32, as two vectors, to 32 int8 at out.

    At record (`layout.QUANT_RECORD`): their scale, and the sums of the int8: all, first half, second half. If any input
    is NaN, so is the scale: adding 0 * the sum sees to it, since the maximum may have skipped a NaN.
    """
    most = lane_max(maximum(absolute(first), absolute(second)))
    inverse = splat(np.float32(127) / most if most > np.float32(0) else np.float32(0))
    low, high = rint(first * inverse), rint(second * inverse)
    store_bytes(out, to_int(low))
    store_bytes(out + LANES, to_int(high))
    low_sum, high_sum = lane_sum(low), lane_sum(high)  # of small integers: exact
    total = low_sum + high_sum
    store_f32(record, most / np.float32(127) + total * np.float32(0))
    for i, sum_ in enumerate((total, low_sum, high_sum)):
        store_f32(record + 4 + 4 * i, sum_)
        store_i32(record + 16 + 4 * i, np.int32(np.float32(-128) * sum_))


def quantize(_target: Target) -> Kernel:
    """Rows of f32 to int8: out [rows, width], quant [rows, width / 32] records. A piece is four rows."""

    def pieces(a):
        return (a.rows + PIECE_ROWS - 1) // PIECE_ROWS

    def piece(a, p):
        groups = a.width // GROUP
        for g in range(p * PIECE_ROWS * groups, min((p + 1) * PIECE_ROWS, a.rows) * groups):
            x = a.x + 2 * VECTOR_BYTES * g
            quantize_group(load(x), load(x + VECTOR_BYTES), a.out + GROUP * g, a.quant + QUANT_RECORD * g)

    return Kernel("rows:count width x out quant", pieces, piece)
