"""Products with the matrices of experts, and what is done with a row for each choice. T tokens, k choices of each.

Weights [E, N, K] are the panels (`panels.py`) of E matrices, one after another. A piece is a run of choices that
`routing.sort_choices` has found, for some neighbouring panels of its expert: so only experts that some token takes are
read, and tokens that take the same one share its panels.

    a run of one choice:    the product reads the token's row where it lies, and writes its result where it belongs
    a run of several:       their rows are gathered on the stack, in batches; the results are scattered from there

Each piece gathers the rows of its run: so where there are many runs, pieces have more of the panels.

The products are those of `linear.py`, whose sums do not depend on the number of rows. So the bits of a token do not
depend on who else takes its experts. Rows of a token's choices lie side by side, of any width: what lies behind a row
belongs to another piece.
"""

import numpy as np
from numba import njit

from sotol.backends.cpu.kernel import Kernel
from sotol.backends.cpu.kernels.first_lanes import load_first, store_first
from sotol.backends.cpu.kernels.linear import PIECE_TOKENS, Tokens, f32_product, int8_product
from sotol.backends.cpu.layout import LANES, VECTOR_BYTES
from sotol.backends.cpu.panels import ROWS
from sotol.backends.cpu.target import Target
from sotol.backends.cpu.vectors.simd import fma, load, load_f32, load_i32, load_i64, splat, stack, store, store_f32
from sotol.backends.cpu.vectors.tiles import load_rows, outer, store_rows, zeros

ROWS_BYTES = 1 << 18  # of gathered rows; of wider ones, fewer are taken at once, or each alone, where it lies
RESULTS_BYTES = 1 << 15  # of their results, in as many panels at once as have room
PIECES = 256  # of a product, where there are so many runs that they need not be cut into more to be shared evenly
SUMMED = 4  # vectors that `combine` adds up at once
SUMMED_BYTES = VECTOR_BYTES * SUMMED


@njit(error_model="numpy")
def _copy(source, to, size):
    """`size` bytes, a multiple of four."""
    whole = size // VECTOR_BYTES * VECTOR_BYTES
    for i in range(0, whole, VECTOR_BYTES):
        store(to + i, load(source + i))
    for i in range(whole, size, 4):
        store_f32(to + i, load_f32(source + i))


@njit(error_model="numpy")
def _row_of(a, choice):
    """Where the row of a choice is, and its records: both belong to its token, or to the choice alone."""
    token, rank = choice // a.k, choice % a.k
    return a.x + token * a.x_row + rank * a.x_choice, a.quant + token * a.quant_row + rank * a.quant_choice


@njit(error_model="numpy")
def _results_of(a, choice):
    """Where the results of a choice belong."""
    return a.out + choice // a.k * a.out_row + choice % a.k * a.outputs * 4


@njit(error_model="numpy")
def _gather(a, rows, order, x, x_stride, quant):
    """The rows of a run's choices, and their records, one after another."""
    for r in range(rows):
        from_x, from_quant = _row_of(a, load_i32(order + 4 * r))
        _copy(from_x, x + r * x_stride, a.x_bytes)
        _copy(from_quant, quant + r * a.quant_bytes, a.quant_bytes)


@njit(error_model="numpy")
def _scatter(a, results, rows, order, at, panels):
    """Results [rows, panels * 16] of a run's choices, from panel number `at` on, to where they belong."""
    for r in range(rows):
        to = _results_of(a, load_i32(order + 4 * r))
        for n in range(at, at + panels):
            v = load(results + VECTOR_BYTES * (r * panels + n - at))
            store_first(to + VECTOR_BYTES * n, v, a.outputs - ROWS * n)


@njit(error_model="numpy")
def _pieces_of_run(a):
    """Pieces that the panels of an expert are cut into."""
    most = (a.count + a.piece_panels - 1) // a.piece_panels
    return max(1, min(most, PIECES // max(1, load_i64(a.runs))))


def expert_linear(target: Target, kind: str, activations: str) -> Kernel:
    """Each token times the matrices of its experts; kind and activations as of `linear.linear`.

    An expert has `count` panels of panel_bytes each; a piece has piece_panels of them, at least. x_row, quant_row,
    out_row: bytes from one token to the next; x_choice, quant_choice: from one of its choices to the next, or 0 where
    all have the same row, of x_bytes and quant_bytes. outputs: N. order, runs: of `routing.sort_choices`.
    """
    product = int8_product(target, kind) if activations == "int8" else f32_product(target, kind)

    def pieces(a):
        return load_i64(a.runs) * _pieces_of_run(a)

    def piece(a, p):
        gathered, scratch = stack(ROWS_BYTES), stack(RESULTS_BYTES)
        across = _pieces_of_run(a)
        each = (a.count + across - 1) // across
        run, number = a.runs + 8 + 8 * (p // across), (p % across) * each
        last, complete = min(number + each, a.count), a.outputs // ROWS  # the last panel may be incomplete
        panels = a.panels + load_i32(run) * a.count * a.panel_bytes
        x_stride = (a.x_bytes + VECTOR_BYTES - 1) // VECTOR_BYTES * VECTOR_BYTES
        most = max(1, min(PIECE_TOKENS, ROWS_BYTES // (x_stride + a.quant_bytes)))
        first, end = load_i32(run + 4), load_i32(run + 12)
        while first < end:
            rows, order = min(most, end - first), a.order + 4 * first
            x, quant = _row_of(a, load_i32(order))
            if rows > 1:
                x, quant = gathered, gathered + rows * x_stride
                _gather(a, rows, order, x, x_stride, quant)
            at = number
            while at < last:
                here, out = min(last - at, max(1, RESULTS_BYTES // (VECTOR_BYTES * rows))), scratch
                direct = rows == 1 and at < complete
                if direct:
                    here, out = min(last, complete) - at, _results_of(a, load_i32(order)) + VECTOR_BYTES * at
                tokens = Tokens(rows, x, x_stride, quant, a.quant_bytes, out, VECTOR_BYTES * here)
                product(panels + at * a.panel_bytes, here, a.panel_bytes, a.width, tokens)
                if not direct:
                    _scatter(a, scratch, rows, order, at, here)
                at += here
            first += rows

    fields = (
        "runs order k width outputs panels count panel_bytes piece_panels x x_row x_choice x_bytes quant quant_row "
        "quant_choice quant_bytes out out_row"
    )
    return Kernel(fields, pieces, piece)


def add_expert_bias(_target: Target) -> Kernel:
    """x + the chosen expert's bias, for each choice. Rows of tokens are `row` bytes apart. A piece is a token."""

    def pieces(a):
        return a.rows

    def piece(a, p):
        for choice in range(a.k):
            expert = load_i32(a.choices + 4 * (p * a.k + choice))
            at, bias = p * a.row + 4 * choice * a.width, a.bias + 4 * expert * a.width
            for i in range(0, a.width, LANES):
                left = a.width - i
                v = load_first(a.x + at + 4 * i, left) + load_first(bias + 4 * i, left)
                store_first(a.out + at + 4 * i, v, left)

    return Kernel("rows:count k width row x choices bias out", pieces, piece)


def scale_choices(_target: Target) -> Kernel:
    """Each choice's weight times its expert's number. Rows of weights are `row` bytes apart. A piece is a token."""

    def pieces(a):
        return a.rows

    def piece(a, p):
        for choice in range(a.k):
            factor = load_f32(a.table + 4 * load_i32(a.choices + 4 * (p * a.k + choice)))
            store_f32(a.out + p * a.row + 4 * choice, load_f32(a.weights + p * a.row + 4 * choice) * factor)

    return Kernel("rows:count k row weights choices table out", pieces, piece)


@njit(error_model="numpy")
def _sum_choices(a, x, weights, step, count, sums):
    """The weighted sum of `count` numbers of each of a token's choices, in their order; step: 4, or 0 for one weight.

    Choices lie side by side, of any width: of fewer than SUMMED vectors, the last one may be incomplete.
    """
    if count == SUMMED * LANES:
        total = zeros(1, SUMMED)
        for choice in range(a.k):
            total = outer(total, weights + step * choice, 0, load_rows(1, SUMMED, x + 4 * choice * a.width, 0))
        store_rows(total, sums, 0)
        return
    for i in range(0, count, LANES):
        few = splat(np.float32(0))
        for choice in range(a.k):
            v = load_first(x + 4 * (choice * a.width + i), count - i)
            few = fma(splat(load_f32(weights + step * choice)), v, few)
        store(sums + 4 * i, few)


def combine(_target: Target) -> Kernel:
    """The weighted sum of a token's choices, in their order, one after another. A piece is a token.

    weights: 0 for none. residual: 0, or the address of numbers to add to the results, laid out like them.
    """

    def pieces(a):
        return a.rows

    def piece(a, p):
        one, sums = stack(VECTOR_BYTES), stack(SUMMED_BYTES)
        store(one, splat(np.float32(1)))
        weights, step = (a.weights + p * a.weights_row, 4) if a.weights else (one, 0)
        for i in range(0, a.width, SUMMED * LANES):
            count = min(SUMMED * LANES, a.width - i)
            _sum_choices(a, a.x + p * a.x_row + 4 * i, weights, step, count, sums)
            for at in range(0, 4 * count, VECTOR_BYTES):
                to, total = p * a.row + 4 * i + at, load(sums + at)
                if a.residual:
                    total = load(a.residual + to) + total
                store(a.out + to, total)

    return Kernel("rows:count k width row x x_row weights weights_row residual out", pieces, piece)


def spread(_target: Target) -> Kernel:
    """For each choice, the token's row times its weight. A piece is a token."""

    def pieces(a):
        return a.rows

    def piece(a, p):
        for choice in range(a.k):
            weight = splat(load_f32(a.weights + p * a.weights_row + 4 * choice))
            for i in range(0, a.width, LANES):
                v = load(a.x + p * a.row + 4 * i) * weight
                store_first(a.out + p * a.out_row + 4 * (choice * a.width + i), v, a.width - i)

    return Kernel("rows:count k width row x weights weights_row out out_row", pieces, piece)
