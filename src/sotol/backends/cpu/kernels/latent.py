"""Attention over a latent cache: a value is the first channels of its key, and the cache holds the key alone.

K is stored as [d, 16], a lane for each key, which scores need; sums of values need a lane for each channel. So V is
turned from K, some channels at a time, for all query rows of a batch. Its numbers are those that a V of its own would
have, and they are added in the same order.

    K of a block     channel 0    k0 k1 … k15                      V     key 0     c0 c1 … c15
                     channel 1    k0 k1 … k15      --- turned -->        key 1     c0 c1 … c15
                     …                                                   …

A key that is not finite is NaN in all its channels (`attention.store_cache`); as a value it counts as 0.
"""

from numba import njit

from sotol.backends.cpu.kernels.spans import (
    ADDRESSES_BYTES,
    QUAD,
    STATE_BYTES,
    TILE_ROWS,
    Values,
    cached_loader,
    columns_beside,
    converted_scores,
    scores_of,
    seen_blocks,
    shared_span,
    values_adder,
)
from sotol.backends.cpu.layout import BLOCK_KEYS, CODEC_BYTES, LANES, QUAD_BLOCKS, SPAN_EXTRA, VECTOR_BYTES
from sotol.backends.cpu.target import Target
from sotol.backends.cpu.vectors.simd import lane_sum, load, load_f32, load_i32, stack, store, store_i64
from sotol.backends.cpu.vectors.turning import turn_shorts, turn_words


def latent_spans(target: Target, codec: str, rows: int, wide: int, capped: int):
    """Two add_span(…), as of `spans.direct_span`: for a multiple of `rows` rows, which read K as it is stored, and for
    a multiple of TILE_ROWS rows, which share blocks of K that are converted to f32.
    """
    several = 2 if target.lanes == 16 else 1
    columns, across = columns_beside(target, rows), several if wide else 1
    score, score_several = _stored_scores(target, codec, rows, columns), converted_scores(target, codec, several)
    add, add_several = (
        _turned_values(target, codec, rows, columns if wide else 1),
        _turned_values(target, codec, TILE_ROWS, across),
    )
    return shared_span(rows, capped, score, add), shared_span(TILE_ROWS, capped, score_several, add_several)


def _form(target: Target, codec: str) -> str:
    """Of what is stored, as register tiles read it."""
    return "f32" if codec == "f32" else target.f16


def _stored_scores(target: Target, codec: str, rows: int, columns: int):
    """score(…) of `spans.shared_span`, which reads K where it lies."""
    scores, seen = scores_of(_form(target, codec), rows, columns, 1, 0), seen_blocks(rows)

    @njit(error_model="numpy")
    def score(a, queries, keys, first, blocks, p):
        addresses, table = stack(ADDRESSES_BYTES), keys.table + 4 * (first // BLOCK_KEYS)
        for b in range(QUAD_BLOCKS):
            store_i64(addresses + 8 * b, keys.cache + load_i32(table + 4 * b) * a.block_stride)
        for b in range(0, blocks, columns):
            here = addresses + 8 * b
            for row in range(0, queries.rows, rows):
                begin, end = seen(a, queries.positions + 8 * row, first)
                if begin < b + columns and b < end:
                    at = p + 4 * (row * QUAD + b * BLOCK_KEYS)
                    scores(queries.q + 4 * row * a.key_padded, here, here, a.key_padded, at)

    return score


def _turned_values(target: Target, codec: str, rows: int, across: int):
    """add_values(…) of `spans.shared_span`: V is turned from K, 16 * across channels of a quad at a time."""
    add_values, seen = values_adder(_form(target, codec), rows, across, 1, 0), seen_blocks(rows)
    size, turn = CODEC_BYTES[codec], turn_words if codec == "f32" else turn_shorts
    row_bytes, square = LANES * across * size, LANES * BLOCK_KEYS * size
    block_bytes, quad_bytes = BLOCK_KEYS * row_bytes, QUAD * row_bytes
    clear_wrong = _wrong_clearer(target, codec, row_bytes)

    @njit(error_model="numpy")
    def add(a, queries, keys, first, blocks, p, states, sums):
        turned, addresses, record = stack(quad_bytes), stack(ADDRESSES_BYTES), 4 * (a.value_padded + SPAN_EXTRA)
        table, values = keys.table + 4 * (first // BLOCK_KEYS), Values(addresses, 0, row_bytes, 0, 0)
        for b in range(QUAD_BLOCKS):
            store_i64(addresses + 8 * b, turned + b * block_bytes)
        for channel in range(0, a.value_padded, LANES * across):
            for b in range(blocks):
                source, to = keys.cache + load_i32(table + 4 * b) * a.block_stride, turned + b * block_bytes
                for c in range(across):
                    turn(source + (channel // LANES + c) * square, to + c * LANES * size, row_bytes)
                clear_wrong(source, to)
            for row in range(0, queries.rows, rows):
                begin, end = seen(a, queries.positions + 8 * row, first)
                if begin < end:
                    rescale = load(states + STATE_BYTES * (row // rows) + VECTOR_BYTES)
                    o = sums + row * record + 4 * channel
                    add_values(o, record, rescale, p + 4 * row * QUAD, values, begin, end)

    return add


def _wrong_clearer(target: Target, codec: str, row_bytes: int):
    """clear_wrong(keys, values): rows of values whose keys are NaN become 0; keys: the first channel of a block's K."""
    load_cached = cached_loader(target, codec)

    @njit(error_model="numpy")
    def clear_wrong(keys, values):
        channel, each = load_cached(keys), stack(VECTOR_BYTES)
        if lane_sum(channel - channel) == 0:  # NaN - NaN is NaN
            return
        store(each, channel)
        for i in range(BLOCK_KEYS):
            x = load_f32(each + 4 * i)
            if x != x:
                for at in range(i * row_bytes, (i + 1) * row_bytes, 8):
                    store_i64(values + at, 0)

    return clear_wrong
