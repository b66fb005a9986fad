"""y = x W': one matrix kernel over encodings. T tokens, N outputs, K inputs.

A panel is 16 rows of W (`panels.py`), so that a lane is an output and no sum runs across lanes. A piece of work is a
run of panels for a tile of tokens; inside, R tokens share each unpacked group of weights. Every token's sum is formed
in the order of the inputs, whatever R is: one token or many, the bits are the same.
"""

import numpy as np
from numba import njit

from sotol.backends.cpu.compile import Kernel
from sotol.backends.cpu.dots import (
    add_dots,
    add_dots_minimum,
    group_dots,
    load_multipliers,
    unpacker,
    value_adder,
)
from sotol.backends.cpu.layout import QUANT_RECORD
from sotol.backends.cpu.panels import Panel, panel_of
from sotol.backends.cpu.simd import halves_loader, load, load_bfloats, prefetch, splat
from sotol.backends.cpu.target import Target
from sotol.backends.cpu.tiles import outer, store_rows, vector_row, zeros
from sotol.quant import ENCODINGS

TOKENS = 128  # of a piece: their activations stay in the second-level cache while panels pass
AHEAD = 4096  # bytes: how far before their use weights are asked for; one token waits for little else
REGISTER_ROWS = {4: 4, 8: 4, 16: 8}  # tokens of a register tile, by f32 lanes of the hardware


def linear(target: Target, encoding: str, activations: str) -> Kernel:
    """Weights of an encoding times activations: "int8" (from `norm.quantize`, integer encodings only) or "f32".

    x_row, quant_row: bytes from one token's activations, and their records, to the next's.
    """
    make, rows = TILES[activations], REGISTER_ROWS[target.lanes]
    if activations == "f32" and ENCODINGS[encoding].integer is None:
        make = _float_tile
    many, one = make(target, encoding, rows), make(target, encoding, 1)

    def pieces(a):
        return ((a.rows + TOKENS - 1) // TOKENS) * ((a.panels_count + a.run - 1) // a.run)

    def piece(a, p):
        runs = (a.panels_count + a.run - 1) // a.run
        first, end = (p // runs) * TOKENS, min((p // runs + 1) * TOKENS, a.rows)
        for n in range((p % runs) * a.run, min((p % runs + 1) * a.run, a.panels_count)):
            w, t = a.panels + n * a.panel, first
            while t < end:
                x, quant, out = a.x + t * a.x_row, a.quant + t * a.quant_row, a.out + (t * a.stride + 16 * n) * 4
                if t + rows <= end:
                    many(w, a.width, x, quant, out, a.stride * 4)
                    t += rows
                else:
                    one(w, a.width, x, quant, out, a.stride * 4)
                    t += 1

    return Kernel("rows:count width stride panels panels_count panel run x x_row quant quant_row out", pieces, piece)


def group_reader(target, panel: Panel):
    """read(block, group, part) -> scale and minimum of 16 rows, for one part of a group of 32 inputs."""
    halves = halves_loader(target.halves)
    minimum_at, has_scales, has_minimum, parts = 32, panel.scales, panel.minimum, panel.parts

    @njit(error_model="numpy")
    def read(block, group, part):
        scale, minimum = halves(block), splat(np.float32(0))
        if has_minimum:
            minimum = halves(block + minimum_at)
        if has_scales:
            scale = scale * load_multipliers(group + 16 * part)
            if has_minimum:
                minimum = minimum * load_multipliers(group + 16 * parts)
        return scale, minimum

    return read


def _integer_tile(target, encoding, tokens):
    panel = panel_of(ENCODINGS[encoding])
    groups, header, group, packed, parts = panel.groups, panel.header, panel.group, panel.packed, panel.parts
    has_minimum = panel.minimum
    unpack, read = unpacker(panel.bits), group_reader(target, panel)
    dots = group_dots(target.dot, tokens, panel.bits, panel.bias, panel.width)

    @njit(error_model="numpy")
    def tile(w, width, x, quant, out, stride):
        sums = zeros(tokens, 1)
        quant_stride = (width // 32) * QUANT_RECORD
        for _block in range(0, width, 32 * groups):
            for g in range(groups):
                at = w + header + g * group
                prefetch(at + AHEAD, group)
                weights = unpack(at + packed)
                scale, minimum = read(w, at, 0)
                if has_minimum:
                    sums = add_dots_minimum(
                        sums, dots(weights, 0, x, width, quant, quant_stride), scale, minimum, quant, quant_stride
                    )
                else:
                    sums = add_dots(sums, dots(weights, 0, x, width, quant, quant_stride), scale, quant, quant_stride)
                if parts == 2:
                    scale, minimum = read(w, at, 1)
                    sums = add_dots(sums, dots(weights, 1, x, width, quant, quant_stride), scale, quant, quant_stride)
                x += 32
                quant += QUANT_RECORD
            w += header + groups * group
        store_rows(sums, out, stride)

    return tile


def _integer_f32_tile(target, encoding, tokens):
    panel = panel_of(ENCODINGS[encoding])
    groups, header, group, packed, parts = panel.groups, panel.header, panel.group, panel.packed, panel.parts
    unpack, read = unpacker(panel.bits), group_reader(target, panel)
    add = value_adder(tokens, panel.bias, panel.width, minimum=panel.minimum)

    @njit(error_model="numpy")
    def tile(w, width, x, _quant, out, stride):
        sums = zeros(tokens, 1)
        for _block in range(0, width, 32 * groups):
            for g in range(groups):
                at = w + header + g * group
                weights = unpack(at + packed)
                scale, minimum = read(w, at, 0)
                sums = add(sums, weights, 0, scale, minimum, x, 4 * width)
                if parts == 2:
                    scale, minimum = read(w, at, 1)
                    sums = add(sums, weights, 1, scale, minimum, x, 4 * width)
                x += 128
            w += header + groups * group
        store_rows(sums, out, stride)

    return tile


def float_loader(target, encoding):
    """load(address) -> 16 weights as f32, and the bytes of a stored one."""
    return {"F32": (load, 4), "F16": (halves_loader(target.halves), 2), "BF16": (load_bfloats, 2)}[encoding]


def _float_tile(target, encoding, tokens):
    load_values, size = float_loader(target, encoding)

    @njit(error_model="numpy")
    def tile(w, width, x, _quant, out, stride):
        sums = zeros(tokens, 1)
        for _ in range(width):
            sums = outer(sums, x, 4 * width, vector_row(load_values(w)))
            x += 4
            w += 16 * size
        store_rows(sums, out, stride)

    return tile


TILES = {"int8": _integer_tile, "f32": _integer_f32_tile}
