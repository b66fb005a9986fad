"""Rows of an embedding matrix, which is stored in panels for the output head. D width."""

from numba import njit

from sotol.backends.cpu.kernel import Kernel
from sotol.backends.cpu.kernels.linear import float_loader, values_unpacker
from sotol.backends.cpu.panels import panel_of
from sotol.backends.cpu.target import Target
from sotol.backends.cpu.vectors.simd import load_f32, load_i32, stack, store, store_f32
from sotol.quant import ENCODINGS


def embed(target: Target, encoding: str) -> Kernel:
    """out[t] = decoded row tokens[t]; rows of out are `row` bytes apart."""
    put = _integer_row(target, encoding) if ENCODINGS[encoding].integer else _float_row(target, encoding)

    def pieces(a):
        return a.rows

    def piece(a, p):
        token = load_i32(a.tokens + 4 * p)
        put(a.panels + (token // 16) * a.panel, token % 16, a.out + p * a.row, a.width)

    return Kernel("rows:count width row tokens panels panel out", pieces, piece)


def _integer_row(target, encoding):
    panel = panel_of(ENCODINGS[encoding])
    block, size, unpack = 32 * panel.groups, panel.size, values_unpacker(target, panel)

    @njit(error_model="numpy")
    def put(w, lane, out, width):
        space = stack(256 * 64)  # the largest block
        for at in range(0, width, block):
            values = unpack(w, block, space)
            for i in range(block):
                store_f32(out + 4 * (at + i), load_f32(values + 64 * i + 4 * lane))
            w += size

    return put


def _float_row(target, encoding):
    load_values, size = float_loader(target, encoding)

    @njit(error_model="numpy")
    def put(w, lane, out, width):
        scratch = stack(64)
        for i in range(width):
            store(scratch, load_values(w + 16 * size * i))
            store_f32(out + 4 * i, load_f32(scratch + 4 * lane))

    return put
