"""The sums of attention over one span of keys, for a few query rows or for many.

Blocks of 16 keys: K as [d, 16] and V as [16, d] (a lane is a key, then a lane is a channel), so there are no horizontal
sums, and one query row or six do the same sums. Keys are taken in pieces of 64 and spans of 256, both aligned to
absolute positions, whatever part of the prompt a step holds: Milakov & Gimelshein 2018 (arXiv 1805.02867) within a
span. A piece that a row may not see is an exact no-op for it, or left out.

Here d and `width` are channels as the cache has them: whole vectors, those beyond a head's own 0. A row's sums are a
record: d f32, the weighted sum of values; then, as vectors of equal lanes, the maximum that the weights are relative
to, and their sum.
"""

import numpy as np
from numba import njit

from sotol.backends.cpu.kernels.parts import store_part
from sotol.backends.cpu.layout import CODEC_BYTES, SPAN, SUMS_EXTRA, WIDEST_HEAD
from sotol.backends.cpu.vectors.simd import (
    exp,
    fma,
    halves_loader,
    lane_max,
    lane_sum,
    load,
    load_f32,
    load_i32,
    load_i64,
    maximum,
    prefetch,
    splat,
    stack,
    store,
    store_f32,
    store_i64,
)
from sotol.backends.cpu.vectors.tiles import (
    LOWEST,
    load_rows,
    mask_keys,
    outer_gathered,
    outer_in_row,
    scale_rows,
    soft_capped,
    store_rows,
    zeros,
)

BLOCK = 16  # keys of a block
PIECE = 64  # keys of one softmax update
BLOCKS = PIECE // BLOCK
BLOCKS_BYTES = 8 * BLOCKS  # of their addresses
MANY = 6  # query rows of a register tile where many rows share a block
PANEL_ROWS = 96  # query rows that share a block, at most
PANEL_BYTES = 4 * 128 * PANEL_ROWS  # of their numbers: fewer wide rows
RECORD_BYTES = 4 * (WIDEST_HEAD + SUMS_EXTRA)
SUMS_BYTES = PANEL_BYTES + 4 * SUMS_EXTRA * PANEL_ROWS
STATE = 64 * (2 + MANY)  # bytes of a register tile's softmax: see `_soften`


def few_rows(target, codec, rows, wide, capped):
    """few(q, positions, rows, table, cache, step, width, window, cap, span, sums): the sums of one span.

    q [rows, d] and positions [rows, int64], ascending; sums: for each row its sum of values and, as vectors, its
    maximum and its sum of weights. These rows are one register tile, which reads the cache as it is.
    """
    form = "f32" if codec == "f32" else target.halves
    room = 24 if target.lanes == 16 else 6  # vectors of 16 sums that leave registers for what is multiplied
    columns = 4 if 4 * rows <= room else 2 if 2 * rows <= room else 1
    across = columns if wide else 1
    copies = copies_of(target, rows)
    scores, soften = _scores(form, rows, columns, copies, 1), _soften(rows, capped, copies)
    add_values = _values(form, rows, across, min(copies, across), 1)
    open_span, close_span = _records(rows)
    seen = _seen(rows)
    size, last_row = CODEC_BYTES[codec], 8 * (rows - 1)
    scores_bytes = 4 * rows * copies * PIECE

    @njit(error_model="numpy")
    def few(q, positions, _rows, table, cache, step, width, window, cap, span, sums):
        p, state, record = stack(scores_bytes), stack(STATE), 4 * (width + SUMS_EXTRA)
        blocks, ahead = stack(BLOCKS_BYTES), stack(BLOCKS_BYTES)
        oldest, last = max(load_i64(positions) - window + 1, 0), load_i64(positions + last_row)
        open_span(sums, state, width)
        beyond = min(span + SPAN, last + 1)
        for first in range(max(span, oldest // PIECE * PIECE), beyond, PIECE):
            begin, end = seen(positions, first, window)
            following = first + PIECE if first + PIECE < beyond else first
            for b in range(BLOCKS):
                store_i64(blocks + 8 * b, cache + load_i32(table + 4 * (first // BLOCK + b)) * step)
                store_i64(ahead + 8 * b, cache + load_i32(table + 4 * (following // BLOCK + b)) * step)
            for b in range(begin // columns * columns, end, columns):
                scores(q, blocks + 8 * b, ahead + 8 * b, width, p + 64 * b)
            shrink = soften(p, state, first, positions, window, cap)
            for channel in range(0, width, 16 * across):
                at, ahead_at = (BLOCK * width + channel) * size, BLOCK * (width + channel) * size
                add_values(sums + 4 * channel, record, shrink, p, blocks, at, width * size, ahead, ahead_at, begin, end)
        close_span(sums, state, width)

    return few


def many_rows(target, codec, wide, capped):
    """many(...), as few(...) of `few_rows`, for any multiple of MANY rows: they share blocks converted to f32."""
    columns = 2 if target.lanes == 16 else 1
    score, weigh = _score_shared(target, codec, columns), _weigh_shared(target, codec, columns if wide else 1)
    soften, seen = _soften(MANY, capped, 1), _seen(MANY)
    open_span, close_span = _records(MANY)
    scores_bytes, states_bytes = 4 * PANEL_ROWS * PIECE, STATE // MANY * PANEL_ROWS + STATE

    @njit(error_model="numpy")
    def many(q, positions, rows, table, cache, step, width, window, cap, span, sums):
        p, states, record = stack(scores_bytes), stack(states_bytes), 4 * (width + SUMS_EXTRA)
        oldest, last = max(load_i64(positions) - window + 1, 0), load_i64(positions + 8 * (rows - 1))
        for row in range(0, rows, MANY):
            open_span(sums + row * record, states + STATE * (row // MANY), width)
        for first in range(max(span, oldest // PIECE * PIECE), min(span + SPAN, last + 1), PIECE):
            blocks = min(BLOCKS, (last - first) // BLOCK + 1)
            here = table + 4 * (first // BLOCK)
            score(q, positions, rows, here, blocks, cache, step, width, window, first, p)
            for row in range(0, rows, MANY):
                begin, end = seen(positions + 8 * row, first, window)
                if begin < end:
                    soften(p + 4 * row * PIECE, states + STATE * (row // MANY), first, positions + 8 * row, window, cap)
            weigh(sums, states, p, positions, rows, here, blocks, cache, step, width, window, first)
        for row in range(0, rows, MANY):
            close_span(sums + row * record, states + STATE * (row // MANY), width)

    return many


def _score_shared(target, codec, columns):
    """score(...): p = q k' for one piece, where rows may see keys: each K block is converted once for all rows."""
    scores, seen = _scores("f32", MANY, columns, 1, 0), _seen(MANY)
    load_cached, size = _cached(target, codec), CODEC_BYTES[codec]
    keys_bytes = 4 * columns * BLOCK * WIDEST_HEAD

    @njit(error_model="numpy")
    def score(q, positions, rows, table, blocks, cache, step, width, window, first, p):
        keys, addresses = stack(keys_bytes), stack(BLOCKS_BYTES)
        for c in range(columns):
            store_i64(addresses + 8 * c, keys + 4 * c * BLOCK * width)
        for b in range(0, blocks, columns):
            for c in range(columns):
                source = cache + load_i32(table + 4 * (b + c)) * step
                for i in range(0, BLOCK * width, 16):
                    store(keys + 4 * (c * BLOCK * width + i), load_cached(source + i * size))
            for row in range(0, rows, MANY):
                begin, end = seen(positions + 8 * row, first, window)
                if begin < b + columns and b < end:
                    scores(q + 4 * row * width, addresses, addresses, width, p + 4 * (row * PIECE + b * BLOCK))

    return score


def _weigh_shared(target, codec, across):
    """weigh(...): sums = sums * shrink + p V for one piece: each V block is converted once for all rows."""
    add_values, seen = _values("f32", MANY, across, 1, 0), _seen(MANY)
    load_cached, size = _cached(target, codec), CODEC_BYTES[codec]
    values_bytes = 64 * across * PIECE

    @njit(error_model="numpy")
    def weigh(sums, states, p, positions, rows, table, blocks, cache, step, width, window, first):
        values, addresses, record = stack(values_bytes), stack(BLOCKS_BYTES), 4 * (width + SUMS_EXTRA)
        for b in range(BLOCKS):
            store_i64(addresses + 8 * b, values + b * across * 64 * BLOCK)
        for channel in range(0, width, 16 * across):
            for b in range(blocks):
                source = cache + load_i32(table + 4 * b) * step + (BLOCK * width + channel) * size
                for i in range(BLOCK):
                    for c in range(across):
                        v = load_cached(source + (i * width + 16 * c) * size)
                        store(values + 64 * ((b * BLOCK + i) * across + c), v)
            for row in range(0, rows, MANY):
                begin, end = seen(positions + 8 * row, first, window)
                if begin < end:
                    o, shrink = sums + row * record + 4 * channel, load(states + STATE * (row // MANY) + 64)
                    add_values(o, record, shrink, p + 4 * row * PIECE, addresses, 0, 64 * across, 0, 0, begin, end)

    return weigh


def _cached(target, codec):
    """load(address) -> 16 cached numbers as f32."""
    return load if codec == "f32" else halves_loader(target.halves)


def _seen(rows):
    """seen(positions, first, window): which of the 4 blocks from position first on any of these rows may see."""
    last_row = 8 * (rows - 1)

    @njit(error_model="numpy")
    def seen(positions, first, window):
        oldest, last = load_i64(positions) - window + 1, load_i64(positions + last_row)
        return max(oldest - first, 0) // BLOCK, min(BLOCKS, (last - first + BLOCK) // BLOCK)

    return seen


def copies_of(target, rows):
    """Copies of the scalars q and p that few(...) reads: see `tiles._add_outer`."""
    return 2 if rows == 3 and target.lanes == 8 else 1


def _scores(form, rows, columns, copies, fetch):
    """scores(q, blocks, ahead, width, p): rows x 16 columns products q k' into p; blocks: addresses of K blocks.

    fetch: 1 if as many blocks at the addresses ahead will be read next.
    """
    outer = outer_gathered(form, copies)
    stride = BLOCK * (4 if form == "f32" else 2)

    @njit(error_model="numpy")
    def scores(q, blocks, ahead, width, p):
        s = zeros(rows, columns)
        for i in range(width):
            if fetch:
                for c in range(columns):
                    prefetch(load_i64(ahead + 8 * c) + i * stride, stride)
            s = outer(s, q + 4 * i, 4 * width, blocks, i * stride)
        store_rows(s, p, 4 * PIECE)

    return scores


def _soften(rows, capped, copies):
    """soften(p, state, first, positions, window, cap): p becomes e**(p - m), m the maximum up to this piece; copied.

    state: a lane for each row: m; what the sums before this piece shrink by, which is returned too; then for each row
    its sum of weights, 16 lanes that are added at the end of the span.
    """
    last_row, copy_bytes = 8 * (rows - 1), 4 * rows * PIECE

    @njit(error_model="numpy")
    def soften(p, state, first, positions, window, cap):
        hides = first + PIECE - 1 > load_i64(positions) or first <= load_i64(positions + last_row) - window
        for r in range(rows):
            at = p + 4 * r * PIECE
            if capped:
                store_rows(soft_capped(load_rows(1, 4, at, 0), cap), at, 0)
            if hides:
                store_rows(mask_keys(load_rows(1, 4, at, 0), first, positions + 8 * r, window), at, 0)
            m, top = load_f32(state + 4 * r), maximum(load(at), load(at + 64))
            best = max(lane_max(maximum(top, maximum(load(at + 128), load(at + 192)))), m)
            store_f32(state + 4 * r, best)
            store_f32(state + 64 + 4 * r, m - best)
        shrink = exp(load(state + 64))
        store(state + 64, shrink)
        for r in range(rows):
            at, best = p + 4 * r * PIECE, splat(load_f32(state + 4 * r))
            a, b = exp(load(at) - best), exp(load(at + 64) - best)
            c, d = exp(load(at + 128) - best), exp(load(at + 192) - best)
            for copy in range(copies):
                store(at + copy * copy_bytes, a)
                store(at + copy * copy_bytes + 64, b)
                store(at + copy * copy_bytes + 128, c)
                store(at + copy * copy_bytes + 192, d)
            weights = state + 128 + 64 * r
            store(weights, fma(load(weights), splat(load_f32(state + 64 + 4 * r)), (a + b) + (c + d)))
        return shrink

    return soften


def _values(form, rows, columns, copies, fetch):
    """add(o, stride, shrink, p, blocks, at, row, ahead, ahead_at, begin, end): o = o * shrink + p V.

    o [rows, 16 columns], `stride` bytes apart. Of blocks begin .. end: block b's V has its first channel at
    blocks[b] + at, the next key's `row` bytes on. fetch: 1 if this call's share of V at ahead[b] + ahead_at, as it
    lies, will be read next.
    """
    outer = outer_in_row(form, copies)
    step = 16 * (4 if form == "f32" else 2)
    share = step * columns

    @njit(error_model="numpy")
    def add(o, stride, shrink, p, blocks, at, row, ahead, ahead_at, begin, end):
        sums = scale_rows(load_rows(rows, columns, o, stride), shrink)
        for b in range(begin, end):
            v = load_i64(blocks + 8 * b) + at
            for i in range(BLOCK):
                if fetch:
                    prefetch(load_i64(ahead + 8 * b) + ahead_at + i * share, share)
                sums = outer(sums, p + 4 * (BLOCK * b + i), 4 * PIECE, v + i * row, step)
        store_rows(sums, o, stride)

    return add


def _records(rows):
    """open(sums, state, width) and close(…): the sums of a register tile before any key, and after the last."""

    @njit(error_model="numpy")
    def open_span(sums, state, width):
        for r in range(rows):
            for i in range(0, 4 * width, 64):
                store(sums + 4 * r * (width + SUMS_EXTRA) + i, splat(np.float32(0)))
        store(state, splat(np.float32(LOWEST)))
        for i in range(64, 128 + 64 * rows, 64):
            store(state + i, splat(np.float32(0)))

    @njit(error_model="numpy")
    def close_span(sums, state, width):
        for r in range(rows):
            at = sums + r * 4 * (width + SUMS_EXTRA) + 4 * width
            store(at, splat(load_f32(state + 4 * r)))
            store(at + 64, splat(lane_sum(load(state + 128 + 64 * r))))

    return open_span, close_span


@njit(error_model="numpy")
def clear_record(total, width):
    """No keys yet."""
    for i in range(0, 4 * width, 64):
        store(total + i, splat(np.float32(0)))
    store(total + 4 * width, splat(np.float32(LOWEST)))
    store(total + 4 * width + 64, splat(np.float32(0)))


@njit(error_model="numpy")
def merge_records(total, part, width):
    """Both over their common maximum: total * e**(m_total - top) + part * e**(m_part - top)."""
    m_total, m_part = load(total + 4 * width), load(part + 4 * width)
    top = maximum(m_total, m_part)
    old, new = exp(m_total - top), exp(m_part - top)
    store(total + 4 * width, top)
    for i in range(0, 4 * width, 64):
        store(total + i, fma(load(total + i), old, load(part + i) * new))
    weights = total + 4 * width + 64
    store(weights, fma(load(weights), old, load(part + 4 * width + 64) * new))


@njit(error_model="numpy")
def copy_record(source, to, width):
    for i in range(0, 4 * (width + SUMS_EXTRA), 64):
        store(to + i, load(source + i))


@njit(error_model="numpy")
def finish_record(total, out, width, padded):
    """out [width] = the sum of values / the sum of weights."""
    for i in range(0, width, 16):
        store_part(out + 4 * i, load(total + 4 * i) / load(total + 4 * padded + 64), width - i)
