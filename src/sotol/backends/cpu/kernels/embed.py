"""Rows of an embedding matrix, which is stored in panels for the output head. D width."""

from numba import njit

from sotol.backends.cpu.compile import Kernel
from sotol.backends.cpu.dots import unpacker, value_storer
from sotol.backends.cpu.kernels.linear import float_loader, group_reader
from sotol.backends.cpu.panels import panel_of
from sotol.backends.cpu.simd import load_f32, load_i32, stack, store, store_f32
from sotol.backends.cpu.target import Target
from sotol.quant import ENCODINGS


def embed(target: Target, encoding: str) -> Kernel:
    """out[t] = decoded row tokens[t]."""
    put = _integer_row(target, encoding) if ENCODINGS[encoding].integer else _float_row(target, encoding)

    def pieces(a):
        return a.rows

    def piece(a, p):
        token = load_i32(a.tokens + 4 * p)
        put(a.panels + (token // 16) * a.panel, token % 16, a.out + p * a.width * 4, a.width)

    return Kernel("rows:count width tokens panels panel out", pieces, piece)


def _integer_row(target, encoding):
    panel = panel_of(ENCODINGS[encoding])
    parts, groups, header, group = panel.parts, panel.groups, panel.header, panel.group
    unpack, read = unpacker(panel.bits), group_reader(target, panel)
    values = value_storer(panel.bias, panel.width, minimum=panel.minimum)
    packed = panel.packed

    @njit(error_model="numpy")
    def put(w, lane, out, width):
        scratch = stack(2048)  # 32 inputs of 16 rows
        for at in range(0, width, 32 * groups):
            for g in range(groups):
                block = w + header + g * group
                weights = unpack(block + packed)
                scale, minimum = read(w, block, 0)
                values(weights, 0, scale, minimum, scratch)
                if parts == 2:
                    scale, minimum = read(w, block, 1)
                    values(weights, 1, scale, minimum, scratch)
                for i in range(32):
                    store_f32(out + 4 * (at + 32 * g + i), load_f32(scratch + 64 * i + 4 * lane))
            w += header + groups * group

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
