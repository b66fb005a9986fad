"""Attention over a paged cache: putting keys and values into it, and sharing out the work of reading it.

T tokens, H heads, K kv heads, d width of a head. In rows of f32, heads lie side by side, d numbers apart. In the
cache, in query rows on the stack and in sums a head has whole vectors of channels (`padded`), those from d on 0: a
block of one kv head holds K as [padded, 16] and V as [16, padded].

The keys of a token are summed in spans of 256 at absolute positions (`spans.py`), and the spans' sums merged in order.
Who sums a span changes no bit: a long context that few tokens look at is shared out by spans, whose sums go to memory
until whoever finishes the last of them merges all.
"""

import numpy as np
from numba import njit

from sotol.backends.cpu.kernel import Kernel
from sotol.backends.cpu.kernels.parts import load_part
from sotol.backends.cpu.kernels.spans import (
    BLOCK,
    MANY,
    PANEL_BYTES,
    PANEL_ROWS,
    RECORD_BYTES,
    SUMS_BYTES,
    clear_record,
    copies_of,
    copy_record,
    few_rows,
    finish_record,
    many_rows,
    merge_records,
)
from sotol.backends.cpu.layout import CODEC_BYTES, SPAN, SUMS_EXTRA
from sotol.backends.cpu.target import Target
from sotol.backends.cpu.vectors.arguments import atomic_add, atomic_store
from sotol.backends.cpu.vectors.simd import (
    fma,
    halves_storer,
    lane_sum,
    load_i32,
    scatter_shorts,
    scatter_words,
    splat,
    stack,
    store,
    store_i64,
)

ROWS_BYTES = 8 * PANEL_ROWS  # of their positions


def store_cache(target: Target, codec: str) -> Kernel:
    """Put each token's K and V into its slot, numbers beyond the codec's range as its largest.

    Where K or V of a token's head is not finite, its K becomes NaN and its V zero. Whoever sees that key gets NaN. For
    all others it weighs 0, and 0 times its V is 0: it can't spoil tokens before it, nor who gets the block next.
    """
    size = CODEC_BYTES[codec]
    convert = halves_storer(target.halves) if codec == "f16" else store
    scatter = scatter_shorts if codec == "f16" else scatter_words
    stride = BLOCK * size

    def pieces(a):
        return (a.rows + BLOCK - 1) // BLOCK

    def piece(a, p):
        channels, nothing = stack(64), splat(np.float32(0))
        for token in range(BLOCK * p, min(BLOCK * (p + 1), a.rows)):  # neighbours share cache lines: one thread's
            slot = load_i32(a.slots + 4 * token)
            for head in range(a.heads):
                keys = a.cache + ((slot // BLOCK) * a.heads + head) * (2 * BLOCK * size) * a.padded
                values = keys + (BLOCK * a.padded + (slot % BLOCK) * a.padded) * size
                keys += (slot % BLOCK) * size
                row, wrong = token * a.row + head * a.width * 4, nothing
                for i in range(0, a.width, 16):
                    k, v = load_part(a.k + row + 4 * i, a.width - i), load_part(a.v + row + 4 * i, a.width - i)
                    wrong = fma(k, nothing, fma(v, nothing, wrong))  # NaN from then on, if one is not finite
                    convert(channels, k)
                    scatter(keys + i * stride, stride, channels)
                    convert(values + i * size, v)
                if lane_sum(wrong) != 0:
                    convert(channels, splat(np.float32(np.nan)))
                    for i in range(0, a.width, 16):
                        scatter(keys + i * stride, stride, channels)
                        convert(values + i * size, nothing)

    return Kernel("rows:count heads width padded row slots cache k v", pieces, piece)


def attend(target: Target, codec: str, wide: int, capped: int, rows: int) -> Kernel:
    """Softmax(scale q K') V for query tiles of a sequence.

    wide: 1 if padded is a multiple of 64; capped: 1 if scores pass through cap * tanh(s / cap); rows: query rows of one
    token that are taken at once. Tile i is tokens tile_tokens[i] .. + tile_counts[i] of sequence tile_sequences[i],
    whose block table is that row of tables. A piece is a kv head's query heads for one part of a tile: part i is span
    part_spans[i] of tile part_tiles[i], or all its spans (-1). A single span's sums go to sums, a tile's from row
    tile_sums[i] * H on; finished: a count of parts for each tile and kv head, 0 before and after. Rows of q and out are
    `row` bytes apart.
    """
    add_spans = _adder(target, codec, rows, wide, capped)

    def pieces(a):
        return a.parts * a.kv_heads

    def piece(a, p):
        part, kv_head = p // a.kv_heads, p % a.kv_heads
        tile, only = load_i32(a.part_tiles + 4 * part), load_i32(a.part_spans + 4 * part)
        token, count = load_i32(a.tile_tokens + 4 * tile), load_i32(a.tile_counts + 4 * tile)
        table = a.tables + load_i32(a.tile_sequences + 4 * tile) * a.table_width * 4
        oldest = max(load_i32(a.positions + 4 * token) - a.window + 1, 0)
        begin, end = oldest // SPAN, load_i32(a.positions + 4 * (token + count - 1)) // SPAN + 1
        if only < 0:
            add_spans(a, token, count, kv_head, table, begin, end, 0)
            return
        record = 4 * (a.padded + SUMS_EXTRA)
        each = count * a.heads * record  # bytes of a span's sums
        kept = a.sums + load_i32(a.tile_sums + 4 * tile) * a.heads * record + kv_head * (each // a.kv_heads)
        if only >= begin:
            add_spans(a, token, count, kv_head, table, only, only + 1, kept + only * each)
        finished = a.finished + 8 * (tile * a.kv_heads + kv_head)
        if atomic_add(finished, 1) == end - 1:
            atomic_store(finished, 0)
            _merge_spans(a, token, count, kv_head, begin, end, kept, each)

    return Kernel(
        "parts:count part_tiles part_spans tile_sequences tile_tokens tile_counts tile_sums tables table_width "
        "positions heads kv_heads width padded row window scale:f32 cap:f32 cache sums finished q out",
        pieces,
        piece,
    )


def _adder(target, codec, rows, wide, capped):
    """add_spans(…) for tiles of one token, `rows` query rows at once, or of more."""
    few, many = few_rows(target, codec, rows, wide, capped), many_rows(target, codec, wide, capped)
    copied, size = rows * copies_of(target, rows), CODEC_BYTES[codec]

    @njit(error_model="numpy")
    def add_spans(a, token, count, kv_head, table, begin, end, kept):
        """Sum spans begin .. end for a tile's rows and finish the rows; or put the sums to kept, if that is not 0."""
        tile_rows, record = count * (a.heads // a.kv_heads), 4 * (a.padded + SUMS_EXTRA)
        cache = a.cache + kv_head * 2 * BLOCK * size * a.padded
        step = a.kv_heads * 2 * BLOCK * size * a.padded
        q, at, sums, totals = stack(PANEL_BYTES), stack(ROWS_BYTES), stack(SUMS_BYTES), stack(SUMS_BYTES)
        panel = rows if count == 1 else min(PANEL_ROWS, PANEL_BYTES // (4 * MANY * a.padded) * MANY)
        for row in range(0, tile_rows, panel):
            here = min(panel, tile_rows - row)
            filled = copied if count == 1 else (here + MANY - 1) // MANY * MANY
            _take_rows(a, token, kv_head, row, here, panel, filled, q, at)
            for r in range(here):
                clear_record(totals + r * record, a.padded)
            for span in range(begin, end):
                if count == 1:
                    few(q, at, filled, table, cache, step, a.padded, a.window, a.cap, span * SPAN, sums)
                else:
                    many(q, at, filled, table, cache, step, a.padded, a.window, a.cap, span * SPAN, sums)
                for r in range(here):
                    if kept:
                        copy_record(sums + r * record, kept + (row + r) * record, a.padded)
                    else:
                        merge_records(totals + r * record, sums + r * record, a.padded)
            for r in range(0 if kept else here):
                finish_record(totals + r * record, a.out + _place(a, token, kv_head, row + r), a.width, a.padded)

    return add_spans


@njit(error_model="numpy")
def _place(a, token, kv_head, number):
    """Where row `number` of a tile that begins at a token is among the rows of q and out."""
    group = a.heads // a.kv_heads
    return (token + number // group) * a.row + (kv_head * group + number % group) * a.width * 4


@njit(error_model="numpy")
def _take_rows(a, token, kv_head, row, here, panel, filled, q, at):
    """Scaled query rows and their positions: rows beyond `here` repeat the last one, rows beyond a panel all."""
    for r in range(filled):
        number = row + min(r % panel, here - 1)
        source, to = a.q + _place(a, token, kv_head, number), q + 4 * r * a.padded
        for i in range(0, a.width, 16):
            store(to + 4 * i, load_part(source + 4 * i, a.width - i) * splat(a.scale))
        store_i64(at + 8 * r, load_i32(a.positions + 4 * (token + number // (a.heads // a.kv_heads))))


@njit(error_model="numpy")
def _merge_spans(a, token, count, kv_head, begin, end, kept, each):
    """Merge the sums of spans begin .. end, `each` bytes apart from kept on, and finish the rows."""
    total, record = stack(RECORD_BYTES), 4 * (a.padded + SUMS_EXTRA)
    for row in range(count * (a.heads // a.kv_heads)):
        clear_record(total, a.padded)
        for span in range(begin, end):
            merge_records(total, kept + span * each + row * record, a.padded)
        finish_record(total, a.out + _place(a, token, kv_head, row), a.width, a.padded)
