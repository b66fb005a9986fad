"""Rows of an embedding matrix, which is stored in panels: often the output head is the same matrix."""

from numba import njit

from sotol.backends.cpu.kernel import Kernel
from sotol.backends.cpu.kernels.unpack import FLOATS, float_loader, values_unpacker
from sotol.backends.cpu.layout import VECTOR_BYTES
from sotol.backends.cpu.panels import ROWS, panel_of
from sotol.backends.cpu.target import Target
from sotol.backends.cpu.vectors.simd import load_f32, load_i32, stack, store, store_f32
from sotol.quant import Layout


def embed(target: Target, kind: str) -> Kernel:
    """out[t] = row tokens[t] of a matrix of a kind (`Encoding.kind`), decoded; rows of out are `row` bytes apart.

    A piece is a token. Its row is one lane of panel token // 16, and the panel must be decoded to get at it.
    """
    put = _float_row(target, kind) if kind in FLOATS else _integer_row(target, panel_of(Layout.parse(kind)))

    def pieces(a):
        return a.rows

    def piece(a, p):
        token = load_i32(a.tokens + 4 * p)
        put(a.panels + (token // ROWS) * a.panel_bytes, token % ROWS, a.out + p * a.row, a.width)

    return Kernel("rows:count width row tokens panels panel_bytes out", pieces, piece)


def _integer_row(target, panel):
    block, size, room, unpack = panel.values, panel.size, VECTOR_BYTES * panel.values, values_unpacker(target, panel)

    @njit(error_model="numpy")
    def put(w, lane, out, width):
        space = stack(room)
        for at in range(0, width, block):
            values = unpack(w, block, space)
            for i in range(block):
                store_f32(out + 4 * (at + i), load_f32(values + VECTOR_BYTES * i + 4 * lane))
            w += size

    return put


def _float_row(target, kind):
    load_values, size = float_loader(target, kind)

    @njit(error_model="numpy")
    def put(w, lane, out, width):
        scratch = stack(VECTOR_BYTES)
        for i in range(width):
            store(scratch, load_values(w + ROWS * size * i))
            store_f32(out + 4 * i, load_f32(scratch + 4 * lane))

    return put
