"""The merge loop of byte-pair encoding and of SentencePiece's BPE: join the best adjacent pair until none is left.

`ranks` has the rank of each pair (lower is better; among equals, the leftmost goes first). The key of a pair is its two
texts with `between` in the middle: a space for BPE, whose merges GGUF stores as "left right", and nothing for
SentencePiece, which ranks the joined token. Knows nothing of ids.
"""

from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from itertools import pairwise

__all__ = ["merge"]

SCAN_LIMIT = 48  # symbols; up to here, rescanning all pairs is faster than a heap
NEVER = 1 << 62  # a rank worse than any other: the pair is never joined


def merge(symbols: list[str], ranks: Mapping[str, int], between: str) -> list[str]:
    """`symbols` with all merges done, in O(n log n) for any input. Changes the list that is passed in."""
    return _scan(symbols, ranks, between) if len(symbols) <= SCAN_LIMIT else _heap(symbols, ranks, between)


def _scan(symbols: list[str], ranks: Mapping[str, int], between: str) -> list[str]:
    get = ranks.get
    found = [get(f"{a}{between}{b}", NEVER) for a, b in pairwise(symbols)]
    while found and (best := min(found)) != NEVER:
        i = found.index(best)
        symbols[i] += symbols.pop(i + 1)
        del found[i]
        if i:
            found[i - 1] = get(f"{symbols[i - 1]}{between}{symbols[i]}", NEVER)
        if i < len(found):
            found[i] = get(f"{symbols[i]}{between}{symbols[i + 1]}", NEVER)
    return symbols


def _heap(symbols: list[str], ranks: Mapping[str, int], between: str) -> list[str]:
    """A linked list of symbols, and a heap of candidate pairs, each as one integer: rank * count + left position."""
    get = ranks.get
    count = len(symbols)
    following = list(range(1, count + 1))  # position of the next remaining symbol; `count` at the end
    before = list(range(-1, count))
    pairs = map(get, (f"{a}{between}{b}" for a, b in pairwise(symbols)))
    heap = [rank * count + i for i, rank in enumerate(pairs) if rank is not None]
    heapify(heap)
    while heap:
        rank, left = divmod(heappop(heap), count)
        text, right = symbols[left], following[left]
        # An entry is stale if one of its symbols has been merged since; then the pair here has another rank or none.
        if not text or right == count or get(f"{text}{between}{symbols[right]}") != rank:
            continue
        symbols[left] = text = text + symbols[right]
        symbols[right] = ""
        following[left] = after = following[right]
        before[after] = left
        if after < count and (rank_here := get(f"{text}{between}{symbols[after]}")) is not None:
            heappush(heap, rank_here * count + left)
        if left and (rank_here := get(f"{symbols[before[left]]}{between}{text}")) is not None:
            heappush(heap, rank_here * count + before[left])
    return [text for text in symbols if text]
