"""y = x W': one matrix kernel over encodings. T tokens, N outputs, K inputs.

A panel is 16 rows of W (`panels.py`), so that a lane is an output and no sum runs across lanes. A piece of work is a
run of panels for a tile of tokens. One token reads the panels as they lie; for more, a chunk of a panel is unpacked
once into the first-level cache and then meets R tokens at a time. Every token's sum is formed in the order of the
inputs, whatever R is: one token or many, the bits are the same.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from sotol.backends.cpu.kernel import Kernel
from sotol.backends.cpu.layout import QUANT_RECORD
from sotol.backends.cpu.panels import Panel, panel_of
from sotol.backends.cpu.target import Target
from sotol.backends.cpu.vectors import amx
from sotol.backends.cpu.vectors.dots import (
    add_dots,
    add_dots_minimum,
    byte_storer,
    group_dots,
    load_multipliers,
    value_storer,
)
from sotol.backends.cpu.vectors.simd import halves_loader, load, load_bfloats, prefetch, splat, stack, store
from sotol.backends.cpu.vectors.tiles import load_rows, outer, store_rows, vector_row, zeros
from sotol.quant import ENCODINGS

TOKENS = 128  # of a piece: their activations stay in the second-level cache while panels pass
AHEAD = 4096  # bytes: how far before their use weights are asked for; one token waits for little else
REGISTER_ROWS = {4: 4, 8: 4, 16: 8}  # tokens of a register tile, by f32 lanes of the hardware
BYTES_CHUNK, VALUES_CHUNK = 1024, 256  # inputs of 16 rows that are unpacked at a time: multiples of every block
SPACE = BYTES_CHUNK // 32 * (512 + 2 * 64)  # bytes for either


def linear(target: Target, encoding: str, activations: str) -> Kernel:
    """Weights of an encoding times activations: "int8" (from `norm.quantize`, integer encodings only) or "f32".

    x_row, quant_row: bytes from one token's activations, and their records, to the next's. residual: 0, or the address
    of numbers to add to the results, laid out as they are.
    """
    product = _int8_product(target, encoding) if activations == "int8" else _f32_product(target, encoding)

    def pieces(a):
        return ((a.rows + TOKENS - 1) // TOKENS) * ((a.panels_count + a.run - 1) // a.run)

    def piece(a, p):
        runs = (a.panels_count + a.run - 1) // a.run
        first, end = (p // runs) * TOKENS, min((p // runs + 1) * TOKENS, a.rows)
        x, quant, out = a.x + first * a.x_row, a.quant + first * a.quant_row, a.out + first * a.stride * 4
        n, last = (p % runs) * a.run, min((p % runs + 1) * a.run, a.panels_count)
        product(a.panels + n * a.panel, last - n, a.panel, a.width, end - first, x, a.x_row, quant, a.quant_row,
                out + 64 * n, a.stride * 4)  # fmt: skip
        if a.residual:
            for t in range(first, end):
                for at in range(4 * (t * a.stride + 16 * n), 4 * (t * a.stride + 16 * last), 64):
                    store(a.out + at, load(a.residual + at) + load(a.out + at))

    return Kernel(
        "rows:count width stride panels panels_count panel run x x_row quant quant_row residual out", pieces, piece
    )


def _int8_product(target, encoding):
    """product(w, panels, apart, width, tokens, x, x_row, quant, quant_row, out, stride): panels times some tokens.

    apart: bytes from one panel to the next; their results are 64 bytes apart.
    """
    panel = panel_of(ENCODINGS[encoding])
    four, one = _packed_tile(target, panel, 4), _packed_tile(target, panel, 1)
    chunk = Chunk(BYTES_CHUNK, 32 * panel.groups, panel.size, 1)
    widest = amx.TOKENS if target.dot == "amx" else 0
    many = _by_chunks(target, chunk, _bytes_unpacker(target, panel), _bytes_tile(target, panel), widest)
    if widest:
        many = _in_shape(panel, many)

    @njit(error_model="numpy")
    def product(w, panels, apart, width, tokens, x, x_row, quant, quant_row, out, stride):
        if tokens > 1:
            many(w, panels, apart, width, tokens, x, x_row, quant, quant_row, out, stride)
            return
        part = panels // 4  # four runs of panels side by side: memory gives more to four readers than to one
        for n in range(part):
            four(w + n * apart, part * apart, width, x, quant, out + 64 * n, 64 * part)
        for n in range(4 * part, panels):
            one(w + n * apart, 0, width, x, quant, out + 64 * n, 0)

    return product


def _f32_product(target, encoding):
    """The same for activations that stay f32."""
    if ENCODINGS[encoding].integer is None:
        load_values, size = float_loader(target, encoding)

        @njit(error_model="numpy")
        def where_they_lie(w, _inputs, _space):
            return w

        chunk = Chunk(VALUES_CHUNK, 1, 16 * size, 4)
        return _by_chunks(target, chunk, where_they_lie, _values_tile(load_values, size))
    panel = panel_of(ENCODINGS[encoding])
    chunk = Chunk(VALUES_CHUNK, 32 * panel.groups, panel.size, 4)
    return _by_chunks(target, chunk, values_unpacker(target, panel), _values_tile(load, 4))


class Chunk(NamedTuple):
    """What is unpacked at a time."""

    inputs: int  # at most
    block: int  # inputs that lie together
    size: int  # bytes of a block of 16 rows
    x_bytes: int  # of one activation that meets them


def _by_chunks(target, chunk: Chunk, unpack, make_tile, widest=0):
    """A product that unpacks a chunk of a panel, then runs all tokens through it.

    unpack(w, inputs, space) -> the address of the unpacked weights, for tile(weights, inputs, more, x, x_row, quant,
    quant_row, out, stride), which begins at zero or, `more`, where the last chunk left the sums. widest: the tokens of
    a tile that goes before those of REGISTER_ROWS, if any.
    """
    rows = REGISTER_ROWS[target.lanes]
    many, two, one = make_tile(rows), make_tile(2), make_tile(1)
    wide, widest = (make_tile(widest), widest) if widest else (many, rows)
    most, block, size, x_bytes = chunk

    @njit(error_model="numpy")
    def product(w, panels, apart, width, tokens, x, x_row, quant, quant_row, out, stride):
        space, chunks = stack(SPACE), (width + most - 1) // most
        step = (width // block + chunks - 1) // chunks * block  # chunks of one length, so that each asks for the next
        for n in range(panels):
            for k in range(0, width, step):
                inputs, t = min(step, width - k), 0
                weights = unpack(w + n * apart + k // block * size, inputs, space)
                x_at, quant_at, out_at = x + k * x_bytes, quant + (k // 32) * QUANT_RECORD, out + 64 * n
                ahead = w + n * apart + (k + inputs) // block * size
                while t < tokens:
                    x_t, quant_t, out_t = x_at + t * x_row, quant_at + t * quant_row, out_at + t * stride
                    if t + widest <= tokens:
                        wide(weights, inputs, k > 0, x_t, x_row, quant_t, quant_row, out_t, stride, ahead)
                        t += widest
                    elif t + rows <= tokens:
                        many(weights, inputs, k > 0, x_t, x_row, quant_t, quant_row, out_t, stride, ahead)
                        t += rows
                    elif t + 2 <= tokens:
                        two(weights, inputs, k > 0, x_t, x_row, quant_t, quant_row, out_t, stride, ahead)
                        t += 2
                    else:
                        one(weights, inputs, k > 0, x_t, x_row, quant_t, quant_row, out_t, stride, ahead)
                        t += 1
                    ahead = 0

    return product


# ---- int8 activations


def _in_shape(panel, product):
    """The product, for whose time AMX's tiles have the shapes that it needs, if it has as many tokens."""
    begin, end, enough = amx.begin_tiles(panel.width, panel.bias), amx.end_tiles, amx.TOKENS

    @njit(error_model="numpy")
    def in_shape(w, panels, apart, width, tokens, x, x_row, quant, quant_row, out, stride):
        if tokens >= enough:
            begin()
        product(w, panels, apart, width, tokens, x, x_row, quant, quant_row, out, stride)
        if tokens >= enough:
            end()

    return in_shape


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


def _packed_tile(target, panel, panels):
    """tile(w, apart, width, x, quant, out, stride): panels `apart` bytes apart, as they lie, times one token."""
    groups, header, group, packed, parts = panel.groups, panel.header, panel.group, panel.packed, panel.parts
    has_minimum = panel.minimum
    read, dots = (
        group_reader(target, panel),
        group_dots(target.dot, 1, panel.bits, panel.bias, panel.width, packed=True),
    )

    @njit(error_model="numpy")
    def add_group(sums, w, at, x, quant):
        prefetch(at + AHEAD, group)
        found = dots(at + packed, 0, x, 0, quant, 0)
        scale, minimum = read(w, at, 0)
        if has_minimum:
            sums = add_dots_minimum(sums, found, scale, minimum, quant, 0)
        else:
            sums = add_dots(sums, found, scale, quant, 0)
        if parts == 2:
            found = dots(at + packed, 1, x, 0, quant, 0)
            scale, minimum = read(w, at, 1)
            sums = add_dots(sums, found, scale, quant, 0)
        return sums

    @njit(error_model="numpy")
    def one(w, _apart, width, x, quant, out, _stride):
        sums = zeros(1, 1)
        for _block in range(0, width, 32 * groups):
            for g in range(groups):
                sums = add_group(sums, w, w + header + g * group, x, quant)
                x += 32
                quant += QUANT_RECORD
            w += header + groups * group
        store_rows(sums, out, 0)

    @njit(error_model="numpy")
    def four(w, apart, width, x, quant, out, stride):
        first = second = third = fourth = zeros(1, 1)
        for _block in range(0, width, 32 * groups):
            for g in range(groups):
                at = w + header + g * group
                first = add_group(first, w, at, x, quant)
                second = add_group(second, w + apart, at + apart, x, quant)
                third = add_group(third, w + 2 * apart, at + 2 * apart, x, quant)
                fourth = add_group(fourth, w + 3 * apart, at + 3 * apart, x, quant)
                x += 32
                quant += QUANT_RECORD
            w += header + groups * group
        store_rows(first, out, 0)
        store_rows(second, out + stride, 0)
        store_rows(third, out + 2 * stride, 0)
        store_rows(fourth, out + 3 * stride, 0)

    return four if panels == 4 else one


def _bytes_unpacker(target, panel):
    """unpack(w, inputs, space) -> space: 512 bytes of weights a group, then its scales and minimums as f32."""
    groups, header, group, packed, parts = panel.groups, panel.header, panel.group, panel.packed, panel.parts
    has_minimum, minimum_at, size = panel.minimum, 512 + 64 * panel.parts, _unpacked_group(panel)
    read, put = group_reader(target, panel), byte_storer(panel.bits)

    @njit(error_model="numpy")
    def store_groups(w, inputs, space):
        to = space
        for _block in range(0, inputs, 32 * groups):
            for g in range(groups):
                at = w + header + g * group
                put(at + packed, to)
                scale, minimum = read(w, at, 0)
                store(to + 512, scale)
                if parts == 2:
                    store(to + 576, read(w, at, 1)[0])
                if has_minimum:
                    store(to + minimum_at, minimum)
                to += size
            w += header + groups * group
        return space

    return store_groups


def _unpacked_group(panel):
    return 512 + 64 * (panel.parts + panel.minimum)


def _bytes_tile(target, panel):
    parts, has_minimum, minimum_at, size = panel.parts, panel.minimum, 512 + 64 * panel.parts, _unpacked_group(panel)

    share = panel.size // panel.groups

    def make(tokens):
        dots = group_dots(target.dot, tokens, panel.bits, panel.bias, panel.width, packed=False)

        @njit(error_model="numpy")
        def tile(weights, inputs, more, x, x_row, quant, quant_row, out, stride, ahead):
            sums = load_rows(tokens, 1, out, stride) if more else zeros(tokens, 1)
            for _ in range(0, inputs, 32):
                if ahead:
                    prefetch(ahead, share)
                    ahead += share
                found = dots(weights, 0, x, x_row, quant, quant_row)
                if has_minimum:
                    minimum = load(weights + minimum_at)
                    sums = add_dots_minimum(sums, found, load(weights + 512), minimum, quant, quant_row)
                else:
                    sums = add_dots(sums, found, load(weights + 512), quant, quant_row)
                if parts == 2:
                    found = dots(weights, 1, x, x_row, quant, quant_row)
                    sums = add_dots(sums, found, load(weights + 576), quant, quant_row)
                weights += size
                x += 32
                quant += QUANT_RECORD
            store_rows(sums, out, stride)

        return tile

    return make


# ---- f32 activations


def float_loader(target, encoding):
    """load(address) -> 16 weights as f32, and the bytes of a stored one."""
    return {"F32": (load, 4), "F16": (halves_loader(target.halves), 2), "BF16": (load_bfloats, 2)}[encoding]


def values_unpacker(target, panel):
    """unpack(w, inputs, space) -> space: the decoded inputs of 16 rows, 64 bytes an input."""
    groups, header, group, packed, parts = panel.groups, panel.header, panel.group, panel.packed, panel.parts
    read, put = group_reader(target, panel), value_storer(panel.bits, panel.bias, panel.width, minimum=panel.minimum)

    @njit(error_model="numpy")
    def store_values(w, inputs, space):
        to = space
        for _block in range(0, inputs, 32 * groups):
            for g in range(groups):
                at = w + header + g * group
                scale, minimum = read(w, at, 0)
                put(at + packed, 0, scale, minimum, to)
                if parts == 2:
                    scale, minimum = read(w, at, 1)
                    put(at + packed, 1, scale, minimum, to)
                to += 2048
            w += header + groups * group
        return space

    return store_values


def _values_tile(load_values, size):
    def make(tokens):
        @njit(error_model="numpy")
        def tile(weights, inputs, more, x, x_row, _quant, _quant_row, out, stride, _ahead):
            sums = load_rows(tokens, 1, out, stride) if more else zeros(tokens, 1)
            for _ in range(inputs):
                sums = outer(sums, x, x_row, vector_row(load_values(weights)))
                x += 4
                weights += 16 * size
            store_rows(sums, out, stride)

        return tile

    return make
