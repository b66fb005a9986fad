"""What the numbers of Hugging Face's checkpoints need to become those that programs read, which are GGUF's.

A change takes a weight and the sizes of its layer by the letters of the names' tables, and gives another weight. Rows
and blocks only move: a matrix stays in its encoding, and is read when it is packed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sotol.formats.files import copy_bytes, in_memory
from sotol.formats.weights import Weight
from sotol.quant import Float32Array, UInt8Array

__all__ = ["Change", "pairs_together", "plus_one", "tiled_heads", "tiled_inputs"]

Change = Callable[[Weight, Mapping[str, int]], Weight]
Order = npt.NDArray[np.intp]


def plus_one(weight: Weight, _letters: Mapping[str, int]) -> Weight:
    """1 + w in float32: Gemma's norms multiply by that, and GGUF has the sum."""
    return Weight.from_values(weight.name, in_memory(weight).decode() + np.float32(1), "F32")


def pairs_together(weight: Weight, letters: Mapping[str, int]) -> Weight:
    """Each head's channels from (first halves, second halves) to pairs side by side: rows [H d, D] or a bias [H d].

    GGUF has Llama's queries and keys as Meta's own checkpoints do: llama.cpp's conversion/llama.py.
    """
    width = letters["d"]
    return _reordered(weight, np.arange(weight.shape[0]).reshape(-1, 2, width // 2).swapaxes(1, 2).reshape(-1))


def tiled_heads(groups: str, heads: str, width: str) -> Change:
    """Output heads that lie by group become heads h whose group is h modulo the groups. The arguments are letters.

    So GGUF has the value heads of gated DeltaNet layers: llama.cpp's conversion/qwen.py.
    """

    def change(weight: Weight, letters: Mapping[str, int]) -> Weight:
        return _reordered(weight, _tiled(letters[groups], letters[heads], letters[width]))

    return change


def tiled_inputs(groups: str, heads: str, width: str) -> Change:
    """The same of the inputs of a matrix [N, heads * width]. ValueError where a head is not whole blocks."""

    def change(weight: Weight, letters: Mapping[str, int]) -> Weight:
        values, size = weight.encoding.values, weight.encoding.size
        if letters[width] % values:
            raise ValueError(f"{weight.name}: heads of {letters[width]} are not whole blocks of {weight.encoding.name}")
        blocks = _tiled(letters[groups], letters[heads], letters[width] // values)
        return Weight(weight.name, weight.encoding, weight.shape, _Blocks(weight, blocks, size))

    return change


def _tiled(groups: int, heads: int, width: int) -> Order:
    return np.arange(heads * width).reshape(groups, heads // groups, width).swapaxes(0, 1).reshape(-1)


def _reordered(weight: Weight, order: Order) -> Weight:
    """Items of the first dimension in another order; a vector becomes F32."""
    if len(weight.shape) > 1:
        return Weight(weight.name, weight.encoding, weight.shape, _Rows(weight, order))
    values: Float32Array = in_memory(weight).decode()[order]
    return Weight.from_values(weight.name, values, "F32")


def _bytes_of(weight: Weight, first: int, end: int) -> UInt8Array:
    """Rows as bytes of their own, read without danger."""
    rows = weight.rows(first, end)
    out = np.empty(rows.size, np.uint8)
    copy_bytes(rows, out)
    return out.reshape(rows.shape)


class _Rows(NamedTuple):
    """A matrix's rows in another order, each once."""

    weight: Weight
    order: Order

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.order), self.weight.row_bytes

    @property
    def arrays(self) -> Sequence[UInt8Array]:
        return self.weight.source.arrays

    def rows(self, first: int, end: int) -> UInt8Array:
        """Neighbours are read together, whatever their order."""
        wanted = self.order[first:end]
        there = np.sort(wanted)
        runs = np.split(there, np.flatnonzero(np.diff(there) != 1) + 1)
        read = [_bytes_of(self.weight, int(run[0]), int(run[-1]) + 1) for run in runs if run.size]
        parts = read or [np.empty((0, self.shape[1]), np.uint8)]
        return np.concatenate(parts)[np.searchsorted(there, wanted)]


class _Blocks(NamedTuple):
    """A matrix whose rows have their blocks in another order."""

    weight: Weight
    order: Order
    size: int  # bytes of a block

    @property
    def shape(self) -> tuple[int, int]:
        return self.weight.row_count, self.weight.row_bytes

    @property
    def arrays(self) -> Sequence[UInt8Array]:
        return self.weight.source.arrays

    def rows(self, first: int, end: int) -> UInt8Array:
        read = _bytes_of(self.weight, first, end)
        return read.reshape(len(read), -1, self.size)[:, self.order].reshape(read.shape)
