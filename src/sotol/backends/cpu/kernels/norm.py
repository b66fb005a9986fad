"""RMS norm, and the quantisation of activations to int8. N width.

Rows of f32 are whole vectors apart (`layout.padded`), and what lies behind a row's last number is undefined. So a norm,
the only op that adds up the numbers of a row, takes its last vector in part. Quantised rows are multiples of 32 wide.
"""

import numpy as np
from numba import njit

from sotol.backends.cpu.kernel import Kernel
from sotol.backends.cpu.kernels.parts import load_part, store_part
from sotol.backends.cpu.layout import QUANT_RECORD
from sotol.backends.cpu.target import Target
from sotol.backends.cpu.vectors.simd import (
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

ROWS = 4  # rows of a piece


@njit(error_model="numpy")
def inverse_rms(x, width, eps):
    """1 / rms(x), in every lane."""
    total, whole = splat(np.float32(0)), width // 16 * 64
    for i in range(0, whole, 64):
        v = load(x + i)
        total = fma(v, v, total)
    if width % 16:
        v = load_part(x + whole, width % 16)
        total = fma(v, v, total)
    return splat(np.float32(1) / sqrt(lane_sum(total) / np.float32(width) + eps))


def rms_norm(_target: Target) -> Kernel:
    """x / rms(x) * weight over the last axis of rows x each vectors, which lie in rows `row` bytes apart.

    residual: 0, or the address of numbers to add to the results, laid out as they are.
    """

    def pieces(a):
        return (a.rows * a.each + ROWS - 1) // ROWS

    def piece(a, p):
        whole, rest = a.width // 16 * 64, a.width % 16
        for number in range(p * ROWS, min((p + 1) * ROWS, a.rows * a.each)):
            at = number // a.each * a.row + number % a.each * a.width * 4
            factor = inverse_rms(a.x + at, a.width, a.eps)
            for i in range(0, whole, 64):
                normed = load(a.x + at + i) * factor * load(a.weight + i)
                if a.residual:
                    normed = load(a.residual + at + i) + normed
                store(a.out + at + i, normed)
            if rest:
                normed = load_part(a.x + at + whole, rest) * factor * load(a.weight + whole)
                if a.residual:
                    normed = load_part(a.residual + at + whole, rest) + normed
                store_part(a.out + at + whole, normed, rest)

    return Kernel("rows:count each width row eps:f32 x weight residual out", pieces, piece)


@njit(error_model="numpy")
def quantize_group(first, second, out, quant):
    """32 f32 -> 32 int8 at out; at quant their scale and the sums of the int8: all, first half, second half.

    If any of them is NaN, so is the scale: the maximum may have passed it over.
    """
    most = lane_max(maximum(absolute(first), absolute(second)))
    inverse = splat(np.float32(127) / most if most > np.float32(0) else np.float32(0))
    low, high = rint(first * inverse), rint(second * inverse)
    store_bytes(out, to_int(low))
    store_bytes(out + 16, to_int(high))
    low_sum, high_sum = lane_sum(low), lane_sum(high)  # of small integers: exact
    total = low_sum + high_sum
    store_f32(quant, most / np.float32(127) + total * np.float32(0))
    store_f32(quant + 4, total)
    store_f32(quant + 8, low_sum)
    store_f32(quant + 12, high_sum)


def quantize(_target: Target) -> Kernel:
    """Rows of f32 to int8 in groups of 32."""

    def pieces(a):
        return (a.rows + ROWS - 1) // ROWS

    def piece(a, p):
        groups = a.width // 32
        for g in range(p * ROWS * groups, min((p + 1) * ROWS, a.rows) * groups):
            x = a.x + 128 * g
            quantize_group(load(x), load(x + 64), a.out + 32 * g, a.quant + QUANT_RECORD * g)

    return Kernel("rows:count width x out quant", pieces, piece)


def rms_norm_quantize(_target: Target) -> Kernel:
    """x / rms(x) * weight, row by row, as `quantize` leaves it."""

    def pieces(a):
        return (a.rows + ROWS - 1) // ROWS

    def piece(a, p):
        groups = a.width // 32
        for row in range(p * ROWS, min((p + 1) * ROWS, a.rows)):
            x = a.x + row * a.width * 4
            factor = inverse_rms(x, a.width, a.eps)
            for g in range(groups):
                at, to = 128 * g, row * groups + g
                first = load(x + at) * factor * load(a.weight + at)
                second = load(x + at + 64) * factor * load(a.weight + at + 64)
                quantize_group(first, second, a.out + 32 * to, a.quant + QUANT_RECORD * to)

    return Kernel("rows:count width eps:f32 x weight out quant", pieces, piece)
