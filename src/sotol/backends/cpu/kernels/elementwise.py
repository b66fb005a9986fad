"""Ops that treat each number of a row alone. `width` is a row's width in memory: whole vectors (`layout.padded`)."""

import numpy as np
from numba import njit

from sotol.backends.cpu.kernel import Kernel
from sotol.backends.cpu.kernels.quantize import quantize_group
from sotol.backends.cpu.layout import GROUP, QUANT_RECORD, VECTOR_BYTES
from sotol.backends.cpu.target import Target
from sotol.backends.cpu.vectors.simd import exp, load, load_i32, splat, store, tanh

PIECE_BYTES = 16384  # of the result


def even_pieces(a):
    """The number of pieces where rows do not matter: the result is cut into pieces of PIECE_BYTES."""
    return (a.rows * a.width * 4 + PIECE_BYTES - 1) // PIECE_BYTES


def add(_target: Target) -> Kernel:
    """x + y."""

    def piece(a, p):
        for i in range(p * PIECE_BYTES, min((p + 1) * PIECE_BYTES, a.rows * a.width * 4), VECTOR_BYTES):
            store(a.out + i, load(a.x + i) + load(a.y + i))

    return Kernel("rows:count width x y out", even_pieces, piece)


def add_bias(_target: Target) -> Kernel:
    """x + bias, row by row. A piece is a row."""

    def pieces(a):
        return a.rows

    def piece(a, p):
        row = p * a.width * 4
        for i in range(0, a.width * 4, VECTOR_BYTES):
            store(a.out + row + i, load(a.x + row + i) + load(a.bias + i))

    return Kernel("rows:count width x bias out", pieces, piece)


def scale(_target: Target) -> Kernel:
    """x * factor."""

    def piece(a, p):
        factor = splat(a.factor)
        for i in range(p * PIECE_BYTES, min((p + 1) * PIECE_BYTES, a.rows * a.width * 4), VECTOR_BYTES):
            store(a.out + i, load(a.x + i) * factor)

    return Kernel("rows:count width factor:f32 x out", even_pieces, piece)


def soft_cap(_target: Target) -> Kernel:
    """cap * tanh(x / cap)."""

    def piece(a, p):
        cap = splat(a.cap)
        for i in range(p * PIECE_BYTES, min((p + 1) * PIECE_BYTES, a.rows * a.width * 4), VECTOR_BYTES):
            store(a.out + i, cap * tanh(load(a.x + i) / cap))

    return Kernel("rows:count width cap:f32 x out", even_pieces, piece)


@njit(error_model="numpy")
def silu(x):
    """x / (1 + e**-x)."""
    return x / (splat(np.float32(1)) + exp(splat(np.float32(0)) - x))


@njit(error_model="numpy")
def gelu_tanh(x):
    """x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x**3)))."""
    cubic, root = splat(np.float32(0.044715)), splat(np.float32(0.7978845608028654))
    return splat(np.float32(0.5)) * x * (splat(np.float32(1)) + tanh(root * (x + cubic * x * x * x)))


ACTIVATIONS = {"silu": silu, "gelu_tanh": gelu_tanh}


def glu(_target: Target, act: str) -> Kernel:
    """act(gate) * up."""
    active = ACTIVATIONS[act]

    def piece(a, p):
        for i in range(p * PIECE_BYTES, min((p + 1) * PIECE_BYTES, a.rows * a.width * 4), VECTOR_BYTES):
            store(a.out + i, active(load(a.gate + i)) * load(a.up + i))

    return Kernel("rows:count width gate up out", even_pieces, piece)


def glu_quantize(_target: Target, act: str) -> Kernel:
    """act(gate) * up, quantized like the results of `quantize.quantize`."""
    active, group_bytes = ACTIVATIONS[act], 4 * GROUP

    def piece(a, p):
        for at in range(p * PIECE_BYTES, min((p + 1) * PIECE_BYTES, a.rows * a.width * 4), group_bytes):
            first = active(load(a.gate + at)) * load(a.up + at)
            second = active(load(a.gate + at + VECTOR_BYTES)) * load(a.up + at + VECTOR_BYTES)
            quantize_group(first, second, a.out + at // 4, a.quant + at // group_bytes * QUANT_RECORD)

    return Kernel("rows:count width gate up out quant", even_pieces, piece)


def rows(_target: Target) -> Kernel:
    """x[index]. A piece is a row of the result."""

    def pieces(a):
        return a.rows

    def piece(a, p):
        source, out = a.x + load_i32(a.index + 4 * p) * a.width * 4, a.out + p * a.width * 4
        for i in range(0, a.width * 4, VECTOR_BYTES):
            store(out + i, load(source + i))

    return Kernel("rows:count width index x out", pieces, piece)
