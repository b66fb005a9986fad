"""The reference backend: a Program run op by op as its meaning in NumPy. Slow, and the judge of every other backend."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sotol.formats.weights import Weight
from sotol.program.program import Array, Cache, Constant, Operand, Program, StepInput, Tensor
from sotol.program.step import BLOCK_TOKENS, Limits, Step

__all__ = ["ReferenceRunner"]


@dataclass(frozen=True, slots=True)
class _Pool:
    keys: Array  # [slots, K, d]
    values: Array


class ReferenceRunner:
    """Runs steps of a program in a floating-point type, weights decoded exactly.

    dtype: of the activations; cache: of stored keys and values (float16 and float32 are the CPU backend's codecs).
    """

    def __init__(
        self, program: Program, limits: Limits, dtype: npt.DTypeLike = np.float32, cache: npt.DTypeLike = np.float32
    ) -> None:
        self._program, self._dtype = program, np.dtype(dtype)
        slots = limits.blocks * BLOCK_TOKENS
        self._pools: Mapping[Cache, _Pool] = {
            c: _Pool(np.zeros((slots, c.heads, c.width), cache), np.zeros((slots, c.heads, c.width), cache))
            for c in program.caches()
        }
        self._decoded: dict[str, Array] = {}

    def run(self, step: Step) -> Array:
        """Logits [R, V]."""
        values: list[Array] = []
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # e**-x of a large x; NaN goes its way
            for node in self._program.nodes:
                inputs = [self._value(x, values, step) for x in node.inputs]
                values.append(node.op.meaning(*inputs, **node.attributes))
        return values[-1]

    def _value(self, x: Operand | Any, values: list[Array], step: Step) -> Any:
        match x:
            case Tensor():
                return values[x.index]
            case Weight():
                if x.name not in self._decoded:
                    self._decoded[x.name] = x.decode().astype(self._dtype)
                return self._decoded[x.name]
            case Constant():
                return x.value.astype(self._dtype) if x.value.dtype.kind == "f" else x.value
            case Cache():
                return self._pools[x]
            case StepInput():
                return step if x.name == "step" else getattr(step, x.name)
            case _:
                raise TypeError(f"no value for {x!r}")
