"""What a file of any format gives: metadata and named weights, still encoded, still where the file has them.

A weight knows no file: it asks a `Source` for runs of its rows. So a slice is a weight, an expert is one, and so are
rows that a format keeps in several tensors and a source puts together as they are asked for.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

from sotol.errors import ModelError
from sotol.quant import ENCODINGS, Encoding, Float32Array, UInt8Array

__all__ = ["Checkpoint", "Derived", "Order", "Source", "Stored", "Weight"]

Order = npt.NDArray[np.int32]


class Source(Protocol):
    """Where encoded rows come from. Several threads may ask at once."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and the bytes of each."""
        ...

    @property
    def arrays(self) -> Sequence[UInt8Array]:
        """What the rows are made of: who finds the files behind them, which must not change meanwhile, asks for it."""
        ...

    def rows(self, first: int, end: int) -> UInt8Array:
        """Rows first … end - 1: uint8 [end - first, bytes of each].

        A view of a mapped file, which only `files.copy_bytes` reads without danger, or bytes that were read so.
        """
        ...


class Stored(NamedTuple):
    """Rows that lie one after the other: in memory, or in a mapped file."""

    data: UInt8Array  # [rows, bytes of each]

    @property
    def shape(self) -> tuple[int, int]:
        return self.data.shape[0], self.data.shape[1]

    @property
    def arrays(self) -> Sequence[UInt8Array]:
        return (self.data,)

    def rows(self, first: int, end: int) -> UInt8Array:
        return self.data[first:end]


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """A tensor in its encoding. Two are the same only if they are one object: a name says where a weight is from.

    The shape is row-major, as NumPy and Hugging Face write it: (out, in) for a projection, (experts, out, in) for the
    projections of experts. Each row of `shape[-1]` numbers is whole blocks of the encoding. ValueError where shape and
    source do not belong together.
    """

    name: str
    encoding: Encoding
    shape: tuple[int, ...]
    source: Source
    start: int = 0  # the source's row that is the first here
    # Of a matrix's inputs in its rows: number j of a row is of input order[j]; None: j. Of experts each its own [E, K].
    order: Order | None = None

    def __post_init__(self) -> None:
        check_shape(self.name, self.encoding, self.shape)
        rows, size = self.source.shape
        if size != self.row_bytes or not 0 <= self.start <= rows - self.row_count:
            raise ValueError(
                f"{self.name}: {self.encoding.name} of shape {self.shape} is {self.row_count} rows of {self.row_bytes} "
                f"bytes, which are not at row {self.start} of {rows} rows of {size} bytes"
            )

    @classmethod
    def from_bytes(cls, name: str, encoding: Encoding, shape: tuple[int, ...], data: UInt8Array) -> Self:
        """The weight whose rows are these flat bytes, a view of them. ValueError if it has others in number."""
        check_shape(name, encoding, shape)
        needed = math.prod(shape) // encoding.values * encoding.size
        if data.dtype != np.uint8 or data.shape != (needed,):
            raise ValueError(
                f"{name}: {encoding.name} of shape {shape} is {needed} flat bytes, "
                f"not {data.dtype} of shape {data.shape}"
            )
        return cls(name, encoding, shape, Stored(data.reshape(math.prod(shape[:-1]), -1)))

    @classmethod
    def from_values(cls, name: str, values: Float32Array, encoding: str) -> Self:
        """The weight that holds `values` as closely as the named encoding can; ValueError if it can't."""
        known = ENCODINGS.get(encoding)
        if known is None or known.encode is None:
            able = ", ".join(e.name for e in ENCODINGS.values() if e.encode is not None)
            raise ValueError(f"{name}: no encoder for {encoding!r}; there is one for {able}")
        return cls.from_bytes(name, known, values.shape, known.encode(np.asarray(values, np.float32)).reshape(-1))

    @property
    def row_count(self) -> int:
        """Rows of all leading dimensions: experts [E, N, K] have E * N, a vector has one."""
        return math.prod(self.shape[:-1])

    @property
    def row_bytes(self) -> int:
        return self.shape[-1] // self.encoding.values * self.encoding.size

    @property
    def nbytes(self) -> int:
        """The bytes of all rows."""
        return self.row_count * self.row_bytes

    def rows(self, first: int = 0, end: int | None = None) -> UInt8Array:
        """The bytes of rows first … end - 1, or of all: uint8 [end - first, bytes of each]. See `Source.rows`."""
        end = self.row_count if end is None else end
        if not 0 <= first <= end <= self.row_count:
            raise ValueError(f"{self.name}: rows {first} to {end} of {self.row_count}")
        return self.source.rows(self.start + first, self.start + end)

    def part(self, first: int, end: int) -> Self:
        """Items first … end - 1 of the first dimension: rows of a matrix, experts, numbers of a vector.

        ValueError if there are no such, or where a vector's blocks reach from one part into the next.
        """
        shape, values = (end - first, *self.shape[1:]), self.encoding.values
        if not 0 <= first < end <= self.shape[0]:
            raise ValueError(f"{self.name}: part {first} to {end} of {self.shape[0]}")
        name = f"{self.name}[{first}:{end}]"
        if len(self.shape) > 1:
            order = self.order if self.order is None or self.order.ndim == 1 else self.order[first:end]
            start = self.start + first * math.prod(self.shape[1:-1])
            return replace(self, name=name, shape=shape, start=start, order=order)
        if first % values or end % values:
            raise ValueError(f"{self.name}: numbers {first} to {end} are not whole blocks of {self.encoding.name}")
        cut = self.rows()[:, first // values * self.encoding.size : end // values * self.encoding.size]
        return replace(self, name=name, shape=shape, source=Stored(cut), start=0)

    def expert(self, i: int) -> Self:
        """Item i of the first dimension, without that dimension: a matrix [N, K] of [E, N, K], a bias of [E, N]."""
        if len(self.shape) < 2:
            raise ValueError(f"{self.name}: a vector has no experts")
        part = self.part(i, i + 1)
        order = part.order if part.order is None or part.order.ndim == 1 else part.order[0]
        return replace(part, name=f"{self.name}[{i}]", shape=self.shape[1:], order=order)

    def decode(self) -> Float32Array:
        """The numbers, float32 of `shape`, inputs in the model's order; ModelError if sotol can't decode them."""
        if self.encoding.decode is None:
            able = ", ".join(e.name for e in ENCODINGS.values() if e.decode is not None)
            raise ModelError(f"{self.name} is stored as {self.encoding.name}, which sotol can't decode; it can {able}")
        values = self.encoding.decode(self.rows()).reshape(self.shape)
        if self.order is None:
            return values
        places = np.argsort(self.order)
        return values[..., places] if places.ndim == 1 else np.take_along_axis(values, places[:, None], axis=2)


def check_shape(name: str, encoding: Encoding, shape: tuple[int, ...]) -> None:
    """ValueError for a shape whose rows are not whole blocks."""
    if not shape or min(shape) < 1 or shape[-1] % encoding.values:
        raise ValueError(
            f"{name}: shape {shape} does not suit {encoding.name}, "
            f"whose rows are one or more blocks of {encoding.values}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Derived(ABC):
    """A source whose rows are made of a weight's, when they are asked for: as many rows of as many bytes, unless a kind
    of it says otherwise.
    """

    weight: Weight

    @property
    def shape(self) -> tuple[int, int]:
        return self.weight.row_count, self.weight.row_bytes

    @property
    def arrays(self) -> Sequence[UInt8Array]:
        return self.weight.source.arrays

    @abstractmethod
    def rows(self, first: int, end: int) -> UInt8Array:
        """As of `Source`."""


class Checkpoint(NamedTuple):
    """A model as it lies on disk. Weights are views of mapped files (`formats/files.py`), open while a view lives."""

    path: Path
    metadata: Mapping[str, object]  # str, int, float, bool, or (nested) lists of them
    weights: Mapping[str, Weight]
    types: Mapping[str, str] = MappingProxyType({})  # of GGUF metadata: "uint32", …
    parts: tuple[Path, ...] = ()  # the files of a split model, in order
