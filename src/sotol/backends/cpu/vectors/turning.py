"""Squares of numbers turned: 16 rows of 16 become 16 columns. Bits are moved and no more: all CPUs do the same.

8 x 8 numbers, each of the 8 rows a vector; three rounds take two vectors each and mix runs of 1, 2, 4 numbers:

    a0 a1 a2 …    runs of 1    a0 b0 a1 b1 …    runs of 2    a0 b0 c0 d0 …    runs of 4    a0 b0 c0 … h0
    b0 b1 b2 …  ----------->   a4 b4 a5 b5 …  ----------->   a2 b2 c2 d2 …  ----------->   a1 b1 c1 … h1
    …                          …                             …                             …

16 x 16 are four of those. Two are done at once, one in each half of the vectors, as instructions that mix vectors
have it on most CPUs; a last round puts together the halves that belong to one column.
"""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sotol.backends.cpu.layout import LANES
from sotol.backends.cpu.vectors.simd import I16, I32, I64, VI, Builder, Value, load_ir, offset, store_ir

HALF = LANES // 2


def turned_ir(b: Builder, rows: Sequence[Value]) -> list[Value]:
    """The columns of 16 vectors of 16."""

    def mix(u: Value, v: Value, places: Sequence[int]) -> Value:
        return b.shuffle_vector(u, v, ir.Constant(VI, places))

    above, below = _turned_halves(mix, rows[:HALF]), _turned_halves(mix, rows[HALF:])
    firsts = [*range(HALF), *range(LANES, LANES + HALF)]
    left = [mix(u, v, firsts) for u, v in zip(above, below, strict=True)]
    return left + [mix(u, v, [HALF + i for i in firsts]) for u, v in zip(above, below, strict=True)]


def _turned_halves(mix: Any, rows: Sequence[Value]) -> list[Value]:
    """Of 8 vectors, for each j below 8, their numbers j in the first half, and their numbers 8 + j in the second."""
    for run in (1, 2, 4):
        begins = [half + i for half in (0, HALF) for i in range(0, HALF // 2, run)]
        low = [place + other + i for place in begins for other in (0, LANES) for i in range(run)]
        high = [HALF // 2 + place for place in low]
        pairs = [(rows[at + i], rows[at + run + i]) for at in range(0, HALF, 2 * run) for i in range(run)]
        rows = [mix(u, v, places) for u, v in pairs for places in (low, high)]
    return list(rows)


def _turner(kind: ir.Type) -> Any:
    size = LANES * kind.width // 8

    @intrinsic
    def turn(_context: Any, _source: Any, _to: Any, _apart: Any) -> Any:
        """16 rows of 16 numbers, one after another at source, to rows that are `apart` bytes apart: columns as rows."""

        def generate(c: Any, b: Builder, _s: Any, args: Any) -> Value:
            row = ir.VectorType(kind, LANES)
            rows = [load_ir(b, offset(b, args[0], size * i), row) for i in range(LANES)]
            for i, column in enumerate(turned_ir(b, rows)):
                store_ir(b, column, b.add(args[1], b.mul(args[2], ir.Constant(I64, i))))
            return c.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64), generate

    return turn


turn_shorts, turn_words = _turner(I16), _turner(I32)
