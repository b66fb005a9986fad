"""What schemes of quantised SafeTensors are written with: codes one after another, factors, and what a scheme is."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tests.support.folders import Typed

__all__ = ["Array", "Made", "Scheme", "bfloats", "pack", "scales", "spread"]

Array = npt.NDArray[Any]


class Made(NamedTuple):
    """One matrix of a scheme."""

    tensors: Mapping[str, Any]  # by what follows its name: ".weight", ".scales", …
    values: npt.NDArray[np.float32]  # [N, K]


class Scheme(NamedTuple):
    """How a scheme keeps a matrix, and what config.json says."""

    make: Callable[[np.random.Generator, int, int], Made]
    config: Mapping[str, object]
    key: str = "quantization_config"


def pack(codes: Array, bits: int) -> npt.NDArray[np.uint8]:
    """Codes one after another, the first in the lowest bits: [..., n] -> [..., n * bits / 8] bytes."""
    each = codes[..., None].astype(np.int64) >> np.arange(bits) & 1
    return np.packbits(each.astype(np.uint8).reshape(*codes.shape[:-1], -1), axis=-1, bitorder="little")


def bfloats(values: Array) -> tuple[Typed, npt.NDArray[np.float32]]:
    """Values cut to bfloat16: as a tensor, and what is left."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32) >> np.uint32(16)
    return Typed("BF16", bits.astype(np.uint16)), (bits << np.uint32(16)).view(np.float32)


def spread(factors: Array, high: int, wide: int, shape: tuple[int, int]) -> Array:
    """Each factor for so many rows and columns, cut to a matrix."""
    return np.repeat(np.repeat(factors, high, axis=0), wide, axis=1)[: shape[0], : shape[1]]


def scales(rng: np.random.Generator, *shape: int, each: float, width: int) -> npt.NDArray[np.float32]:
    """Factors for which numbers of the deviation `each` become weights of a usual size, of either sign."""
    sizes = rng.uniform(0.5, 1.5, shape) * 1.5 / (each * np.sqrt(width))
    signed: npt.NDArray[np.float32] = (sizes * rng.choice([-1, 1], shape)).astype(np.float32)
    return signed
