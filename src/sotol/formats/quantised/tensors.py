"""The tensors of a quantised checkpoint, from which a scheme takes those that make one weight, and reading them.

A scheme takes tensors by name, checks their types and shapes, and puts a weight in their place: plain blocks of a
`Layout`, whose rows `Assembled` makes of the tensors as they are asked for. Codes and factors only move.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sotol.errors import FormatError, plain
from sotol.formats.files import copied
from sotol.formats.weights import Order, Weight
from sotol.quant import BlockParts, Layout, UInt8Array, join_plain, plain_encoding
from sotol.quant.floats import UNSIGNED

__all__ = [
    "BYTE", "FACTOR_KINDS", "Assembled", "Numbers", "Tensors", "block_width", "columns", "failure", "numbers",
    "order_of", "unpacked",
]  # fmt: skip

Numbers = npt.NDArray[Any]

# How NumPy reads the tensors that schemes take; bfloat16 and floats of 8 bits as whole numbers of so many bits.
DTYPES = {
    "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "U32": "<u4", "I8": "i1", "U8": "u1",
    "F8_E4M3": "u1", "F8_E5M2": "u1", "F8_E8M0": "u1", "NVFP4": "u1",
}  # fmt: skip
FACTOR_KINDS = {"F32": "f32", "F16": "f16", "BF16": "bf16"}  # a tensor's type -> the key of quant.FACTORS
BYTE = next(encoding for encoding in UNSIGNED if encoding.name == "U8")
WIDEST = 128  # numbers that share factors in memory, at most: a wider group is several with the same ones


def failure(path: Path, name: str, problem: str) -> FormatError:
    """The error that a tensor of this folder is not what it should be."""
    return FormatError(f"{path}: tensor {plain(repr(name), 100)} {problem}")


class Tensors:
    """Named tensors. Errors are FormatErrors that name the file and the tensor."""

    def __init__(self, path: Path, weights: dict[str, Weight]) -> None:
        """path: of the folder; weights: by name, changed in place."""
        self.path, self.weights = path, weights

    def fail(self, name: str, problem: str) -> FormatError:
        """The error that a tensor is not what it should be."""
        return failure(self.path, name, problem)

    def ending(self, suffix: str) -> list[str]:
        """What comes before this suffix in the names that have it."""
        return [name.removesuffix(suffix) for name in self.weights if name.endswith(suffix)]

    def of(self, *kinds: str) -> list[str]:
        """The names of tensors of these types."""
        return [name for name, weight in self.weights.items() if weight.encoding.name in kinds]

    def find(self, name: str, *kinds: str, shape: tuple[int, ...] | None = None) -> Weight | None:
        """Take a tensor out, None if there is none. An error unless it has one of these types, and the shape."""
        weight = self.weights.pop(name, None)
        if weight is None:
            return None
        if weight.encoding.name not in kinds:
            raise self.fail(name, f"is {weight.encoding.name}; a quantised weight has {' or '.join(kinds)} there")
        if shape is not None and weight.shape != shape:
            raise self.fail(name, f"has shape {list(weight.shape)}, not {list(shape)}")
        return weight

    def take(self, name: str, *kinds: str, shape: tuple[int, ...] | None = None) -> Weight:
        """The same of a tensor that must be there."""
        weight = self.find(name, *kinds, shape=shape)
        if weight is None:
            raise self.fail(name, "is missing, without which a quantised weight can't be read")
        return weight

    def drop(self, *suffixes: str) -> None:
        """Take out all tensors whose names end so: those that say how to quantise activations or caches."""
        for name in [name for name in self.weights if name.endswith(suffixes)]:
            del self.weights[name]

    def put(
        self,
        name: str,
        shape: tuple[int, ...],
        layout: Layout,
        sources: Sequence[Weight],
        read: Callable[[int, int], BlockParts],
        order: Order | None = None,
    ) -> None:
        """The weight of this name and shape whose rows first … end - 1 `read(first, end)` gives as [rows, blocks, …].

        sources: the tensors that it reads. order: see `Weight.order`. `read` must not hold on to these `Tensors`, which
        hold it: files are closed when nothing refers to them, and a circle would.
        """
        if name in self.weights:
            raise self.fail(name, "is there twice, quantised and not")
        encoding = plain_encoding(layout)
        size = math.prod(shape[:-1]), shape[-1] // encoding.values * encoding.size
        arrays = tuple(array for source in sources for array in source.source.arrays)
        self.weights[name] = Weight(name, encoding, shape, Assembled(layout, size, arrays, read), order=order)


class Assembled(NamedTuple):
    """A source of plain blocks that are made of several tensors."""

    layout: Layout
    shape: tuple[int, int]
    arrays: Sequence[UInt8Array]
    read: Callable[[int, int], BlockParts]

    def rows(self, first: int, end: int) -> UInt8Array:
        """As `Source.rows`: new arrays."""
        if first == end:
            return np.empty((0, self.shape[1]), np.uint8)
        return join_plain(self.layout, self.read(first, end))


def numbers(tensor: Weight, first: int = 0, end: int | None = None) -> Numbers:
    """Rows of a tensor as NumPy has its type, read without danger: [rows, numbers of each]."""
    rows = copied(tensor.rows(first, end))
    return rows.reshape(-1).view(DTYPES[tensor.encoding.name]).reshape(len(rows), -1)


def columns(tensor: Weight, first: int, end: int) -> Numbers:
    """Columns first … end - 1 of a matrix, as `numbers`: [rows, end - first]."""
    if (first, end) == (0, tensor.shape[1]):
        return numbers(tensor)
    size = tensor.encoding.size
    return copied(tensor.rows()[:, first * size : end * size]).view(DTYPES[tensor.encoding.name])


def unpacked(words: Numbers, bits: int) -> UInt8Array:
    """Codes of `bits` bits from a stream of them, the first in the lowest bits: [..., n words] -> [..., n 32 / bits].

    words: whole numbers of any size, little-endian, a multiple of `bits` bytes.
    """
    data = np.ascontiguousarray(words).view(np.uint8)
    if bits == 8:
        return data
    stream: Numbers = data
    if 8 % bits:  # eight codes have `bits` bytes: a number of 64 bits has room for them
        stream = np.zeros((*data.shape[:-1], data.shape[-1] // bits), np.uint64)
        for i in range(bits):
            stream |= data[..., i::bits].astype(np.uint64) << np.uint64(8 * i)
    count, kind = 8 if 8 % bits else 8 // bits, stream.dtype.type
    codes = np.empty((*stream.shape[:-1], stream.shape[-1] * count), np.uint8)
    for i in range(count):  # each code of all runs at once: NumPy is slow along short rows
        codes[..., i::count] = stream >> kind(bits * i) & kind((1 << bits) - 1)
    return codes


def block_width(width: int, group: int) -> int:
    """How many numbers share factors in memory where `group` of a row of `width` do in the file; 0: sotol can't."""
    most = math.gcd(width, group)
    return next((size for size in range(WIDEST, 0, -32) if most % size == 0), 0)


def order_of(tensors: Tensors, indices: Weight, group: int) -> Order | None:
    """The inputs in the order of their groups, from the group of each input; None if they are in that order.

    An error unless the inputs of each group are `group` in number, but for those of the last.
    """
    groups = numbers(indices)[0]
    wanted = np.arange(len(groups)) // group
    if np.array_equal(groups, wanted):
        return None
    order = np.argsort(groups, kind="stable").astype(np.int32)
    if not np.array_equal(groups[order], wanted):
        raise tensors.fail(indices.name, f"does not put {group} inputs into each group")
    return order
