"""What a file of any format gives: metadata and named weights, still encoded, still where the file has them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Self

import numpy as np

from sotol.errors import ModelError
from sotol.quant import ENCODINGS, Encoding, Float32Array, UInt8Array

__all__ = ["Checkpoint", "Weight"]


@dataclass(frozen=True, slots=True)
class Weight:
    """A named tensor in its encoding.

    The shape is row-major, as NumPy and Hugging Face write it: (out, in) for a projection. Each row of `shape[-1]`
    numbers is whole blocks of the encoding. ValueError where name, shape and bytes do not belong together.
    """

    name: str
    encoding: Encoding
    shape: tuple[int, ...]
    data: UInt8Array  # flat; read-only where it is a mapped file, which `files.copy_bytes` reads without danger

    def __post_init__(self) -> None:
        if not self.shape or min(self.shape) < 1 or self.shape[-1] % self.encoding.values:
            raise ValueError(
                f"{self.name}: shape {self.shape} does not suit {self.encoding.name}, "
                f"whose rows are one or more blocks of {self.encoding.values}"
            )
        needed = math.prod(self.shape) // self.encoding.values * self.encoding.size
        if self.data.dtype != np.uint8 or self.data.shape != (needed,):
            raise ValueError(
                f"{self.name}: {self.encoding.name} of shape {self.shape} is {needed} flat bytes, "
                f"not {self.data.dtype} of shape {self.data.shape}"
            )

    @classmethod
    def from_values(cls, name: str, values: Float32Array, encoding: str) -> Self:
        """The weight that holds `values` as closely as the named encoding can; ValueError if it can't."""
        known = ENCODINGS.get(encoding)
        if known is None or known.encode is None:
            able = ", ".join(e.name for e in ENCODINGS.values() if e.encode is not None)
            raise ValueError(f"{name}: no encoder for {encoding!r}; there is one for {able}")
        return cls(name, known, values.shape, known.encode(np.asarray(values, np.float32)).reshape(-1))

    def rows(self) -> UInt8Array:
        """The bytes by row, a view: [product of leading dimensions, bytes per row]."""
        return self.data.reshape(math.prod(self.shape[:-1]), -1)

    def decode(self) -> Float32Array:
        """The numbers, float32 of `shape`: for tests and the reference; ModelError if sotol can't decode them."""
        if self.encoding.decode is None:
            able = ", ".join(e.name for e in ENCODINGS.values() if e.decode is not None)
            raise ModelError(f"{self.name} is stored as {self.encoding.name}, which sotol can't decode; it can {able}")
        return self.encoding.decode(self.rows()).reshape(self.shape)


class Checkpoint(NamedTuple):
    """A model as it lies on disk. Weights are views of mapped files (`formats/files.py`), open while a view lives."""

    path: Path
    metadata: Mapping[str, object]  # str, int, float, bool, or (nested) lists of them
    weights: Mapping[str, Weight]
    types: Mapping[str, str] = MappingProxyType({})  # of GGUF metadata: "uint32", …
    parts: tuple[Path, ...] = ()  # the files of a split model, in order
