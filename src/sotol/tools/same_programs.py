"""Whether two checkpoints are one model: the same program, op for op. What one file can't say shows here."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sotol.arrays import Array
from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint, Weight
from sotol.models import described, trace_model
from sotol.program.memory import Cache
from sotol.program.program import Constant, Node, Operand, Program, Tensor

__all__ = ["check_same_model", "difference"]

ROUNDING = 2.0**-22  # two steps of float32
LONGEST = 1 << 15  # tokens of the contexts that are compared: tables of positions are long


def check_same_model(one: Checkpoint, other: Checkpoint) -> None:
    """ModelError unless both give the same program over weights of the same shapes.

    Contexts are the model's own, or `LONGEST`, and short ones: some models have other tables for these.
    """
    most = described(one.metadata).find("context_length")
    longest = min(most, LONGEST) if isinstance(most, int) and most > 0 else LONGEST
    for context in sorted({min(longest, 256), longest}):
        ours = trace_model(one, context, runs=False)
        try:
            found = difference(ours, trace_model(other, context, runs=False))
        except ModelError as error:
            found = str(error)
        if found:
            raise ModelError(f"{one.path}: the other format can't say all that this file does: {found}")


def difference(one: Program, other: Program) -> str:
    """The first difference of two programs, as a part of a sentence; "" where there is none."""
    for a, b in zip(one.nodes, other.nodes, strict=False):
        if found := _node_difference(a, b):
            where = "" if a.layer is None else f"layer {a.layer}, "
            return f"{where}{a.op.name}: {found}"
    if len(one.nodes) != len(other.nodes):
        return f"there are {len(one.nodes)} ops, and {len(other.nodes)} in the other"
    return ""


def _node_difference(a: Node, b: Node) -> str:
    if a.op.name != b.op.name:
        return f"in the other it is {b.op.name}"
    ours, theirs = _stored(a.attributes), _stored(b.attributes)
    for key in ours.keys() | theirs.keys():
        if ours.get(key) != theirs.get(key):
            return f"{key} is {ours.get(key)}, and {theirs.get(key)} in the other"
    return next(filter(None, map(_input_difference, a.inputs, b.inputs)), "")


def _input_difference(x: Operand, y: Operand) -> str:
    ours: object
    theirs: object
    match x, y:
        case Weight(), Weight():
            ours, theirs = list(x.shape), list(y.shape)
        case Constant(), Constant():
            return "" if _equal(x.value, y.value) else f"the numbers of {x.name} differ"
        case Tensor(), Tensor():
            ours, theirs = f"result {x.index}", f"result {y.index}"
        case Cache(), Cache():
            ours, theirs = x, y
        case _:
            ours, theirs = type(x).__name__, type(y).__name__
    return "" if ours == theirs else f"it reads {ours}, and {theirs} in the other"


def _equal(ours: Array, theirs: Array) -> bool:
    """Whether constants are the same, but for a factor that GGUF rounds to float32."""
    return ours.shape == theirs.shape and np.allclose(ours, theirs, rtol=ROUNDING, atol=0)


def _stored(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes with float32 numbers, which is what GGUF's metadata has and kernels take."""
    return {key: np.float32(value) if isinstance(value, float) else value for key, value in attributes.items()}
