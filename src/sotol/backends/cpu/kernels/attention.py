"""Attention over a paged cache: storing keys and values in it, and reading them.

T tokens, H heads, K kv heads, d key channels of a head, e value channels. In rows of f32, heads lie side by side. In
the cache, in query rows on the stack and in records a head has whole vectors of channels, and those beyond its own are
0: so a block of one kv head holds K as [padded d, 16], then V as [16, padded e]; of a latent cache, K alone.

    query tile    neighbouring tokens of a sequence (`running/sharing.py`)
    share         what is taken of a tile at a time: all its spans, or one of them
    piece         a share, for one kv head and the query heads that belong to it

    a share of all spans:   for each batch of query rows: for each span: its record, merged into the row's; results
    a share of one span:    for each batch of query rows: the record goes to memory; whoever finishes the tile's last
                            share merges all of the tile's records, and writes the results

`spans.py` has the picture of blocks, quads and spans. Spans are merged in their order in both cases, so the bits do not
depend on how a tile is shared.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from sotol.backends.cpu.kernel import Kernel
from sotol.backends.cpu.kernels.first_lanes import load_first
from sotol.backends.cpu.kernels.latent import latent_spans
from sotol.backends.cpu.kernels.records import (
    RECORD_BYTES,
    add_sink,
    clear_record,
    copy_record,
    finish_record,
    merge_records,
)
from sotol.backends.cpu.kernels.spans import (
    BATCH_BYTES,
    BATCH_ROWS,
    SUMS_BYTES,
    TILE_ROWS,
    Keys,
    Queries,
    converted_span,
    copies_of,
    direct_span,
    oldest_seen,
)
from sotol.backends.cpu.layout import BLOCK_KEYS, CODEC_BYTES, LANES, LATENT, SPAN, SPAN_EXTRA, VECTOR_BYTES
from sotol.backends.cpu.target import Target
from sotol.backends.cpu.vectors.arguments import atomic_add, atomic_store
from sotol.backends.cpu.vectors.simd import (
    f16_storer,
    fma,
    lane_sum,
    load_f32,
    load_i32,
    scatter_shorts,
    scatter_words,
    splat,
    stack,
    store,
    store_i64,
)

PIECE_TOKENS = BLOCK_KEYS  # of store_cache: neighbouring keys share cache lines, which one thread should write
POSITIONS_BYTES = 8 * BATCH_ROWS


class QueryTile(NamedTuple):
    """Neighbouring tokens of a sequence, and the query heads of one kv head. Rows are ordered by token, then head."""

    first: int  # token of the step
    tokens: int
    kv_head: int


def store_cache(target: Target, key_codec: str, value_codec: str) -> Kernel:
    """Write each token's K and V to its slot; numbers beyond the codec's range become its largest.

    slots: block * 16 + the key's place in the block, for each token. Where K or V of a token's head is not finite, its
    K becomes NaN and its V zero. A row that sees that key gets NaN. For any other row its weight is 0, and 0 times its
    V is 0: so it harms neither earlier tokens of its sequence nor the sequence that has the block next.
    Rows of k and v are k_row and v_row bytes apart, heads in them k_head and v_head. A latent cache has no V:
    value_width is 0. A piece is 16 tokens.
    """
    key_size, value_size = CODEC_BYTES[key_codec], CODEC_BYTES[value_codec]
    convert_key, convert_value = _storer(target, key_codec), _storer(target, value_codec)
    scatter = scatter_shorts if key_codec == "f16" else scatter_words
    stride = BLOCK_KEYS * key_size

    def pieces(a):
        return (a.rows + PIECE_TOKENS - 1) // PIECE_TOKENS

    def piece(a, p):
        channels, nothing = stack(VECTOR_BYTES), splat(np.float32(0))
        head_bytes = BLOCK_KEYS * (a.key_padded * key_size + a.value_padded * value_size)
        for token in range(PIECE_TOKENS * p, min(PIECE_TOKENS * (p + 1), a.rows)):
            slot = load_i32(a.slots + 4 * token)
            for head in range(a.heads):
                keys = a.cache + ((slot // BLOCK_KEYS) * a.heads + head) * head_bytes
                values = keys + BLOCK_KEYS * a.key_padded * key_size + (slot % BLOCK_KEYS) * a.value_padded * value_size
                keys += (slot % BLOCK_KEYS) * key_size
                k_at, v_at = a.k + token * a.k_row + head * a.k_head, a.v + token * a.v_row + head * a.v_head
                wrong = nothing
                for i in range(0, a.key_width, LANES):
                    k = load_first(k_at + 4 * i, a.key_width - i)
                    wrong = fma(k, nothing, wrong)  # 0 * infinity and 0 * NaN are NaN, and stay so
                    convert_key(channels, k)
                    scatter(keys + i * stride, stride, channels)
                for i in range(0, a.value_width, LANES):
                    v = load_first(v_at + 4 * i, a.value_width - i)
                    wrong = fma(v, nothing, wrong)
                    convert_value(values + i * value_size, v)
                if lane_sum(wrong) != 0:
                    convert_key(channels, splat(np.float32(np.nan)))
                    for i in range(0, a.key_width, LANES):
                        scatter(keys + i * stride, stride, channels)
                    for i in range(0, a.value_width, LANES):
                        convert_value(values + i * value_size, nothing)

    return Kernel(
        "rows:count heads key_width key_padded value_width value_padded slots cache k k_row k_head v v_row v_head",
        pieces,
        piece,
    )


def _storer(target: Target, codec: str):
    """store(address, 16 numbers as f32), in the codec."""
    return f16_storer(target.f16) if codec == "f16" else store


def attend(target: Target, key_codec: str, value_codec: str, wide: int, capped: int, rows: int) -> Kernel:
    """softmax(scale q K') V for query tiles of a step's sequences.

    value_codec: LATENT where the values are the first channels of the keys. wide: 1 if value_padded is a multiple of
    64; capped: 1 if scores pass through cap * tanh(s / cap); rows: query rows of a register tile for a single token.

    Tile i is tokens tile_tokens[i] .. + tile_counts[i] of sequence s = tile_sequences[i], whose block table is row s of
    tables, from block number firsts[s] on. Share i is span share_spans[i] of tile share_tiles[i], or all its spans
    (-1). sinks: 0, or a further score for each head. Records of a tile that is shared by spans begin at row
    tile_sums[i] * H of sums. finished: for each tile and kv head the number of shares done, 0 before and after. Rows of
    q are q_row bytes apart, those of out out_row.
    """
    add_spans = _spans_adder(target, (key_codec, value_codec), rows, wide, capped)

    def pieces(a):
        return a.shares * a.kv_heads

    def piece(a, p):
        share, kv_head = p // a.kv_heads, p % a.kv_heads
        number, only = load_i32(a.share_tiles + 4 * share), load_i32(a.share_spans + 4 * share)
        tile = QueryTile(load_i32(a.tile_tokens + 4 * number), load_i32(a.tile_counts + 4 * number), kv_head)
        sequence = load_i32(a.tile_sequences + 4 * number)
        table = a.tables + 4 * (sequence * a.table_width - load_i32(a.firsts + 4 * sequence))
        begin = oldest_seen(a, load_i32(a.positions + 4 * tile.first)) // SPAN
        end = load_i32(a.positions + 4 * (tile.first + tile.tokens - 1)) // SPAN + 1
        if only < 0:
            add_spans(a, tile, table, begin, end, 0)
            return
        record = 4 * (a.value_padded + SPAN_EXTRA)
        span_bytes = tile.tokens * a.heads * record  # of a span's records, for all kv heads
        kept = a.sums + load_i32(a.tile_sums + 4 * number) * a.heads * record + kv_head * (span_bytes // a.kv_heads)
        add_spans(a, tile, table, only, only + 1, kept + (only - begin) * span_bytes)
        finished = a.finished + 8 * (number * a.kv_heads + kv_head)
        if atomic_add(finished, 1) == end - begin - 1:
            atomic_store(finished, 0)
            _merge_spans(a, tile, begin, end, kept, span_bytes)

    return Kernel(
        "shares:count share_tiles share_spans tile_sequences tile_tokens tile_counts tile_sums tables table_width "
        "firsts positions heads kv_heads key_width key_padded value_width value_padded block_stride values_at window "
        "chunk scale:f32 cap:f32 sinks cache sums finished q q_row out out_row",
        pieces,
        piece,
    )


def _spans_adder(target: Target, codecs: tuple[str, str], rows: int, wide: int, capped: int):
    """add_spans(…): a single token's query rows are taken `rows` at a time, those of more tokens in larger batches.

    So are those of a single token over a latent cache, since turning its values is worth sharing.
    """
    of_one, of_several = _span_adders(target, codecs, rows, wide, capped)
    copied, latent = rows * copies_of(target, rows), codecs[1] == LATENT

    @njit(error_model="numpy")
    def add_spans(a, tile, table, begin, end, kept):
        """Spans begin .. end for a tile's rows: results in out; or, if kept is not 0, records there."""
        d, e, single = a.key_padded, a.value_padded, tile.tokens == 1
        tile_rows, record = tile.tokens * (a.heads // a.kv_heads), 4 * (e + SPAN_EXTRA)
        keys = Keys(table, a.cache + tile.kv_head * (a.block_stride // a.kv_heads))
        q, positions, sums, totals = stack(BATCH_BYTES), stack(POSITIONS_BYTES), stack(SUMS_BYTES), stack(SUMS_BYTES)
        alone, each = single and not latent, rows if single else TILE_ROWS
        batch = rows if alone else min(BATCH_ROWS // each, BATCH_BYTES // (4 * each * max(d, e))) * each
        for row in range(0, tile_rows, batch):
            here = min(batch, tile_rows - row)
            queries = Queries(q, positions, copied if alone else (here + each - 1) // each * each)
            _take_rows(a, tile, row, here, batch, queries)
            for r in range(here):
                clear_record(totals + r * record, e)
            for span in range(begin, end):
                if single:
                    of_one(a, queries, keys, span * SPAN, sums)
                else:
                    of_several(a, queries, keys, span * SPAN, sums)
                for r in range(here):
                    if kept:
                        copy_record(sums + r * record, kept + (row + r) * record, e)
                    else:
                        merge_records(totals + r * record, sums + r * record, e)
            for r in range(0 if kept else here):
                _finish(a, tile, row + r, totals + r * record)

    return add_spans


def _span_adders(target: Target, codecs: tuple[str, str], rows: int, wide: int, capped: int):
    """add_span(…) for the rows of one token, and for those of several."""
    if codecs[1] == LATENT:
        return latent_spans(target, codecs[0], rows, wide, capped)
    return direct_span(target, codecs, rows, wide, capped), converted_span(target, codecs, wide, capped)


@njit(error_model="numpy")
def _finish(a, tile, number, total):
    """From a tile's row's record of all keys to its results. Its head's sink, if there are any, comes last."""
    group = a.heads // a.kv_heads
    token, head = tile.first + number // group, tile.kv_head * group + number % group
    if a.sinks:
        add_sink(total, load_f32(a.sinks + 4 * head), a.value_padded)
    finish_record(total, a.out + token * a.out_row + head * a.value_width * 4, a.value_width, a.value_padded)


@njit(error_model="numpy")
def _take_rows(a, tile, row, here, batch, queries):
    """Write `here` of a tile's rows, from number `row` on, to queries: scaled, with their positions.

    Places beyond `here` repeat the last row, and places beyond the batch all rows: copies, see `spans.copies_of`.
    """
    group = a.heads // a.kv_heads
    for r in range(queries.rows):
        number = row + min(r % batch, here - 1)
        token, head = tile.first + number // group, tile.kv_head * group + number % group
        source, to = a.q + token * a.q_row + head * a.key_width * 4, queries.q + 4 * r * a.key_padded
        for i in range(0, a.key_width, LANES):
            store(to + 4 * i, load_first(source + 4 * i, a.key_width - i) * splat(a.scale))
        store_i64(queries.positions + 8 * r, load_i32(a.positions + 4 * token))


@njit(error_model="numpy")
def _merge_spans(a, tile, begin, end, kept, span_bytes):
    """Merge the records of spans begin .. end of a tile, `span_bytes` apart from kept on; write the results."""
    total, e = stack(RECORD_BYTES), a.value_padded
    record = 4 * (e + SPAN_EXTRA)
    for row in range(tile.tokens * (a.heads // a.kv_heads)):
        clear_record(total, e)
        for span in range(begin, end):
            merge_records(total, kept + (span - begin) * span_bytes + row * record, e)
        _finish(a, tile, row, total)
