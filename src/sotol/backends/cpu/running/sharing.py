"""How the work of attention over one step is divided among threads.

    query tile   up to 24 neighbouring tokens of one sequence, which read the same keys and values
    span         256 keys at absolute positions, whose weighted sums are computed apart (`kernels/spans.py`)
    share        a whole tile, or one span of a tile; a thread takes it for one kv head: that is a piece

    positions of a sequence   0        256       512       768      1000
                              |---------|---------|---------|--------|
    tile of tokens 976..999   [ span 0  | span 1  | span 2  | span 3 ]     one share, or four

A tile is split by spans only if it is more than 1/16 of the step's attention, as a single token with a long context is.
Then the spans' records go to memory, and whoever finishes the tile's last share merges them (`kernels/attention.py`).
The bits do not depend on it.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from sotol.arrays import Int32Array
from sotol.backends.cpu.layout import SPAN
from sotol.program.step import Limits, Step

__all__ = ["SPAN_ROWS", "AttentionWork", "Tiles", "most_span_rows", "share_out"]

TILE_TOKENS = 24
SPLIT = 16  # split a tile that is more than 1/16 of the step's attention
SPAN_ROWS = 2048  # tokens x spans of split tiles, at most: bounds the memory of their records


class Tiles:
    """The tiles of a step, as arrays that kernels read."""

    def __init__(self, limits: Limits) -> None:
        self.most = limits.sequences + limits.tokens // TILE_TOKENS
        self.arrays: dict[str, Int32Array] = {
            name: np.zeros(self.most, np.int32) for name in ("tile_sequences", "tile_tokens", "tile_counts")
        }
        self.counts: list[int] = []  # tokens of each
        self.first: list[int] = []  # position of its first token
        self.last: list[int] = []  # and of its last

    def fill(self, step: Step) -> None:
        """Cut a step into tiles."""
        positions = step.positions.tolist()
        tiles = [
            (sequence, token, min(TILE_TOKENS, end - token))
            for sequence, (begin, end) in enumerate(pairwise(step.starts.tolist()))
            for token in range(begin, end, TILE_TOKENS)
        ]
        sequences, tokens, self.counts = (list(x) for x in zip(*tiles, strict=True))
        self.first = [positions[token] for token in tokens]
        self.last = [positions[token + count - 1] for token, count in zip(tokens, self.counts, strict=True)]
        for array, values in zip(self.arrays.values(), (sequences, tokens, self.counts), strict=True):
            array[: len(values)] = values


class AttentionWork:
    """The shares of a step's tiles, for all layers with the same window (0: none), or with chunks of its size."""

    def __init__(self, limits: Limits, tiles: Tiles, window: int, *, chunked: bool = False) -> None:
        self._tiles, self._window, self._chunked = tiles, window, chunked
        most = tiles.most + most_span_rows(limits)
        self.arrays: dict[str, Int32Array] = {
            "tile_sums": np.zeros(tiles.most, np.int32),
            "share_tiles": np.zeros(most, np.int32),
            "share_spans": np.zeros(most, np.int32),
        }
        self.count = np.zeros(1, np.int64)  # of shares

    def fill(self) -> None:
        """Divide the tiles into shares; they have been filled."""
        tiles, window = self._tiles, self._window or 2**31
        if self._chunked:
            begins = [position // window * window // SPAN for position in tiles.first]
        else:
            begins = [max(position - window + 1, 0) // SPAN for position in tiles.first]
        shares, sums = share_out(tiles.counts, begins, [position // SPAN + 1 for position in tiles.last])
        self.arrays["tile_sums"][: len(sums)] = sums
        self.arrays["share_tiles"][: len(shares)] = [tile for tile, _ in shares]
        self.arrays["share_spans"][: len(shares)] = [span for _, span in shares]
        self.count[0] = len(shares)


def most_span_rows(limits: Limits) -> int:
    """Tokens x spans that the split tiles of a step can have: each has a record for each head."""
    return min(SPAN_ROWS, limits.tokens * -(-limits.context // SPAN))


def share_out(
    counts: Sequence[int], begins: Sequence[int], ends: Sequence[int]
) -> tuple[list[tuple[int, int]], list[int]]:
    """Shares as (tile, span), span -1 for all of a tile; and each tile's first row of records.

    counts: tokens of each tile; begins, ends: the spans that it sees.
    """
    work = [count * (end - begin) for count, begin, end in zip(counts, begins, ends, strict=True)]
    total, rows = sum(work), 0
    whole, split, sums = list[int](), list[tuple[int, int]](), list[int]()
    for tile, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        sums.append(rows)
        if end - begin > 1 and work[tile] * SPLIT > total and rows + work[tile] <= SPAN_ROWS:
            split += [(tile, span) for span in range(begin, end)]
            rows += work[tile]
        else:
            whole.append(tile)
    whole.sort(key=lambda tile: begins[tile] - ends[tile])  # long ones first, so that threads end together
    return [*((tile, -1) for tile in whole), *split], sums
