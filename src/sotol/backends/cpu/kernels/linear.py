"""y = x W': one matrix kernel for all encodings. T tokens, N outputs (rows of W), K inputs.

    W [N, K], encoded                 a panel (`panels.py`), in chunks of inputs
             K inputs
         +-------------+                chunk 0       chunk 1       chunk 2
         | panel 0     | 16 rows      +-------------+-------------+-------------+
       N | panel 1     | 16 rows      | g   g   g   | g   g   g   | g   g   g   |
         | ...         |              +-------------+-------------+-------------+
         +-------------+              g: a group, 32 inputs of 16 rows: packed codes; each row's scale(s)

    register tile [R tokens, 16 rows]: f32 accumulators. A lane is a row of W, so no sum runs across lanes

    one token                         several tokens
      for one panel, or four            for each panel
        for each group                    for each chunk: unpack it into the first-level cache
          unpack it in registers            for each tile of R tokens
          tile += scale * dot(x, codes)       for each group: tile += scale * dot(x, codes)

That is for int8 activations. With f32 ones, a group is decoded, in registers or for all tokens of a chunk, and each of
its inputs adds x * value to the tile.

A piece is some neighbouring panels, times up to 128 tokens. A single token uses each weight once, and has loops of its
own (`one_token.py`). Several tokens share a chunk that is unpacked once; the first of them prefetch the next chunk.
Float weights are read in place.

A token's sum adds its groups in the order of the inputs, by the same operations in both loops and for every R. So its
bits do not depend on how many tokens a step has.
"""

from typing import NamedTuple

from numba import njit

from sotol.backends.cpu.kernel import Kernel
from sotol.backends.cpu.kernels.one_token import adders, floats_of_one, int8_of_one, values_of_one
from sotol.backends.cpu.kernels.unpack import (
    CODES_BYTES,
    FLOATS,
    bytes_unpacker,
    codes_of,
    float_loader,
    scales_bytes,
    unpacked_bytes,
    values_unpacker,
)
from sotol.backends.cpu.layout import GROUP, QUANT_RECORD, VECTOR_BYTES
from sotol.backends.cpu.panels import ROWS, Panel, panel_of
from sotol.backends.cpu.target import Target
from sotol.backends.cpu.vectors import amx
from sotol.backends.cpu.vectors.dots import group_dots, stored_adder
from sotol.backends.cpu.vectors.simd import load, prefetch, stack, store
from sotol.backends.cpu.vectors.tiles import load_rows, outer, store_rows, vector_row, zeros
from sotol.quant import Layout

PIECE_TOKENS = 128  # their activations stay in the second-level cache while the panels of a piece are read
REGISTER_TOKENS = {4: 4, 8: 4, 16: 8}  # tokens of a register tile, by f32 lanes of the hardware's registers
BYTES_CHUNK, VALUES_CHUNK = 1024, 256  # inputs of a chunk, as bytes and as f32; rounded to blocks, at least one


class Tokens(NamedTuple):
    """Some tokens of a step, as addresses: the first one's, and the bytes from one token to the next (`_row`)."""

    number: int
    x: int  # activations
    x_row: int
    quant: int  # of int8 activations: the groups' records
    quant_row: int
    out: int  # results of one panel: 16 f32
    out_row: int


@njit(error_model="numpy")
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
    panel = panel_of(Layout.parse(kind))
    chunk = chunk_of(panel, BYTES_CHUNK, unpacked_bytes(panel) // GROUP, 1)
    widest = amx.TOKENS if target.dot == "amx" else 0
    several = _by_chunks(target, chunk, bytes_unpacker(target, panel), _bytes_tile(target, panel), widest)
    if widest:
        several = _with_amx(panel, several)
    return _one_or_several(int8_of_one(target, panel), several)


def _one_or_several(one, several):
    """product(…), as of `int8_product`, of those for one token and for more."""

    @njit(error_model="numpy")
    def product(w, panels, apart, width, tokens):
        if tokens.number > 1:
            several(w, panels, apart, width, tokens)
        else:
            one(w, panels, apart, width, tokens)

    return product


def f32_product(target: Target, kind: str):
    """product(…), as of `int8_product`, for activations that stay f32."""
    if kind in FLOATS:
        load_values, size = float_loader(target, kind)

        @njit(error_model="numpy")
        def in_place(w, _inputs, _space):
            return w

        chunk = Chunk(VALUES_CHUNK, 1, ROWS * size, 4, VECTOR_BYTES)
        several = _by_chunks(target, chunk, in_place, _values_tile(load_values, size))
        return _one_or_several(floats_of_one(load_values, ROWS * size), several)
    panel = panel_of(Layout.parse(kind))
    chunk = chunk_of(panel, VALUES_CHUNK, VECTOR_BYTES, 4)
    several = _by_chunks(target, chunk, values_unpacker(target, panel), _values_tile(load, 4))
    return _one_or_several(values_of_one(target, panel), several)


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


def _by_chunks(target: Target, chunk: Chunk, unpack, make_tile, widest=0):
    """product(…), as of `int8_product`: unpacks a chunk of a panel, then multiplies it with all tokens, tile by tile.

    unpack(w, inputs, space) -> the address of the unpacked weights. make_tile(R) -> tile(weights, inputs, more, tokens,
    ahead), for the first R of the tokens: sums begin at zero or, if `more`, are those that the last chunk left in out;
    ahead: what to prefetch meanwhile, 0 for nothing. widest: tokens of a tile that goes before REGISTER_TOKENS, or 0.
    """
    usual = REGISTER_TOKENS[target.lanes]
    many, two, one = make_tile(usual), make_tile(2), make_tile(1)
    wide, widest = (make_tile(widest), widest) if widest else (many, usual)
    most, block, block_bytes, x_bytes, room = chunk

    @njit(error_model="numpy")
    def product(w, panels, apart, width, tokens):
        space, chunks = stack(room), (width + most - 1) // most
        even = (width // block + chunks - 1) // chunks * block  # inputs: even chunks, so that each prefetches the next
        for k in range(0, width, even):
            inputs = min(even, width - k)
            for n in range(panels):
                at, t = w + n * apart + k // block * block_bytes, 0
                weights = unpack(at, inputs, space)
                here = _moved(tokens, 0, k * x_bytes, k // GROUP * QUANT_RECORD, VECTOR_BYTES * n)
                ahead = at + apart
                while t < tokens.number:
                    rest = _moved(here, t, 0, 0, 0)
                    if rest.number >= widest:
                        wide(weights, inputs, k > 0, rest, ahead)
                        t += widest
                    elif rest.number >= usual:
                        many(weights, inputs, k > 0, rest, ahead)
                        t += usual
                    elif rest.number >= 2:
                        two(weights, inputs, k > 0, rest, ahead)
                        t += 2
                    else:
                        one(weights, inputs, k > 0, rest, ahead)
                        t += 1
                    ahead = 0

    return product


# ---- int8 activations


def _with_amx(panel: Panel, product):
    """The product, with AMX's tiles configured for it where there are enough tokens to use them."""
    begin, end, enough = amx.begin_tiles(panel.width, codes_of(panel).byte_bias), amx.end_tiles, amx.TOKENS

    @njit(error_model="numpy")
    def configured(w, panels, apart, width, tokens):
        if tokens.number >= enough:
            begin()
        product(w, panels, apart, width, tokens)
        if tokens.number >= enough:
            end()

    return configured


def _bytes_tile(target: Target, panel: Panel):
    """make_tile of `_by_chunks` for int8 activations and groups of `unpack.bytes_unpacker`."""
    subgroups, subgroup_bytes, size = panel.subgroups, scales_bytes(panel), unpacked_bytes(panel)
    each = panel.size // (panel.units * panel.groups)  # bytes to prefetch for each group
    add_first, add_last = adders(panel, stored_adder)

    def make(count):
        dots = group_dots(target.dot, count, codes_of(panel), panel.width, packed=False)

        @njit(error_model="numpy")
        def tile(weights, inputs, more, tokens, ahead):
            x, x_row, quant, quant_row = tokens.x, tokens.x_row, tokens.quant, tokens.quant_row
            sums = load_rows(count, 1, tokens.out, tokens.out_row) if more else zeros(count, 1)
            for _ in range(0, inputs, GROUP):
                if ahead:
                    prefetch(ahead, each)
                    ahead += each
                found = dots(weights, 0, x, x_row, quant, quant_row)
                sums = add_first(sums, found, weights + CODES_BYTES, quant, quant_row)
                if subgroups == 2:
                    found = dots(weights, 1, x, x_row, quant, quant_row)
                    sums = add_last(sums, found, weights + CODES_BYTES + subgroup_bytes, quant, quant_row)
                weights += size
                x += GROUP
                quant += QUANT_RECORD
            store_rows(sums, tokens.out, tokens.out_row)

        return tile

    return make


# ---- f32 activations


def _values_tile(load_values, size: int):
    """make_tile of `_by_chunks` for f32 activations and weights of `size` bytes, 16 rows of an input side by side."""
    row = vector_row(1)

    def make(count):
        @njit(error_model="numpy")
        def tile(weights, inputs, more, tokens, _ahead):
            x, x_row = tokens.x, tokens.x_row
            sums = load_rows(count, 1, tokens.out, tokens.out_row) if more else zeros(count, 1)
            for _ in range(inputs):
                sums = outer(sums, x, x_row, row(load_values(weights)))
                x += 4
                weights += ROWS * size
            store_rows(sums, tokens.out, tokens.out_row)

        return tile

    return make
