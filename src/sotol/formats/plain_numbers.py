"""Numbers that no kernel reads, as float32: F64, integers and truth values, converted as rows are asked for.

A float64 is rounded to the nearest float32, and so is an integer, which is exact up to 2**24; a float64 beyond the
range becomes an infinity.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sotol.formats.files import copy_bytes
from sotol.formats.weights import Source, Weight
from sotol.quant import ENCODINGS, UInt8Array

__all__ = ["as_float32"]

DTYPES = {
    "F64": "<f8", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1", "BOOL": "?",
}  # fmt: skip


def as_float32(weight: Weight) -> Weight:
    """The weight in F32 where it is one of these numbers and nothing else is known of them; else as it is."""
    if weight.encoding.decode is not None or weight.encoding.name not in DTYPES:
        return weight
    source = _Converted(weight.source, np.dtype(DTYPES[weight.encoding.name]))
    return Weight(weight.name, ENCODINGS["F32"], weight.shape, source, weight.start)


class _Converted(NamedTuple):
    """Rows of numbers as float32."""

    source: Source
    dtype: np.dtype[np.generic]

    @property
    def shape(self) -> tuple[int, int]:
        rows, size = self.source.shape
        return rows, size // self.dtype.itemsize * 4

    @property
    def arrays(self) -> Sequence[UInt8Array]:
        return self.source.arrays

    def rows(self, first: int, end: int) -> UInt8Array:
        rows = self.source.rows(first, end)
        data = np.empty(rows.size, np.uint8)
        copy_bytes(rows, data)
        with np.errstate(over="ignore"):
            values = data.view(self.dtype).astype("<f4")
        return values.view(np.uint8).reshape(end - first, -1)
