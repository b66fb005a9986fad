"""Attention over a paged cache: blocks of 16 keys, online softmax in fixed pieces.

T tokens, H heads, K kv heads, d width of a head.

A block of one kv head holds K as [d, 16] and V as [16, d] (a lane is a key, then a lane is a channel), so there are no
horizontal sums, and one query row or four do the same sums. Keys are taken in pieces of 64 and spans of 512, both
aligned to absolute positions, whatever part of the prompt a step holds: Milakov & Gimelshein 2018 (arXiv 1805.02867)
within a span, spans merged in order. A piece that a row may not see is an exact no-op for it.
"""

import numpy as np
from numba import njit

from sotol.backends.cpu.compile import Kernel
from sotol.backends.cpu.layout import CODEC_BYTES, WIDEST_HEAD
from sotol.backends.cpu.simd import (
    exp,
    fma,
    halves_storer,
    load,
    load_i32,
    load_i64,
    maximum,
    scatter_shorts,
    scatter_words,
    splat,
    stack,
    store,
    store_i64,
)
from sotol.backends.cpu.target import Target
from sotol.backends.cpu.tiles import (
    LOWEST,
    add_scaled,
    divide_rows,
    exp_minus,
    gather_row,
    load_rows,
    mask_keys,
    outer,
    row_loader,
    row_max,
    row_sum,
    scale_rows,
    soft_capped,
    store_rows,
    zeros,
)

BLOCK = 16  # keys of a block
PIECE = 64  # keys of one softmax update
SPAN = 512  # keys that are summed apart
ROWS_BYTES = 4 * 4 * WIDEST_HEAD  # of four rows of a head


def store_cache(target: Target, codec: str) -> Kernel:
    """Put each token's K and V into its slot."""
    size = CODEC_BYTES[codec]
    convert = halves_storer(target.halves) if codec == "f16" else store
    scatter = scatter_shorts if codec == "f16" else scatter_words
    stride = BLOCK * size

    def pieces(a):
        return a.rows

    def piece(a, p):
        slot = load_i32(a.slots + 4 * p)
        channels = stack(64)
        for head in range(a.heads):
            keys = a.cache + ((slot // BLOCK) * a.heads + head) * (2 * BLOCK * size) * a.width
            values = keys + (BLOCK * a.width + (slot % BLOCK) * a.width) * size
            row = (p * a.heads + head) * a.width * 4
            for i in range(0, a.width, 16):
                convert(channels, load(a.k + row + 4 * i))
                scatter(keys + i * stride + (slot % BLOCK) * size, stride, channels)
                convert(values + i * size, load(a.v + row + 4 * i))

    return Kernel("rows:count heads width slots cache k v", pieces, piece)


def attend(target: Target, codec: str, wide: int, capped: int) -> Kernel:
    """Softmax(scale q K') V for query tiles of a sequence.

    wide: 1 if d is a multiple of 64; capped: 1 if scores pass through cap * tanh(s / cap). A piece is a kv head's
    query heads for the tokens of one tile: tile i is tokens tile_tokens[i] .. + tile_counts[i] of sequence
    tile_sequences[i], whose block table is that row of tables.
    """
    four, one = _rows(target, codec, 4, wide, capped), _rows(target, codec, 1, wide, capped)
    size = CODEC_BYTES[codec]

    def pieces(a):
        return a.tiles * a.kv_heads

    def piece(a, p):
        tile = a.tiles - 1 - p // a.kv_heads  # later tokens cost more: they go first
        kv_head, group = p % a.kv_heads, a.heads // a.kv_heads
        first, rows = load_i32(a.tile_tokens + 4 * tile), load_i32(a.tile_counts + 4 * tile) * group
        table = a.tables + load_i32(a.tile_sequences + 4 * tile) * a.table_width * 4
        cache = a.cache + kv_head * 2 * BLOCK * size * a.width
        step = a.kv_heads * 2 * BLOCK * size * a.width
        q, at, out = stack(ROWS_BYTES), stack(32), stack(ROWS_BYTES)
        scale = splat(a.scale)
        for row in range(0, rows, 4):
            count = min(4, rows - row)
            padded = 1 if count == 1 else 4
            for r in range(padded):
                number = row + min(r, count - 1)  # rows beyond the last repeat it
                token, head = first + number // group, kv_head * group + number % group
                source = a.q + (token * a.heads + head) * a.width * 4
                for i in range(0, 4 * a.width, 64):
                    store(q + 4 * r * a.width + i, load(source + i) * scale)
                store_i64(at + 8 * r, load_i32(a.positions + 4 * token))
            if padded == 1:
                one(q, at, table, cache, step, a.width, a.window, a.cap, out)
            else:
                four(q, at, table, cache, step, a.width, a.window, a.cap, out)
            for r in range(count):
                token, head = first + (row + r) // group, kv_head * group + (row + r) % group
                target_row = a.out + (token * a.heads + head) * a.width * 4
                for i in range(0, 4 * a.width, 64):
                    store(target_row + i, load(out + 4 * r * a.width + i))

    return Kernel(
        "tiles:count tile_sequences tile_tokens tile_counts tables table_width positions heads kv_heads width window "
        "scale:f32 cap:f32 cache q out",
        pieces,
        piece,
    )


def _scores(target, codec, rows):
    """scores(q, table, first, cache, step, width, p): rows x 64 products q k' into p, from position first on."""
    size = CODEC_BYTES[codec]
    form = "f32" if codec == "f32" else target.halves
    row_of, gather = row_loader(form), gather_row(form)
    stride = BLOCK * size

    @njit(error_model="numpy")
    def at_once(q, table, first, cache, step, width, p):
        t = table + 4 * (first // BLOCK)
        a, b = cache + load_i32(t) * step, cache + load_i32(t + 4) * step
        c, d = cache + load_i32(t + 8) * step, cache + load_i32(t + 12) * step
        s = zeros(rows, 4)
        for i in range(width):
            at = i * stride
            s = outer(s, q + 4 * i, 4 * width, gather(a + at, b + at, c + at, d + at))
        store_rows(s, p, 4 * PIECE)

    @njit(error_model="numpy")
    def by_block(q, table, first, cache, step, width, p):
        for k in range(PIECE // BLOCK):
            keys = cache + load_i32(table + 4 * (first // BLOCK + k)) * step
            s = zeros(rows, 1)
            for i in range(width):
                s = outer(s, q + 4 * i, 4 * width, row_of(1, keys + i * stride, 0))
            store_rows(s, p + 64 * k, 4 * PIECE)

    return at_once if target.lanes == 16 else by_block


def _values(target, codec, rows, wide):
    """add(o, shrink, p, table, first, cache, step, width): o = o * shrink + p V, over 64 keys from position first."""
    size = CODEC_BYTES[codec]
    columns = 4 if wide and target.lanes == 16 else 1
    row_of = row_loader("f32" if codec == "f32" else target.halves)

    @njit(error_model="numpy")
    def add(o, shrink, p, table, first, cache, step, width):
        for channel in range(0, width, 16 * columns):
            sums = scale_rows(load_rows(rows, columns, o + 4 * channel, 4 * width), shrink)
            for k in range(PIECE // BLOCK):
                v = cache + load_i32(table + 4 * (first // BLOCK + k)) * step + (BLOCK * width + channel) * size
                for i in range(BLOCK):
                    values = row_of(columns, v + i * width * size, 16 * size)
                    sums = outer(sums, p + 4 * (BLOCK * k + i), 4 * PIECE, values)
            store_rows(sums, o + 4 * channel, 4 * width)

    return add


def _sums(rows):
    """clear(o, width), and merge(total, m_total, o, m, width) of two weighted sums of values [rows, d]."""

    @njit(error_model="numpy")
    def clear(o, width):
        for i in range(0, 4 * rows * width, 64):
            store(o + i, splat(np.float32(0)))

    @njit(error_model="numpy")
    def merge(total, m_total, o, m, width):
        """The two sums over their common maximum: total * e**(m_total - top) + o * e**(m - top)."""
        top = maximum(m_total, m)
        old, new = exp(m_total - top), exp(m - top)
        for channel in range(0, width, 16):
            sums = load_rows(rows, 1, total + 4 * channel, 4 * width)
            sums = add_scaled(sums, old, load_rows(rows, 1, o + 4 * channel, 4 * width), new)
            store_rows(sums, total + 4 * channel, 4 * width)
        return top, old, new

    return clear, merge


def _rows(target, codec, rows, wide, capped):
    """attend(q, positions, table, cache, step, width, window, cap, out) for so many query rows [rows, d] at once."""
    scores, add_values = _scores(target, codec, rows), _values(target, codec, rows, wide)
    clear, merge = _sums(rows)
    lowest = np.float32(LOWEST)
    last_row, scores_bytes = 8 * (rows - 1), 4 * rows * PIECE

    @njit(error_model="numpy")
    def attend_rows(q, positions, table, cache, step, width, window, cap, out):
        o, p = stack(ROWS_BYTES), stack(scores_bytes)
        soonest, last = load_i64(positions), load_i64(positions + last_row)
        oldest = max(soonest - window + 1, 0)
        m_all, l_all = splat(lowest), splat(np.float32(0))
        clear(out, width)
        for span in range(oldest // SPAN * SPAN, last + 1, SPAN):
            m, total = splat(lowest), splat(np.float32(0))
            clear(o, width)
            for first in range(max(span, oldest // PIECE * PIECE), min(span + SPAN, last + 1), PIECE):
                scores(q, table, first, cache, step, width, p)
                s = load_rows(rows, 4, p, 4 * PIECE)
                if capped:
                    s = soft_capped(s, cap)
                if first + PIECE - 1 > soonest or first <= last - window:
                    s = mask_keys(s, first, positions, window)
                top = maximum(m, row_max(s))
                s = exp_minus(s, top)
                store_rows(s, p, 4 * PIECE)
                shrink = exp(m - top)
                total, m = fma(total, shrink, row_sum(s)), top
                add_values(o, shrink, p, table, first, cache, step, width)
            m_all, old, new = merge(out, m_all, o, m, width)
            l_all = fma(l_all, old, total * new)
        for channel in range(0, width, 16):
            sums = divide_rows(load_rows(rows, 1, out + 4 * channel, 4 * width), l_all)
            store_rows(sums, out + 4 * channel, 4 * width)

    return attend_rows
