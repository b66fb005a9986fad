"""Ops that treat each number of a row alone. `width` is a row's width in memory: whole vectors (`layout.padded`)."""

import numpy as np
from numba import njit

from sotol.backends.cpu.kernel import Kernel
from sotol.backends.cpu.kernels.quantize import quantize_group
from sotol.backends.cpu.layout import GROUP, QUANT_RECORD, VECTOR_BYTES
from sotol.backends.cpu.target import Target
from sotol.backends.cpu.vectors.simd import exp, load, load_f32, load_i32, maximum, splat, store, store_f32, tanh

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


def scale_by_position(_target: Target) -> Kernel:
    """x * table[position], row by row. A piece is a row."""

    def pieces(a):
        return a.rows

    def piece(a, p):
        factor, row = splat(load_f32(a.table + 4 * load_i32(a.positions + 4 * p))), p * a.width * 4
        for i in range(0, a.width * 4, VECTOR_BYTES):
            store(a.out + row + i, load(a.x + row + i) * factor)

    return Kernel("rows:count width positions table x out", pieces, piece)


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


@njit(error_model="numpy")
def relu2(x):
    """max(0, x) squared. In this order, NaN stays: it is not less than 0."""
    positive = maximum(splat(np.float32(0)), x)
    return positive * positive


@njit(error_model="numpy")
def sigmoid(x):
    """1 / (1 + e**-x)."""
    return splat(np.float32(1)) / (splat(np.float32(1)) + exp(splat(np.float32(0)) - x))


@njit(error_model="numpy")
def _at_most(x, most):
    """The lesser of x and a number; NaN stays NaN."""
    nothing = splat(np.float32(0))
    return nothing - maximum(nothing - splat(most), nothing - x)


@njit(error_model="numpy")
def silu_gated(gate, up):
    return silu(gate) * up


@njit(error_model="numpy")
def gelu_gated(gate, up):
    return gelu_tanh(gate) * up


@njit(error_model="numpy")
def relu2_gated(gate, up):
    return relu2(gate) * up


@njit(error_model="numpy")
def clamped_swiglu(gate, up):
    """`ops.clamped_swiglu`."""
    gate, up = _at_most(gate, np.float32(7)), _at_most(maximum(splat(np.float32(-7)), up), np.float32(7))
    return gate * sigmoid(splat(np.float32(1.702)) * gate) * (up + splat(np.float32(1)))


@njit(error_model="numpy")
def sigmoid_gated(gate, up):
    return sigmoid(gate) * up


@njit(error_model="numpy")
def bilinear(gate, up):
    return gate * up


GATED = {
    "silu": silu_gated, "gelu_tanh": gelu_gated, "relu2": relu2_gated, "clamped_swiglu": clamped_swiglu,
    "sigmoid": sigmoid_gated, "bilinear": bilinear,
}  # fmt: skip
ACTIVATIONS = {"silu": silu, "gelu_tanh": gelu_tanh, "relu2": relu2, "sigmoid": sigmoid}


def activate(_target: Target, act: str) -> Kernel:
    """act(x)."""
    active = ACTIVATIONS[act]

    def piece(a, p):
        for i in range(p * PIECE_BYTES, min((p + 1) * PIECE_BYTES, a.rows * a.width * 4), VECTOR_BYTES):
            store(a.out + i, active(load(a.x + i)))

    return Kernel("rows:count width x out", even_pieces, piece)


def glu(_target: Target, act: str) -> Kernel:
    """act(gate) * up."""
    gated = GATED[act]

    def piece(a, p):
        for i in range(p * PIECE_BYTES, min((p + 1) * PIECE_BYTES, a.rows * a.width * 4), VECTOR_BYTES):
            store(a.out + i, gated(load(a.gate + i), load(a.up + i)))

    return Kernel("rows:count width gate up out", even_pieces, piece)


def glu_quantize(_target: Target, act: str) -> Kernel:
    """act(gate) * up, quantized like the results of `quantize.quantize`."""
    gated, group_bytes = GATED[act], 4 * GROUP

    def piece(a, p):
        for at in range(p * PIECE_BYTES, min((p + 1) * PIECE_BYTES, a.rows * a.width * 4), group_bytes):
            first = gated(load(a.gate + at), load(a.up + at))
            second = gated(load(a.gate + at + VECTOR_BYTES), load(a.up + at + VECTOR_BYTES))
            quantize_group(first, second, a.out + at // 4, a.quant + at // group_bytes * QUANT_RECORD)

    return Kernel("rows:count width gate up out quant", even_pieces, piece)


def gate_rows(_target: Target) -> Kernel:
    """x * sigmoid(gate), a gate for each row; gates are a vector apart. A piece is a row."""

    def pieces(a):
        return a.rows

    def piece(a, p):
        row, factor = p * a.width * 4, sigmoid(splat(load_f32(a.gate + p * VECTOR_BYTES)))
        for i in range(0, a.width * 4, VECTOR_BYTES):
            store(a.out + row + i, load(a.x + row + i) * factor)

    return Kernel("rows:count width x gate out", pieces, piece)


def reorder(_target: Target) -> Kernel:
    """x[:, order]: the numbers of each row in another order. Rows are `row` bytes apart. A piece is a row."""

    def pieces(a):
        return a.rows

    def piece(a, p):
        source, out = a.x + p * a.row, a.out + p * a.row
        for i in range(a.width):
            store_f32(out + 4 * i, load_f32(source + 4 * load_i32(a.order + 4 * i)))

    return Kernel("rows:count width row order x out", pieces, piece)


def reorder_choices(_target: Target) -> Kernel:
    """For each choice, a row in the order of its expert: the token's, or the choice's own. A piece is a token."""

    def pieces(a):
        return a.rows

    def piece(a, p):
        for choice in range(a.k):
            order = a.order + 4 * a.width * load_i32(a.choices + 4 * (p * a.k + choice))
            source, out = a.x + p * a.x_row + choice * a.x_choice, a.out + p * a.out_row + 4 * choice * a.width
            for i in range(a.width):
                store_f32(out + 4 * i, load_f32(source + 4 * load_i32(order + 4 * i)))

    return Kernel("rows:count k width choices order x x_row x_choice out out_row", pieces, piece)


def rows(_target: Target) -> Kernel:
    """x[index]. A piece is a row of the result."""

    def pieces(a):
        return a.rows

    def piece(a, p):
        source, out = a.x + load_i32(a.index + 4 * p) * a.width * 4, a.out + p * a.width * 4
        for i in range(0, a.width * 4, VECTOR_BYTES):
            store(out + i, load(source + i))

    return Kernel("rows:count width index x out", pieces, piece)
