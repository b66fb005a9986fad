"""Products with a matrix of each head, and channels of heads put together and taken apart. T tokens, H heads.

Weights [H, N, K] are the panels (`panels.py`) of H matrices, one after another. In rows of f32 and of int8, heads lie
side by side, of any width: what lies behind a head is another piece's.
"""

from numba import njit

from sotol.backends.cpu.kernel import Kernel
from sotol.backends.cpu.kernels.first_lanes import load_first, store_first
from sotol.backends.cpu.kernels.linear import PIECE_TOKENS, Tokens, f32_product, int8_product
from sotol.backends.cpu.layout import LANES, VECTOR_BYTES
from sotol.backends.cpu.panels import ROWS
from sotol.backends.cpu.target import Target
from sotol.backends.cpu.vectors.simd import load, stack

LAST_BYTES = VECTOR_BYTES * PIECE_TOKENS  # of the results of a last panel that has fewer rows


def head_linear(target: Target, kind: str, activations: str) -> Kernel:
    """Each head's channels times its matrix; kind and activations as of `linear.linear`.

    A head has `count` panels of panel_bytes each, for `outputs` results; a piece has piece_panels of them, of one head,
    times up to 128 tokens. x_row, quant_row, out_row: bytes from one token to the next; x_head, quant_head: from one
    head to the next.
    """
    product = int8_product(target, kind) if activations == "int8" else f32_product(target, kind)

    def pieces(a):
        return (
            (a.rows + PIECE_TOKENS - 1) // PIECE_TOKENS * a.heads * ((a.count + a.piece_panels - 1) // a.piece_panels)
        )

    def piece(a, p):
        last_results = stack(LAST_BYTES)
        across = (a.count + a.piece_panels - 1) // a.piece_panels
        head, n = p // across % a.heads, p % across * a.piece_panels
        first = p // across // a.heads * PIECE_TOKENS
        number, end = min(PIECE_TOKENS, a.rows - first), min(n + a.piece_panels, a.count)
        complete = min(end, a.outputs // ROWS)  # the last panel of a head may have fewer rows
        x, quant = a.x + first * a.x_row + head * a.x_head, a.quant + first * a.quant_row + head * a.quant_head
        out = a.out + first * a.out_row + 4 * head * a.outputs
        panels = a.panels + head * a.count * a.panel_bytes
        if n < complete:
            tokens = Tokens(number, x, a.x_row, quant, a.quant_row, out + VECTOR_BYTES * n, a.out_row)
            product(panels + n * a.panel_bytes, complete - n, a.panel_bytes, a.width, tokens)
        if complete < end:
            tokens = Tokens(number, x, a.x_row, quant, a.quant_row, last_results, VECTOR_BYTES)
            product(panels + complete * a.panel_bytes, 1, a.panel_bytes, a.width, tokens)
            for t in range(number):
                to = out + t * a.out_row + VECTOR_BYTES * complete
                store_first(to, load(last_results + VECTOR_BYTES * t), a.outputs - ROWS * complete)

    fields = (
        "rows:count heads width outputs panels count panel_bytes piece_panels x x_row x_head quant quant_row "
        "quant_head out out_row"
    )
    return Kernel(fields, pieces, piece)


@njit(error_model="numpy")
def _copy(source, to, count):
    """`count` f32."""
    for i in range(0, count, LANES):
        store_first(to + 4 * i, load_first(source + 4 * i, count - i), count - i)


def join(_target: Target) -> Kernel:
    """Each head's channels of x, then those of y. A piece is a token."""

    def pieces(a):
        return a.rows

    def piece(a, p):
        for head in range(a.heads):
            to = a.out + p * a.row + 4 * head * (a.x_width + a.y_width)
            _copy(a.x + p * a.x_row + 4 * head * a.x_width, to, a.x_width)
            _copy(a.y + p * a.y_row + 4 * head * a.y_width, to + 4 * a.x_width, a.y_width)

    return Kernel("rows:count heads x_width y_width row x x_row y y_row out", pieces, piece)


def part(_target: Target) -> Kernel:
    """`width` numbers of each row, from the address x on. A piece is a row."""

    def pieces(a):
        return a.rows

    def piece(a, p):
        _copy(a.x + p * a.x_row, a.out + p * a.row, a.width)

    return Kernel("rows:count width row x x_row out", pieces, piece)
