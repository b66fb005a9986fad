"""What the numbers of Hugging Face's checkpoints need to become those that programs read, which are GGUF's.

A change takes a weight and the sizes of its layer by the letters of the names' tables, and gives another weight. Rows
and blocks only move: a matrix stays in its encoding, and is read when it is packed. `undone` is the way back.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from sotol import numerics
from sotol.errors import ModelError
from sotol.formats.files import in_memory
from sotol.formats.weights import Weight
from sotol.models.binding.sources import Blocks, Indices, Multiplied, Rows, as_floats, turned
from sotol.quant import Float32Array

__all__ = [
    "Change",
    "Undoable",
    "by_part",
    "decay_rates",
    "head_rows",
    "in_model_order",
    "in_turn",
    "pairs_together",
    "plus_one",
    "tiled_heads",
    "tiled_inputs",
    "times",
    "turned_heads",
    "undone",
]

Change = Callable[[Weight, Mapping[str, int]], Weight]


class Undoable:
    """A change, and the one that takes it back."""

    def __init__(self, forward: Change, backward: Change) -> None:
        self._forward, self.backward = forward, backward

    def __call__(self, weight: Weight, letters: Mapping[str, int]) -> Weight:
        return self._forward(weight, letters)


def undone(change: Change) -> Change:
    """The change from GGUF's numbers to Hugging Face's; ModelError where there is none."""
    if not isinstance(change, Undoable):
        raise ModelError(f"sotol can't undo the change {getattr(change, '__name__', change)!s:.60} of weights")
    return change.backward


def _plus_one(weight: Weight, _letters: Mapping[str, int]) -> Weight:
    return Weight.from_values(weight.name, in_memory(weight).decode() + np.float32(1), "F32")


def _minus_one(weight: Weight, _letters: Mapping[str, int]) -> Weight:
    return Weight.from_values(weight.name, in_memory(weight).decode() - np.float32(1), "F32")


# 1 + w in float32: Gemma's norms multiply by that, and GGUF has the sum.
plus_one = Undoable(_plus_one, _minus_one)


def _pairs(count: int, width: int) -> Indices:
    """Of each row in its new place, where it was, for heads of a width."""
    return np.arange(count).reshape(-1, 2, width // 2).swapaxes(1, 2).reshape(-1)


# Each head's channels from (first halves, second halves) to pairs side by side: rows [H d, D] or a bias [H d]. GGUF has
# Llama's queries and keys as Meta's own checkpoints do: llama.cpp's conversion/llama.py.
pairs_together = Undoable(
    lambda weight, letters: _reordered(weight, _pairs(weight.shape[0], letters["d"])),
    lambda weight, letters: _reordered(weight, np.argsort(_pairs(weight.shape[0], letters["d"]))),
)


def in_turn(*changes: Change) -> Undoable:
    """One change after the other."""

    def all_of(weight: Weight, letters: Mapping[str, int]) -> Weight:
        for one in changes:
            weight = one(weight, letters)
        return weight

    def back(weight: Weight, letters: Mapping[str, int]) -> Weight:
        for one in reversed(changes):
            weight = undone(one)(weight, letters)
        return weight

    return Undoable(all_of, back)


def _decay_rates(weight: Weight, _letters: Mapping[str, int]) -> Weight:
    rates = -numerics.exp(in_memory(weight).decode().astype(np.float64))
    return Weight.from_values(weight.name, rates.astype(np.float32), "F32")


def _logarithms(weight: Weight, _letters: Mapping[str, int]) -> Weight:
    numbers = np.log(-in_memory(weight).decode().astype(np.float64))
    return Weight.from_values(weight.name, numbers.astype(np.float32), "F32")


# -e**w in float32: Mamba's checkpoints have logarithms of how fast states decay, GGUF the rates.
decay_rates = Undoable(_decay_rates, _logarithms)


def by_part(weight: Weight, count: int, sizes: Sequence[int]) -> Weight:
    """A weight whose rows are `count` times some rows of each part, in turns: all rows of the first part, then of the
    next. sizes: how many rows of each part come together.
    """
    rows = np.arange(weight.shape[0]).reshape(count, -1)
    parts = np.split(rows, np.cumsum(sizes)[:-1], axis=1)
    return _reordered(weight, np.concatenate([part.reshape(-1) for part in parts]))


def tiled_heads(groups: str, heads: str, width: str = "") -> Undoable:
    """Output heads that lie by group become heads h whose group is h modulo the groups. The arguments are letters.

    They are the last rows of a weight, which may have others before them. width: of a head; "": 1. So GGUF has the
    value heads of gated DeltaNet layers: llama.cpp's conversion/qwen.py.
    """

    def order(weight: Weight, letters: Mapping[str, int]) -> Indices:
        tiled = _tiled(letters[groups], letters[heads], letters[width] if width else 1)
        before = weight.shape[0] - len(tiled)
        return np.concatenate([np.arange(before), before + tiled])

    return Undoable(
        lambda weight, letters: _reordered(weight, order(weight, letters)),
        lambda weight, letters: _reordered(weight, np.argsort(order(weight, letters))),
    )


def tiled_inputs(groups: str, heads: str, width: str) -> Undoable:
    """The same of the inputs of a matrix [N, heads * width].

    Where heads are not whole blocks, or inputs have an order of their own already, numbers stay where they are, and
    only their order is another: activations are put into it before the product.
    """

    def moved(weight: Weight, letters: Mapping[str, int], *, back: bool) -> Weight:
        values = weight.encoding.values
        apart = weight.order is not None or letters[width] % values > 0
        tiled = _tiled(letters[groups], letters[heads], letters[width] // (1 if apart else values))
        order, places = (np.argsort(tiled), tiled) if back else (tiled, np.argsort(tiled))
        if apart:
            own = places if weight.order is None else places[weight.order]
            return replace(weight, order=own.astype(np.int32))
        return replace(weight, source=Blocks(weight, order, weight.encoding.size), start=0)

    return Undoable(partial(moved, back=False), partial(moved, back=True))


def head_rows(weight: Weight, heads: int, begin: int, end: int, *, apart: bool = False) -> Weight:
    """Rows begin … end - 1 of each head of a matrix [H e, K]: [H (end - begin), K]; apart: [H, end - begin, K].

    Heads apart are multiplied each by its own, for which inputs have to be in the model's order.
    """
    weight = in_model_order(weight) if apart else weight
    each, count = weight.shape[0] // heads, end - begin
    order = (np.arange(heads)[:, None] * each + np.arange(begin, end)).reshape(-1)
    shape = (heads, count, weight.shape[1]) if apart else (heads * count, weight.shape[1])
    return replace(weight, name=f"{weight.name}[{begin}:{end}]", shape=shape, source=Rows(weight, order), start=0)


def turned_heads(weight: Weight, heads: int, begin: int, end: int) -> Weight:
    """The same rows of each head, transposed: [H, K, end - begin]; in the encoding as of `sources.turned`, and float32
    where inputs have an order of their own.
    """
    own = head_rows(weight, heads, begin, end, apart=True)
    return turned(own, f"{own.name}'", range(own.shape[2]))


def in_model_order(weight: Weight) -> Weight:
    """The weight as it is, or as floats where its inputs have an order of their own: for who reads its rows.

    Neither files nor products of heads can say such an order; a matrix product puts its input into it
    (`program.fuse.reorder_inputs`).
    """
    return weight if weight.order is None else as_floats(weight)


def times(weight: Weight, factors: float | npt.NDArray[np.floating]) -> Weight:
    """The weight in F32 times a number, or each row times its own, multiplied as rows are asked for."""
    if len(weight.shape) == 1:
        values: Float32Array = in_memory(weight).decode() * np.float32(factors)
        return Weight.from_values(weight.name, values, "F32")
    plain = as_floats(weight)
    each = np.broadcast_to(np.asarray(factors, np.float32), (weight.row_count,))
    return replace(plain, source=Multiplied(plain, each))


def _tiled(groups: int, heads: int, width: int) -> Indices:
    return np.arange(heads * width).reshape(groups, heads // groups, width).swapaxes(0, 1).reshape(-1)


def _reordered(weight: Weight, order: Indices) -> Weight:
    """Items of the first dimension in another order; a vector becomes F32."""
    if len(weight.shape) > 1:
        return replace(weight, source=Rows(weight, order), start=0)
    values: Float32Array = in_memory(weight).decode()[order]
    return Weight.from_values(weight.name, values, "F32")
