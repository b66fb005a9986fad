"""Attention over one span of keys: the weighted sum of values, for the query rows of one token or of several.

    block table  [ 7 | 3 | 9 | 4 | 12 | 1 | 8 | ...     the sequence's blocks, by position / 16
    block 7, one kv head:  K [d, 16]  V [16, e]         16 keys: a lane of K is a key, a lane of V a channel

    positions  0        64       128      192      256      320      384      448      512
               | quad   | quad   | quad   | quad   | quad   | quad   | quad   | quad   |      a quad: 4 blocks
               |              span 0               |              span 1               |

    query rows: tokens of a query tile x query heads of the kv head     [rows, d], multiplied by the scale
    a span, from maximum m = LOWEST and sums o = 0, weights w = 0; for each quad:
        s = q K'                                         [rows, 64]: accumulators of rows x 16, in register tiles
        m, before = max(m, s), m;  p = exp(s - m)
        o = o * exp(before - m) + p V                    [rows, e]
        w = w * exp(before - m) + sum(p)
    record of a row and span (`records.py`): o, m, w. Those of all spans are merged in order; the result is o / w

This is the online softmax of Milakov & Gimelshein 2018 (arXiv 1805.02867). Quads and spans begin at absolute positions,
wherever a step begins, and a row's operations are the same whatever rows are computed beside it: so its bits depend
only on its keys. A quad that a row may not see either leaves its sums unchanged, bit for bit, or is skipped.

Here d is key channels and e value channels as the cache has them: whole vectors, those beyond a head's own are 0.
Kernels pass on `a`, the arguments of `attention.attend`. Functions here read of them key_padded (d), value_padded (e),
block_stride (bytes from a head's block to the same head's next one), values_at (from its K to its V), cap, and which
keys a row sees (`oldest_seen`): window and chunk.
"""

from typing import NamedTuple

from numba import njit

from sotol.backends.cpu.kernels.records import records_of
from sotol.backends.cpu.layout import (
    BLOCK_KEYS,
    CODEC_BYTES,
    LANES,
    QUAD_BLOCKS,
    SPAN,
    SPAN_EXTRA,
    VECTOR_BYTES,
    WIDEST_HEAD,
)
from sotol.backends.cpu.target import Target
from sotol.backends.cpu.vectors.simd import (
    exp,
    f16_loader,
    fma,
    lane_max,
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
    load_rows,
    mask_keys,
    outer_gathered,
    outer_in_row,
    scale_rows,
    soft_capped,
    store_rows,
    zeros,
)

QUAD = QUAD_BLOCKS * BLOCK_KEYS  # keys of one softmax update
ADDRESSES_BYTES = 8 * QUAD_BLOCKS  # of the addresses of a quad's blocks
TILE_ROWS = 6  # query rows of a register tile, where several tokens share blocks
BATCH_ROWS = 96  # query rows that share converted blocks, at most
BATCH_BYTES = 4 * 128 * BATCH_ROWS  # of as many rows of 128 channels; fewer rows if heads are wider
SUMS_BYTES = BATCH_BYTES + 4 * SPAN_EXTRA * BATCH_ROWS
STATE_BYTES = VECTOR_BYTES * (2 + TILE_ROWS)  # of a register tile's softmax: see `_softmax_updater`

assert QUAD == 4 * LANES, "the softmax update is written for four vectors"
assert BLOCK_KEYS == LANES, "a vector of K has one lane for each key of a block"


class Queries(NamedTuple):
    """Query rows, as addresses."""

    q: int  # f32 [rows, d]
    positions: int  # int64 [rows], ascending
    rows: int


class Keys(NamedTuple):
    """The keys and values of a sequence, for one kv head, as addresses."""

    table: int  # int32: the sequence's blocks from position 0 on
    cache: int  # the head's K in block 0


@njit(error_model="numpy")
def oldest_seen(a, position):
    """The position of the first key that a row at this one sees: of the `window` last, or (chunk > 0) of its chunk."""
    return position - position % a.chunk if a.chunk else max(position - a.window + 1, 0)


class Values(NamedTuple):
    """Some channels of the V of a quad's blocks."""

    blocks: int  # the addresses of the blocks
    at: int  # bytes from these to the first key's first channel
    row: int  # bytes from one key's V to the next one's
    ahead: int  # addresses of blocks that will be read next, if V is to be prefetched, and
    ahead_at: int  # bytes from these to this call's part of it


def direct_span(target: Target, codecs: tuple[str, str], rows: int, wide: int, capped: int):
    """add_span(a, queries, keys, span, sums): a record for each row, of the span from position `span` on.

    For the rows of one register tile, which read the cache as it is stored.
    """
    key_form, value_form = ("f32" if codec == "f32" else target.f16 for codec in codecs)
    columns = columns_beside(target, rows)
    across = columns if wide else 1
    copies = copies_of(target, rows)
    scores, update = scores_of(key_form, rows, columns, copies, 1), _softmax_updater(rows, capped, copies)
    add_values = values_adder(value_form, rows, across, min(copies, across), 1)
    open_span, close_span = records_of(rows)
    seen = seen_blocks(rows)
    size, last_row = CODEC_BYTES[codecs[1]], 8 * (rows - 1)
    scores_bytes = 4 * rows * copies * QUAD

    @njit(error_model="numpy")
    def add_span(a, queries, keys, span, sums):
        d, e, stride, values_at = a.key_padded, a.value_padded, a.block_stride, a.values_at
        p, state, record = stack(scores_bytes), stack(STATE_BYTES), 4 * (e + SPAN_EXTRA)
        blocks, ahead = stack(ADDRESSES_BYTES), stack(ADDRESSES_BYTES)
        oldest, last = oldest_seen(a, load_i64(queries.positions)), load_i64(queries.positions + last_row)
        open_span(sums, state, e)
        beyond = min(span + SPAN, last + 1)
        for first in range(max(span, oldest // QUAD * QUAD), beyond, QUAD):
            begin, end = seen(a, queries.positions, first)
            following = first + QUAD if first + QUAD < beyond else first
            for b in range(QUAD_BLOCKS):
                here, there = first // BLOCK_KEYS + b, following // BLOCK_KEYS + b
                store_i64(blocks + 8 * b, keys.cache + load_i32(keys.table + 4 * here) * stride)
                store_i64(ahead + 8 * b, keys.cache + load_i32(keys.table + 4 * there) * stride)
            for b in range(begin // columns * columns, end, columns):
                scores(queries.q, blocks + 8 * b, ahead + 8 * b, d, p + VECTOR_BYTES * b)
            rescale = update(a, p, state, first, queries.positions)
            for channel in range(0, e, LANES * across):
                at = values_at + channel * size
                values = Values(blocks, at, e * size, ahead, values_at + BLOCK_KEYS * channel * size)
                add_values(sums + 4 * channel, record, rescale, p, values, begin, end)
        close_span(sums, state, e)

    return add_span


def columns_beside(target: Target, rows: int) -> int:
    """Columns of a register tile of so many rows, whose accumulators leave registers for the operands."""
    room = 24 if target.lanes == 16 else 6
    return 4 if 4 * rows <= room else 2 if 2 * rows <= room else 1


def converted_span(target: Target, codecs: tuple[str, str], wide: int, capped: int):
    """add_span(…), as of `direct_span`, for a multiple of TILE_ROWS rows: they share blocks converted to f32."""
    columns = 2 if target.lanes == 16 else 1
    score = converted_scores(target, codecs[0], columns)
    return shared_span(TILE_ROWS, capped, score, _converted_values(target, codecs[1], columns if wide else 1))


def shared_span(tile: int, capped: int, score, add_values):
    """add_span(…), as of `direct_span`, for a multiple of `tile` rows, BATCH_ROWS at most, which share what is read.

    score(a, queries, keys, first, blocks, p): p = q K' for the first blocks of a quad; first: its position.
    add_values(a, queries, keys, first, blocks, p, states, sums): sums = sums * rescale + p V.
    """
    update, seen = _softmax_updater(tile, capped, 1), seen_blocks(tile)
    open_span, close_span = records_of(tile)
    scores_bytes, states_bytes = 4 * BATCH_ROWS * QUAD, STATE_BYTES * (BATCH_ROWS // tile)

    @njit(error_model="numpy")
    def add_span(a, queries, keys, span, sums):
        e, rows, positions = a.value_padded, queries.rows, queries.positions
        p, states, record = stack(scores_bytes), stack(states_bytes), 4 * (e + SPAN_EXTRA)
        oldest, last = oldest_seen(a, load_i64(positions)), load_i64(positions + 8 * (rows - 1))
        for row in range(0, rows, tile):
            open_span(sums + row * record, states + STATE_BYTES * (row // tile), e)
        for first in range(max(span, oldest // QUAD * QUAD), min(span + SPAN, last + 1), QUAD):
            blocks = min(QUAD_BLOCKS, (last - first) // BLOCK_KEYS + 1)
            score(a, queries, keys, first, blocks, p)
            for row in range(0, rows, tile):
                state, at = states + STATE_BYTES * (row // tile), positions + 8 * row
                begin, end = seen(a, at, first)
                if begin < end:
                    update(a, p + 4 * row * QUAD, state, first, at)
            add_values(a, queries, keys, first, blocks, p, states, sums)
        for row in range(0, rows, tile):
            close_span(sums + row * record, states + STATE_BYTES * (row // tile), e)

    return add_span


def converted_scores(target: Target, codec: str, columns: int):
    """score(…) of `shared_span`: each block of K is converted to f32 once, for all rows that may see it."""
    scores, seen = scores_of("f32", TILE_ROWS, columns, 1, 0), seen_blocks(TILE_ROWS)
    load_cached, size = cached_loader(target, codec), CODEC_BYTES[codec]
    keys_bytes = 4 * columns * BLOCK_KEYS * WIDEST_HEAD

    @njit(error_model="numpy")
    def score(a, queries, keys, first, blocks, p):
        d, stride, table = a.key_padded, a.block_stride, keys.table + 4 * (first // BLOCK_KEYS)
        converted, addresses = stack(keys_bytes), stack(ADDRESSES_BYTES)
        for c in range(columns):
            store_i64(addresses + 8 * c, converted + 4 * c * BLOCK_KEYS * d)
        for b in range(0, blocks, columns):
            for c in range(columns):
                source = keys.cache + load_i32(table + 4 * (b + c)) * stride
                for i in range(0, BLOCK_KEYS * d, LANES):
                    store(converted + 4 * (c * BLOCK_KEYS * d + i), load_cached(source + i * size))
            for row in range(0, queries.rows, TILE_ROWS):
                begin, end = seen(a, queries.positions + 8 * row, first)
                if begin < b + columns and b < end:
                    scores(queries.q + 4 * row * d, addresses, addresses, d, p + 4 * (row * QUAD + b * BLOCK_KEYS))

    return score


def _converted_values(target: Target, codec: str, across: int):
    """add_values(…) of `shared_span`: each block of V is converted to f32 once, 16 * across channels at a time."""
    add_values, seen = values_adder("f32", TILE_ROWS, across, 1, 0), seen_blocks(TILE_ROWS)
    load_cached, size = cached_loader(target, codec), CODEC_BYTES[codec]
    values_bytes, row_bytes = VECTOR_BYTES * across * QUAD, VECTOR_BYTES * across

    @njit(error_model="numpy")
    def add(a, queries, keys, first, blocks, p, states, sums):
        e, stride, values_at = a.value_padded, a.block_stride, a.values_at
        converted, addresses, record = stack(values_bytes), stack(ADDRESSES_BYTES), 4 * (e + SPAN_EXTRA)
        table = keys.table + 4 * (first // BLOCK_KEYS)
        for b in range(QUAD_BLOCKS):
            store_i64(addresses + 8 * b, converted + b * BLOCK_KEYS * row_bytes)
        for channel in range(0, e, LANES * across):
            for b in range(blocks):
                source = keys.cache + load_i32(table + 4 * b) * stride + values_at + channel * size
                for i in range(BLOCK_KEYS):
                    for c in range(across):
                        v = load_cached(source + (i * e + LANES * c) * size)
                        store(converted + VECTOR_BYTES * ((b * BLOCK_KEYS + i) * across + c), v)
            for row in range(0, queries.rows, TILE_ROWS):
                begin, end = seen(a, queries.positions + 8 * row, first)
                if begin < end:
                    rescale = load(states + STATE_BYTES * (row // TILE_ROWS) + VECTOR_BYTES)
                    values = Values(addresses, 0, row_bytes, 0, 0)
                    o = sums + row * record + 4 * channel
                    add_values(o, record, rescale, p + 4 * row * QUAD, values, begin, end)

    return add


def cached_loader(target: Target, codec: str):
    """load(address) -> 16 cached numbers as f32."""
    return load if codec == "f32" else f16_loader(target.f16)


def seen_blocks(rows: int):
    """seen(a, positions, first) -> begin, end: the blocks of the quad at position first that any row may see."""
    last_row = 8 * (rows - 1)

    @njit(error_model="numpy")
    def seen(a, positions, first):
        oldest, last = oldest_seen(a, load_i64(positions)), load_i64(positions + last_row)
        return max(oldest - first, 0) // BLOCK_KEYS, min(QUAD_BLOCKS, (last - first + BLOCK_KEYS) // BLOCK_KEYS)

    return seen


def copies_of(target: Target, rows: int) -> int:
    """Copies of q and p that `direct_span` reads scalars from: see `tiles._add_outer`."""
    return 2 if rows == 3 and target.lanes == 8 else 1


def scores_of(form: str, rows: int, columns: int, copies: int, fetch: int):
    """scores(q, blocks, ahead, width, p): rows x 16 columns products q K' into p; blocks: addresses of K blocks.

    fetch: 1 to prefetch as many blocks at the addresses ahead.
    """
    outer = outer_gathered(form, copies)
    stride = BLOCK_KEYS * (4 if form == "f32" else 2)

    @njit(error_model="numpy")
    def scores(q, blocks, ahead, width, p):
        s = zeros(rows, columns)
        for i in range(width):
            if fetch:
                for c in range(columns):
                    prefetch(load_i64(ahead + 8 * c) + i * stride, stride)
            s = outer(s, q + 4 * i, 4 * width, blocks, i * stride)
        store_rows(s, p, 4 * QUAD)

    return scores


def _softmax_updater(rows: int, capped: int, copies: int):
    """update(a, p, state, first, positions) -> rescale: p = exp(p - m), m the maximum up to this quad.

    Scores that a row may not see become 0. p is written `copies` times. state, as vectors: m, a lane for each row;
    rescale, what earlier sums are multiplied by, too; then for each row its sum of weights, in 16 lanes that are added
    at the end of the span.
    """
    last_row, copy_bytes = 8 * (rows - 1), 4 * rows * QUAD

    @njit(error_model="numpy")
    def update(a, p, state, first, positions):
        hides = first + QUAD - 1 > load_i64(positions) or first < oldest_seen(a, load_i64(positions + last_row))
        for r in range(rows):
            at, position = p + 4 * r * QUAD, load_i64(positions + 8 * r)
            if capped:
                store_rows(soft_capped(load_rows(1, 4, at, 0), a.cap), at, 0)
            if hides:
                shown = mask_keys(load_rows(1, 4, at, 0), oldest_seen(a, position) - first, position - first)
                store_rows(shown, at, 0)
            m, top = load_f32(state + 4 * r), maximum(load(at), load(at + VECTOR_BYTES))
            top = maximum(top, maximum(load(at + 2 * VECTOR_BYTES), load(at + 3 * VECTOR_BYTES)))
            best = max(lane_max(top), m)
            store_f32(state + 4 * r, best)
            store_f32(state + VECTOR_BYTES + 4 * r, m - best)
        rescale = exp(load(state + VECTOR_BYTES))
        store(state + VECTOR_BYTES, rescale)
        for r in range(rows):
            at, best = p + 4 * r * QUAD, splat(load_f32(state + 4 * r))
            w0, w1 = exp(load(at) - best), exp(load(at + VECTOR_BYTES) - best)
            w2, w3 = exp(load(at + 2 * VECTOR_BYTES) - best), exp(load(at + 3 * VECTOR_BYTES) - best)
            for copy in range(copies):
                to = at + copy * copy_bytes
                store(to, w0)
                store(to + VECTOR_BYTES, w1)
                store(to + 2 * VECTOR_BYTES, w2)
                store(to + 3 * VECTOR_BYTES, w3)
            weights = state + VECTOR_BYTES * (2 + r)
            store(weights, fma(load(weights), splat(load_f32(state + VECTOR_BYTES + 4 * r)), (w0 + w1) + (w2 + w3)))
        return rescale

    return update


def values_adder(form: str, rows: int, columns: int, copies: int, fetch: int):
    """add(o, stride, rescale, p, values, begin, end): o = o * rescale + p V, for blocks begin .. end of a quad.

    o: accumulators [rows, 16 columns] in memory, `stride` bytes from one row to the next. fetch: 1 to prefetch this
    call's part of the next quad's V.
    """
    outer = outer_in_row(form, copies)
    apart = LANES * (4 if form == "f32" else 2)
    each = apart * columns

    @njit(error_model="numpy")
    def add(o, stride, rescale, p, values, begin, end):
        sums = scale_rows(load_rows(rows, columns, o, stride), rescale)
        for b in range(begin, end):
            v = load_i64(values.blocks + 8 * b) + values.at
            for i in range(BLOCK_KEYS):
                if fetch:
                    prefetch(load_i64(values.ahead + 8 * b) + values.ahead_at + i * each, each)
                sums = outer(sums, p + 4 * (BLOCK_KEYS * b + i), 4 * QUAD, v + i * values.row, apart)
        store_rows(sums, o, stride)

    return add
