"""y = x W': one matrix kernel for all encodings. T tokens, N outputs (rows of W), K inputs.

    W [N, K], encoded                 a panel (`panels.py`), in chunks of inputs
             K inputs
         +-------------+                chunk 0       chunk 1       chunk 2
         | panel 0     | 16 rows      +-------------+-------------+-------------+
       N | panel 1     | 16 rows      | g   g   g   | g   g   g   | g   g   g   |
         | ...         |              +-------------+-------------+-------------+
         +-------------+              g: a group, 32 inputs of 16 rows: packed codes; each row's scale(s)

    register tile [R tokens, 16 rows]: f32 accumulators. A lane is a row of W, so no sum runs across lanes

    a few tokens                        more tokens
      for each panel                      for each chunk, for each panel
        for each chunk                      unpack it into the first-level cache
          for each tile of R tokens         for each tile of R tokens
            for each group                    for each group
              unpack it in registers            tile += scale * dot(x, codes)
              tile += scale * dot(x, codes)

That is for int8 activations. A few tokens wait for memory: panels are read as they lie. Many share a chunk that is
unpacked once; on CPUs whose arithmetic waits for loads, a tile has half the tokens and two panels, which share what is
loaded of a token. The first tile prefetches what comes next. With f32 activations, a group is decoded, for all tokens
of a chunk or, for a single one, in registers (`one_token.py`), and each of its inputs adds x * value to the tile. Float
weights are read in place. A piece is some neighbouring panels, times up to 128 tokens.

A token's sum adds its groups in the order of the inputs, by the same operations in all loops and for every R. So its
bits do not depend on how many tokens a step has.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from sotol.backends.cpu.kernel import Kernel
from sotol.backends.cpu.kernels.one_token import AHEAD, floats_of_one, group_share, values_of_one
from sotol.backends.cpu.kernels.unpack import (
    CODES_BYTES,
    FLOATS,
    bytes_unpacker,
    dot_codes,
    float_loader,
    scale_reader,
    scales_bytes,
    unpacked_bytes,
    values_unpacker,
)
from sotol.backends.cpu.layout import GROUP, PANELS_TOGETHER, PLANES, QUANT_RECORD, VECTOR_BYTES
from sotol.backends.cpu.panels import ROWS, Panel, panel_of
from sotol.backends.cpu.target import Target
from sotol.backends.cpu.vectors import amx
from sotol.backends.cpu.vectors.dots import dots_adder, group_dots, stored_adder
from sotol.backends.cpu.vectors.simd import load, prefetch, stack, store
from sotol.backends.cpu.vectors.tiles import load_rows, outer, store_rows, vector_row, zeros
from sotol.quant import Layout

PIECE_TOKENS = 128  # their activations stay in the second-level cache while the panels of a piece are read
REGISTER_TOKENS = {4: 4, 8: 4, 16: 8}  # tokens of a register tile, by f32 lanes of the hardware's registers
TILES = (8, 4, 2, 1)  # tokens of tiles of packed codes
NOTHING = np.int64(0)  # to prefetch. A literal 0 would be a type of its own, of which Numba compiles each tile anew
# Inputs of a chunk, packed, as bytes and as f32; rounded to blocks, at least one.
PACKED_CHUNK, BYTES_CHUNK, VALUES_CHUNK = 512, 1024, 256


class Tokens(NamedTuple):
    """Some tokens of a step, as addresses: the first one's, and the bytes from one token to the next (`_row`)."""

    number: int
    x: int  # activations
    x_row: int
    quant: int  # of int8 activations: the groups' records
    quant_row: int
    out: int  # results of one panel: 16 f32
    out_row: int


@njit(error_model="numpy", inline="always")
def _moved(tokens, first, x, quant, out):
    """The tokens from number `first` on, with x, quant and out bytes added to their addresses."""
    x += tokens.x + first * tokens.x_row
    quant += tokens.quant + first * tokens.quant_row
    out += tokens.out + first * tokens.out_row
    return Tokens(tokens.number - first, x, tokens.x_row, quant, tokens.quant_row, out, tokens.out_row)


def linear(target: Target, kind: str, activations: str) -> Kernel:
    """Weights of a kind (`Encoding.kind`) times activations: "int8" (of `quantize.quantize`, for integers) or "f32".

    panels: `count` panels of panel_bytes each; a piece has piece_panels of them. x_row, quant_row, out_row: bytes from
    one token to the next of activations, their records, and results. residual: 0, or the address of numbers to add to
    the results, laid out like them.
    """
    product = int8_product(target, kind) if activations == "int8" else f32_product(target, kind)

    def pieces(a):
        return ((a.rows + PIECE_TOKENS - 1) // PIECE_TOKENS) * ((a.count + a.piece_panels - 1) // a.piece_panels)

    def piece(a, p):
        across = (a.count + a.piece_panels - 1) // a.piece_panels  # pieces with the same tokens
        first, end = (p // across) * PIECE_TOKENS, min((p // across + 1) * PIECE_TOKENS, a.rows)
        n, last = (p % across) * a.piece_panels, min((p % across + 1) * a.piece_panels, a.count)
        tokens = Tokens(end, a.x, a.x_row, a.quant, a.quant_row, a.out, a.out_row)
        tokens = _moved(tokens, first, 0, 0, VECTOR_BYTES * n)
        product(a.panels + n * a.panel_bytes, last - n, a.panel_bytes, a.width, tokens)
        if a.residual:
            for t in range(first, end):
                for at in range(t * a.out_row + VECTOR_BYTES * n, t * a.out_row + VECTOR_BYTES * last, VECTOR_BYTES):
                    store(a.out + at, load(a.residual + at) + load(a.out + at))

    fields = "rows:count width panels count panel_bytes piece_panels x x_row quant quant_row residual out out_row"
    return Kernel(fields, pieces, piece)


def int8_product(target: Target, kind: str):
    """product(w, panels, apart, width, tokens): some panels, `apart` bytes from one to the next, times some tokens.

    Results of neighbouring panels are neighbouring vectors.
    """
    panel, usual = panel_of(Layout.parse(kind)), REGISTER_TOKENS[target.lanes]
    packed = _all_tokens({count: _packed_tile(target, panel, count) for count in TILES if count <= usual})
    few = _in_place(chunk_of(panel, PACKED_CHUNK, 0, 1), packed)
    together = PANELS_TOGETHER if target.dot == "vnni" else 1
    chunk = chunk_of(panel, BYTES_CHUNK // together, unpacked_bytes(panel) // GROUP, 1)
    counts = [amx.TOKENS, usual] if target.dot == "amx" else [usual // together]
    tiles = _all_tokens({count: _bytes_tile(target, panel, count, together, chunk.space) for count in counts})
    many = _by_chunks(chunk, bytes_unpacker(target, panel), together, tiles, packed)
    if target.dot == "amx":
        many = _with_amx(target, panel, many)
    # Unpacking in registers, anew for each of two tiles, costs less than in memory; but not with codes in two planes.
    most = 2 * usual if len(PLANES[panel.bits]) == 1 else usual - 1
    return _few_or_many(few, many, min(most, amx.TOKENS - 1))


def _few_or_many(few, many, most: int):
    """product(…), as of `int8_product`, of one for at most so many tokens, and of one for more."""

    @njit(error_model="numpy")
    def product(w, panels, apart, width, tokens):
        if tokens.number > most:
            many(w, panels, apart, width, tokens)
        else:
            few(w, panels, apart, width, tokens)

    return product


def f32_product(target: Target, kind: str):
    """product(…), as of `int8_product`, for activations that stay f32."""
    counts = [count for count in TILES if count in (1, 2, REGISTER_TOKENS[target.lanes])]
    if kind in FLOATS:
        load_values, size = float_loader(target, kind)

        @njit(error_model="numpy")
        def in_place(w, _inputs, _space):
            return w

        chunk = Chunk(VALUES_CHUNK, 1, ROWS * size, 4, VECTOR_BYTES)
        tiles = _all_tokens({count: _values_tile(load_values, size, count) for count in counts})
        many = _by_chunks(chunk, in_place, 1, tiles, tiles)
        return _few_or_many(floats_of_one(load_values, ROWS * size), many, most=1)
    panel = panel_of(Layout.parse(kind))
    chunk, unpack = chunk_of(panel, VALUES_CHUNK, VECTOR_BYTES, 4), values_unpacker(target, panel)
    tiles = _all_tokens({count: _values_tile(load, 4, count) for count in counts})
    many = _by_chunks(chunk, unpack, 1, tiles, tiles)
    return _few_or_many(values_of_one(target, panel), many, most=1)


class Chunk(NamedTuple):
    """What is unpacked at a time: whole blocks of a panel."""

    inputs: int  # at most
    block: int  # inputs of a block
    block_bytes: int  # of 16 rows, as they are stored
    x_bytes: int  # of one activation
    space: int  # bytes of the unpacked chunk, at most


def chunk_of(panel: Panel, inputs: int, unpacked: int, x_bytes: int) -> Chunk:
    """A chunk of about `inputs` inputs, at least a block. unpacked: bytes of an input of 16 rows."""
    most = max(1, inputs // panel.values) * panel.values
    return Chunk(most, panel.values, panel.size, x_bytes, most * unpacked)


class Part(NamedTuple):
    """A chunk of neighbouring panels, as addresses: of the first one, and the bytes from one to the next."""

    at: int  # where it lies, packed
    apart: int
    unpacked: int
    inputs: int
    more: bool  # whether sums begin with what the chunk before left in out, or at zero


def _by_chunks(chunk: Chunk, unpack, together: int, multiply, multiply_rest):
    """product(…), as of `int8_product`: unpacks a chunk of a panel, then multiplies it with all tokens.

    unpack(w, inputs, space) -> the address of the unpacked weights. together: how many panels multiply takes at a time;
    multiply_rest takes one, for tokens and panels that are left. Both are of `_all_tokens`.
    """
    most, block, block_bytes, x_bytes, space = chunk
    spaces = together * space

    @njit(error_model="numpy")
    def product(w, panels, apart, width, tokens):
        room, chunks = stack(spaces), (width + most - 1) // most
        even = (width // block + chunks - 1) // chunks * block  # inputs: even chunks, so that each prefetches the next
        for k in range(0, width, even):
            inputs = min(even, width - k)
            for n in range(0, panels, together):
                at, unpacked = w + n * apart + k // block * block_bytes, room
                here = _moved(tokens, 0, k * x_bytes, k // GROUP * QUANT_RECORD, VECTOR_BYTES * n)
                if n + together <= panels:
                    unpacked = unpack(at, inputs, room)
                    for i in range(1, together):
                        unpack(at + i * apart, inputs, room + i * space)
                    here = multiply(Part(at, apart, unpacked, inputs, k > 0), here, at + together * apart)
                for i in range(min(together, panels - n) if here.number else 0):
                    part = Part(at + i * apart, apart, unpacked, inputs, k > 0)
                    multiply_rest(part, _moved(here, 0, 0, 0, i * VECTOR_BYTES), NOTHING)

    return product


def _in_place(chunk: Chunk, multiply):
    """product(…), as of `int8_product`: panels as they lie, one after the other, and far ahead of what is read, past
    the end of a panel, where the next one begins, a prefetch. multiply: of `_all_tokens`.
    """
    most, block, block_bytes, x_bytes, _space = chunk

    @njit(error_model="numpy")
    def product(w, panels, apart, width, tokens):
        for n in range(panels):
            for k in range(0, width, most):
                at = w + n * apart + k // block * block_bytes
                here = _moved(tokens, 0, k * x_bytes, k // GROUP * QUANT_RECORD, VECTOR_BYTES * n)
                multiply(Part(at, apart, at, min(most, width - k), k > 0), here, at + AHEAD)

    return product


def _all_tokens(tiles):
    """multiply(part, tokens, ahead) -> the tokens that are left: a chunk times tokens, by the widest tiles that fit.

    tiles: number of tokens R -> tile(part, tokens, ahead), for the first R of the tokens. ahead: what to prefetch
    meanwhile, 0 for nothing. (One function for up to four tiles: Numba optimises a function with each that calls it.)
    """
    missing = len(TILES) - len(tiles)
    counts, functions = zip(*([(1 << 62, _no_tile)] * missing + sorted(tiles.items(), reverse=True)), strict=True)
    (count_1, count_2, count_3, count_4), (tile_1, tile_2, tile_3, tile_4) = counts, functions

    @njit(error_model="numpy")
    def multiply(part, tokens, ahead):
        while tokens.number >= count_1:
            tile_1(part, tokens, ahead)
            tokens, ahead = _moved(tokens, count_1, 0, 0, 0), 0
        while tokens.number >= count_2:
            tile_2(part, tokens, ahead)
            tokens, ahead = _moved(tokens, count_2, 0, 0, 0), 0
        while tokens.number >= count_3:
            tile_3(part, tokens, ahead)
            tokens, ahead = _moved(tokens, count_3, 0, 0, 0), 0
        while tokens.number >= count_4:
            tile_4(part, tokens, ahead)
            tokens, ahead = _moved(tokens, count_4, 0, 0, 0), 0
        return tokens

    return multiply


@njit(error_model="numpy")
def _no_tile(_part, _tokens, _ahead):
    pass


# ---- int8 activations


def _with_amx(target: Target, panel: Panel, product):
    """The product, with AMX's tiles configured for it where there are enough tokens to use them."""
    bias = dot_codes(target, panel, unpacked=True).byte_bias
    begin, end, enough = amx.begin_tiles(panel.width, bias), amx.end_tiles, amx.TOKENS

    @njit(error_model="numpy")
    def configured(w, panels, apart, width, tokens):
        if tokens.number >= enough:
            begin()
        product(w, panels, apart, width, tokens)
        if tokens.number >= enough:
            end()

    return configured


def _bytes_tile(target: Target, panel: Panel, count: int, panels: int, apart: int):
    """tile(…), as of `_all_tokens`, of some panels, from groups of `unpack.bytes_unpacker`, unpacked `apart` bytes from
    one panel to the next.
    """
    subgroups, subgroup_bytes, size = panel.subgroups, scales_bytes(panel), unpacked_bytes(panel)
    each, dots = group_share(panel), _dots(target, panel, count, panels, packed=False)
    add_first, add_last = _adders(panel, stored_adder)

    @njit(error_model="numpy")
    def tile(part, tokens, ahead):
        weights, x, x_row, quant, quant_row = part.unpacked, tokens.x, tokens.x_row, tokens.quant, tokens.quant_row
        sums = load_rows(count, panels, tokens.out, tokens.out_row) if part.more else zeros(count, panels)
        for _ in range(0, part.inputs, GROUP):
            if ahead:
                for n in range(panels):
                    prefetch(ahead + n * part.apart, each)
                ahead += each
            found = dots(weights, apart, 0, x, x_row, quant, quant_row)
            sums = add_first(sums, found, weights + CODES_BYTES, apart, quant, quant_row)
            if subgroups == 2:
                found = dots(weights, apart, 1, x, x_row, quant, quant_row)
                sums = add_last(sums, found, weights + CODES_BYTES + subgroup_bytes, apart, quant, quant_row)
            weights += size
            x += GROUP
            quant += QUANT_RECORD
        store_rows(sums, tokens.out, tokens.out_row)

    return tile


def _packed_tile(target: Target, panel: Panel, count: int):
    """The same of one panel, from packed codes."""
    units, groups, header, unit_bytes = panel.units, panel.groups, panel.header_bytes, panel.unit_bytes
    codes_at, group_bytes, subgroups, values = panel.codes_at, panel.group_bytes, panel.subgroups, panel.values
    factor_stride, each = panel.subgroups * panel.factor_stride, group_share(panel)
    read, dots = scale_reader(target, panel), _dots(target, panel, count, 1, packed=True)
    add_first, add_last = _adders(panel, dots_adder)

    @njit(error_model="numpy")
    def tile(part, tokens, ahead):
        at, x, x_row, quant, quant_row = part.at, tokens.x, tokens.x_row, tokens.quant, tokens.quant_row
        sums = load_rows(count, 1, tokens.out, tokens.out_row) if part.more else zeros(count, 1)
        for _block in range(0, part.inputs, values):
            for u in range(units):
                factors, unit = at + u * factor_stride, at + header + u * unit_bytes
                for g in range(groups):
                    if ahead:
                        prefetch(ahead, each)
                        ahead += each
                    codes = unit + codes_at + g * group_bytes
                    scale, minimum, zero = read(factors, unit, 0)
                    found = dots(codes, 0, 0, x, x_row, quant, quant_row)
                    sums = add_first(sums, found, scale, minimum, zero, quant, quant_row)
                    if subgroups == 2:
                        scale, minimum, zero = read(factors, unit, 1)
                        found = dots(codes, 0, 1, x, x_row, quant, quant_row)
                        sums = add_last(sums, found, scale, minimum, zero, quant, quant_row)
                    x += GROUP
                    quant += QUANT_RECORD
            at += header + units * unit_bytes
        store_rows(sums, tokens.out, tokens.out_row)

    return tile


def _dots(target: Target, panel: Panel, count: int, panels: int, *, packed: bool):
    codes = dot_codes(target, panel, unpacked=not packed)
    return group_dots(target.dot, count, panels, codes, panel.width, packed=packed)


def _adders(panel: Panel, adder):
    """For the first and the last subgroup of a group: what `adder` makes, to add its scaled dots to the sums."""
    return [adder(panel.width, n, minimum=panel.minimum, zeros=panel.zeros) for n in (0, panel.subgroups - 1)]


# ---- f32 activations


def _values_tile(load_values, size: int, count: int):
    """tile(…), as of `_all_tokens`, from weights of `size` bytes, 16 rows of an input side by side."""
    row = vector_row(1)

    @njit(error_model="numpy")
    def tile(part, tokens, _ahead):
        weights, x, x_row = part.unpacked, tokens.x, tokens.x_row
        sums = load_rows(count, 1, tokens.out, tokens.out_row) if part.more else zeros(count, 1)
        for _ in range(part.inputs):
            sums = outer(sums, x, x_row, row(load_values(weights)))
            x += 4
            weights += ROWS * size
        store_rows(sums, tokens.out, tokens.out_row)

    return tile
