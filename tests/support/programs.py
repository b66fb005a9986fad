"""Programs held to each other."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sotol.formats.weights import Weight
from sotol.program.program import Constant, Program, Tensor

__all__ = ["same_programs"]


def as_stored(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes with float32 numbers, which is what GGUF's metadata has and kernels take."""
    return {key: np.float32(value) if isinstance(value, float) else value for key, value in attributes.items()}


def same_programs(one: Program, other: Program) -> None:
    """The same ops with the same attributes, over the same bits: so the same logits, on any backend."""
    assert [node.op.name for node in one.nodes] == [node.op.name for node in other.nodes]
    for a, b in zip(one.nodes, other.nodes, strict=True):
        assert as_stored(a.attributes) == as_stored(b.attributes)
        for x, y in zip(a.inputs, b.inputs, strict=True):
            match x, y:
                case Weight(), Weight():
                    assert x.shape == y.shape
                    np.testing.assert_array_equal(x.decode().view(np.int32), y.decode().view(np.int32))
                case Constant(), Constant():
                    np.testing.assert_array_equal(x.value.view(np.int32), y.value.view(np.int32))
                case Tensor(), Tensor():
                    assert x.index == y.index
                case _:
                    assert type(x) is type(y)
