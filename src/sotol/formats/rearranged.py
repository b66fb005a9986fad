"""Some rows or columns of each of several matrices, put together when they are asked for."""

from dataclasses import dataclass, replace

import numpy as np

from sotol.formats.files import copied
from sotol.formats.weights import Derived, Weight
from sotol.quant import UInt8Array

__all__ = ["columns_of", "rows_of"]


def columns_of(weight: Weight, name: str, columns: range) -> Weight:
    """Some columns of each of the matrices [E, A, B], as rows: [E, columns, A]. The weight has blocks of one number.

    columns: ascending.
    """
    shape = weight.shape[0], len(columns), weight.shape[1]
    return Weight(name, weight.encoding, shape, _Columns(weight, columns))


def rows_of(weight: Weight, name: str, begin: int, step: int) -> Weight:
    """Rows begin, begin + step, … of each of the matrices [E, A, B]: [E, rows, B]."""
    count = len(range(begin, weight.shape[1], step))
    shape = weight.shape[0], count, weight.shape[2]
    return replace(weight, name=name, shape=shape, source=_Rows(weight, begin, step, count), start=0)


@dataclass(frozen=True, slots=True, eq=False)
class _Columns(Derived):
    """The rows of `columns_of`."""

    columns: range

    @property
    def shape(self) -> tuple[int, int]:
        return self.weight.shape[0] * len(self.columns), self.weight.shape[1] * self.weight.encoding.size

    def rows(self, first: int, end: int) -> UInt8Array:
        """Of a matrix that has some of these rows, only the bytes between their columns are read, row by row."""
        (_, count, _), each, size = self.weight.shape, len(self.columns), self.weight.encoding.size
        parts, kind = [np.empty((0, self.shape[1]), np.uint8)], f"u{size}"
        for number in range(first // each, -(-end // each)):
            own = self.columns[max(first - number * each, 0) : min(end - number * each, each)]
            if not own:
                continue
            rows = self.weight.rows(number * count, (number + 1) * count)
            read = copied(rows[:, own[0] * size : (own[-1] + 1) * size])
            parts.append(np.ascontiguousarray(read.view(kind)[:, :: own.step].T).view(np.uint8))
        return np.concatenate(parts)


@dataclass(frozen=True, slots=True, eq=False)
class _Rows(Derived):
    """The rows of `rows_of`."""

    begin: int
    step: int
    each: int  # of a matrix

    @property
    def shape(self) -> tuple[int, int]:
        return self.weight.shape[0] * self.each, self.weight.row_bytes

    def rows(self, first: int, end: int) -> UInt8Array:
        """All rows between the first and the last are read."""
        at = np.arange(first, end)
        at = at // self.each * self.weight.shape[1] + self.begin + at % self.each * self.step
        if len(at) == 0:
            return np.empty((0, self.shape[1]), np.uint8)
        wanted: UInt8Array = copied(self.weight.rows(int(at[0]), int(at[-1]) + 1))[at - at[0]]
        return wanted
