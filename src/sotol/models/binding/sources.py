"""Rows of weights in other places, or as other numbers, made when they are asked for: no matrix is whole in memory."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sotol.formats.files import copied
from sotol.formats.rearranged import columns_of
from sotol.formats.weights import Derived, Weight
from sotol.quant import Float32Array, UInt8Array, encoding_named

__all__ = ["Blocks", "Indices", "Multiplied", "Rows", "as_floats", "turned"]

Indices = npt.NDArray[np.intp]


def as_floats(weight: Weight) -> Weight:
    """The same numbers in F32, inputs in the model's order, decoded as they are asked for."""
    return replace(weight, encoding=encoding_named("F32"), source=_Decoded(weight), start=0, order=None)


def turned(weight: Weight, name: str, columns: range) -> Weight:
    """Some columns of each of the matrices [E, A, B], as rows: [E, columns, A].

    Numbers that lie in blocks along a row can't lie so along a column: they become float32.
    """
    return columns_of(weight if weight.encoding.values == 1 else as_floats(weight), name, columns)


@dataclass(frozen=True, slots=True, eq=False)
class Rows(Derived):
    """A matrix's rows in another order, each once."""

    order: Indices

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.order), self.weight.row_bytes

    def rows(self, first: int, end: int) -> UInt8Array:
        """Neighbours are read together, whatever their order."""
        wanted = self.order[first:end]
        there = np.sort(wanted)
        runs = np.split(there, np.flatnonzero(np.diff(there) != 1) + 1)
        read = [copied(self.weight.rows(int(run[0]), int(run[-1]) + 1)) for run in runs if run.size]
        parts = read or [np.empty((0, self.shape[1]), np.uint8)]
        return np.concatenate(parts)[np.searchsorted(there, wanted)]


@dataclass(frozen=True, slots=True, eq=False)
class Blocks(Derived):
    """A matrix whose rows have their blocks in another order."""

    order: Indices
    size: int  # bytes of a block

    def rows(self, first: int, end: int) -> UInt8Array:
        read = copied(self.weight.rows(first, end))
        return read.reshape(len(read), -1, self.size)[:, self.order].reshape(read.shape)


@dataclass(frozen=True, slots=True, eq=False)
class Multiplied(Derived):
    """The rows of a matrix in F32, each times its factor."""

    factors: Float32Array

    def rows(self, first: int, end: int) -> UInt8Array:
        values = np.ascontiguousarray(self.weight.rows(first, end)).view(np.float32)
        return (values * self.factors[first:end, None]).view(np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class _Decoded(Derived):
    """A matrix's rows in F32, inputs in the model's order."""

    @property
    def shape(self) -> tuple[int, int]:
        return self.weight.row_count, 4 * self.weight.shape[-1]

    def rows(self, first: int, end: int) -> UInt8Array:
        decode = self.weight.encoding.decode
        assert decode is not None
        values = decode(copied(self.weight.rows(first, end)))
        if self.weight.order is not None:
            places = np.argsort(self.weight.order)
            if places.ndim == 1:
                values = np.ascontiguousarray(values[:, places])
            else:
                each = places[np.arange(first, end) // self.weight.shape[-2]]
                values = np.take_along_axis(values, each, axis=1)
        return values.view(np.uint8)
