"""RMS norm (Zhang & Sennrich 2019, arXiv 1910.07467) and layer norm (Ba et al. 2016, arXiv 1607.06450). N width.

Rows of f32 take whole vectors in memory (`layout.padded`), and what is behind a row's last number is undefined. A norm
sums over its row, so it must not read that: it loads only the first lanes of a row's last vector.
"""

import numpy as np
from numba import njit

from sotol.backends.cpu.kernel import Kernel
from sotol.backends.cpu.kernels.first_lanes import load_first, store_first
from sotol.backends.cpu.kernels.quantize import quantize_group
from sotol.backends.cpu.layout import GROUP, LANES, QUANT_RECORD, VECTOR_BYTES
from sotol.backends.cpu.target import Target
from sotol.backends.cpu.vectors.simd import fma, lane_sum, load, splat, sqrt, stack, store

PIECE_ROWS = 4


@njit(error_model="numpy")
def inverse_rms(x, width, eps):
    """1 / rms(x), in every lane."""
    total, whole = splat(np.float32(0)), width // LANES * VECTOR_BYTES
    for i in range(0, whole, VECTOR_BYTES):
        v = load(x + i)
        total = fma(v, v, total)
    if width % LANES:
        v = load_first(x + whole, width % LANES)
        total = fma(v, v, total)
    return splat(np.float32(1) / sqrt(lane_sum(total) / np.float32(width) + eps))


def rms_norm(_target: Target) -> Kernel:
    """x / rms(x) * weight for `each` vectors of `width` numbers in a row; rows are `row` bytes apart.

    residual: 0, or the address of numbers to add to the results, laid out like them. weight_step: bytes from the weight
    of a row's vector to that of the next one; 0: all have the same. A piece is four vectors.
    """

    def pieces(a):
        return (a.rows * a.each + PIECE_ROWS - 1) // PIECE_ROWS

    def piece(a, p):
        whole, rest = a.width // LANES * VECTOR_BYTES, a.width % LANES
        for number in range(p * PIECE_ROWS, min((p + 1) * PIECE_ROWS, a.rows * a.each)):
            at = number // a.each * a.row + number % a.each * a.width * 4
            weight = a.weight + number % a.each * a.weight_step
            factor = inverse_rms(a.x + at, a.width, a.eps)
            for i in range(0, whole, VECTOR_BYTES):
                normed = load(a.x + at + i) * factor * load(weight + i)
                if a.residual:
                    normed = load(a.residual + at + i) + normed
                store(a.out + at + i, normed)
            if rest:
                normed = load_first(a.x + at + whole, rest) * factor * load_first(weight + whole, rest)
                if a.residual:
                    normed = load_first(a.residual + at + whole, rest) + normed
                store_first(a.out + at + whole, normed, rest)

    return Kernel("rows:count each width row eps:f32 x weight weight_step residual out", pieces, piece)


def rms_norm_quantize(_target: Target) -> Kernel:
    """x / rms(x) * weight, row by row, quantized like the results of `quantize.quantize`. A piece is four rows."""

    def pieces(a):
        return (a.rows + PIECE_ROWS - 1) // PIECE_ROWS

    def piece(a, p):
        groups = a.width // GROUP
        for row in range(p * PIECE_ROWS, min((p + 1) * PIECE_ROWS, a.rows)):
            x = a.x + row * a.width * 4
            factor = inverse_rms(x, a.width, a.eps)
            for g in range(groups):
                at, number = 2 * VECTOR_BYTES * g, row * groups + g
                first = load(x + at) * factor * load(a.weight + at)
                second = load(x + at + VECTOR_BYTES) * factor * load(a.weight + at + VECTOR_BYTES)
                quantize_group(first, second, a.out + GROUP * number, a.quant + QUANT_RECORD * number)

    return Kernel("rows:count width eps:f32 x weight out quant", pieces, piece)


@njit(error_model="numpy")
def mean_of(x, width):
    """The mean of a row, in every lane."""
    total, whole = splat(np.float32(0)), width // LANES * VECTOR_BYTES
    for i in range(0, whole, VECTOR_BYTES):
        total = load(x + i) + total
    if width % LANES:
        total = load_first(x + whole, width % LANES) + total
    return splat(lane_sum(total) / np.float32(width))


@njit(error_model="numpy")
def inverse_deviation(x, width, mean, eps):
    """1 / the standard deviation of a row, in every lane."""
    total, whole = splat(np.float32(0)), width // LANES * VECTOR_BYTES
    for i in range(0, whole, VECTOR_BYTES):
        v = load(x + i) - mean
        total = fma(v, v, total)
    if width % LANES:
        lanes = stack(VECTOR_BYTES)
        store(lanes, load_first(x + whole, width % LANES) - mean)
        v = load_first(lanes, width % LANES)
        total = fma(v, v, total)
    return splat(np.float32(1) / sqrt(lane_sum(total) / np.float32(width) + eps))


def layer_norm(_target: Target) -> Kernel:
    """(x - mean) / standard deviation * weight for `each` vectors of `width` numbers in a row, `row` bytes apart.

    A piece is four vectors.
    """

    def pieces(a):
        return (a.rows * a.each + PIECE_ROWS - 1) // PIECE_ROWS

    def piece(a, p):
        whole, rest = a.width // LANES * VECTOR_BYTES, a.width % LANES
        for number in range(p * PIECE_ROWS, min((p + 1) * PIECE_ROWS, a.rows * a.each)):
            at = number // a.each * a.row + number % a.each * a.width * 4
            mean = mean_of(a.x + at, a.width)
            factor = inverse_deviation(a.x + at, a.width, mean, a.eps)
            for i in range(0, whole, VECTOR_BYTES):
                store(a.out + at + i, (load(a.x + at + i) - mean) * factor * load(a.weight + i))
            if rest:
                normed = (load_first(a.x + at + whole, rest) - mean) * factor * load(a.weight + whole)
                store_first(a.out + at + whole, normed, rest)

    return Kernel("rows:count each width row eps:f32 x weight out", pieces, piece)
