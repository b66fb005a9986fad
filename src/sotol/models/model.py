"""From a checkpoint to a Program: what an architecture's forward sees while it is traced.

An architecture is a module with `Config.read(fields, checkpoint)`, `WEIGHTS` (the name of each weight in GGUF, its name
in Hugging Face checkpoints, its shape in the config's letters) and `forward(m, config, step)`. Every weight of the file
must be in the table, and one that forward asks for must have its shape; one that is missing, extra or in an unknown
encoding is an error that names it. Files may write two things in another way, as llama.cpp takes them: the rows of
attn_q, attn_k and attn_v as one attn_qkv, and shapes with ones before them.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import NamedTuple, Protocol

import numpy as np

from sotol.errors import ModelError
from sotol.formats.files import in_memory
from sotol.formats.weights import Checkpoint, Weight
from sotol.models.metadata import Fields
from sotol.numerics import Float64Array
from sotol.program.program import Cache, Program, StepInput, Tensor

__all__ = ["Config", "Layer", "Model", "StepSymbols", "Table", "trace"]

Table = Mapping[str, tuple[str, str]]  # GGUF name with {} for the layer -> (Hugging Face name, shape in letters)

# RoPE's frequencies as buffers of the trained model: the metadata says them, so converters leave these out, most times.
DERIVED = re.compile(r"rope\.freqs|blk\.\d+\.attn_rot_embd|.*rotary_emb\.inv_freq")


class Config(Protocol):
    """What every architecture's config has besides its own fields."""

    @property
    def layers(self) -> int: ...
    @property
    def dims(self) -> Mapping[str, int]:
        """The sizes of the letters in the table's shapes."""
        ...


class StepSymbols(NamedTuple):
    """The Step while tracing: symbols for its arrays."""

    step: StepInput
    tokens: StepInput
    positions: StepInput
    logit_rows: StepInput


class Model:
    """A checkpoint's weights by name, its caches and constants, for a forward that records."""

    def __init__(self, checkpoint: Checkpoint, table: Table, config: Config, context: int) -> None:
        self.context = context
        self._table, self._config, self._path = table, config, checkpoint.path
        named = ((name.removesuffix(".weight"), w) for name, w in checkpoint.weights.items())
        self._weights = {name: weight for name, weight in named if not DERIVED.fullmatch(name)}
        for i in range(config.layers):
            for suffix in ("", ".bias"):
                self._split(f"blk.{i}.attn_qkv{suffix}", [f"blk.{i}.attn_{part}{suffix}" for part in "qkv"])
        known = {name.format(i) for name in table for i in range(config.layers if "{}" in name else 1)}
        extra = sorted(self._weights.keys() - known)
        if extra:
            raise ModelError(
                f"{self._path}: weight {extra[0]!r:.80} (of {len(extra)}) is not part of this architecture"
            )

    def has(self, name: str) -> bool:
        """Whether the checkpoint has this weight."""
        return name in self._weights

    def w(self, name: str, otherwise: str = "") -> Weight:
        """The weight of this name (or the other, where it is absent), its shape checked against the table."""
        if otherwise and name not in self._weights:
            name = otherwise
        weight = self._weights.get(name)
        if weight is None:
            raise ModelError(f"{self._path}: weight {name} is missing")
        weight = self._weights[name] = self._shaped(name, weight, self._shape(name))
        if weight.encoding.decode is None:
            raise ModelError(f"{self._path}: weight {name} is {weight.encoding.name}, which sotol can't run yet")
        return weight

    def _shape(self, name: str) -> tuple[int, ...]:
        """What the table says of a name."""
        return tuple(
            math.prod(self._config.dims[letter] for letter in side.split("*"))
            for side in self._table[re.sub(r"\.\d+\.", ".{}.", name, count=1)][1].split()
        )

    def _shaped(self, name: str, weight: Weight, shape: tuple[int, ...]) -> Weight:
        """The weight in this shape, which its own may only precede by ones."""
        if (1,) * (len(weight.shape) - len(shape)) + shape != weight.shape:
            raise ModelError(f"{self._path}: weight {name} has shape {list(weight.shape)}, not {list(shape)}")
        return weight if weight.shape == shape else replace(weight, shape=shape)

    def _split(self, name: str, parts: Sequence[str]) -> None:
        """Put the rows of a weight, if the file has it, in the place of weights that the file has not."""
        if name not in self._weights or any(part in self._weights for part in parts):
            return  # what is left of it is extra
        shapes = [self._shape(part) for part in parts]
        counts = [shape[0] for shape in shapes]
        weight = self._shaped(name, self._weights.pop(name), (sum(counts), *shapes[0][1:]))
        row, rest = divmod(weight.data.size, weight.shape[0])
        if rest:
            raise ModelError(f"{self._path}: weight {name} is {weight.encoding.name}: it can't be cut into its parts")
        end = 0
        for part, shape in zip(parts, shapes, strict=True):
            begin, end = end, end + shape[0]
            cut = f"{weight.name}[{begin}:{end}]"  # backends keep matrices by name
            self._weights[part] = replace(weight, name=cut, shape=shape, data=weight.data[begin * row : end * row])

    def layer(self, i: int) -> "Layer":
        """The weights of layer i, by their names within it."""
        return Layer(self, i)

    def cache(self, i: int, heads: int, width: int) -> Cache:
        """The cache of layer i."""
        return Cache(i, heads, width)

    def divisors(self, name: str) -> Float64Array | None:
        """A small vector weight as numbers, if the checkpoint has it: Llama 3's divisors of RoPE's frequencies."""
        return in_memory(self.w(name)).decode().astype(np.float64) if self.has(name) else None


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one layer: `w("attn_q")` is blk.<i>.attn_q."""

    model: Model
    index: int

    def __call__(self, name: str) -> Weight:
        return self.model.w(f"blk.{self.index}.{name}")

    def has(self, name: str) -> bool:
        """Whether the checkpoint has this weight."""
        return self.model.has(f"blk.{self.index}.{name}")


def trace(architecture: ModuleType, checkpoint: Checkpoint, context: int) -> Program:
    """The architecture's forward as a Program over the checkpoint's weights, for sequences of up to `context` tokens.

    Raises ModelError for a checkpoint that is not such a model.
    """
    name = str(checkpoint.metadata["general.architecture"])
    config = architecture.Config.read(Fields(checkpoint.metadata, name), checkpoint)
    program = Program()

    def symbol(field: str, *shape: str) -> StepInput:
        return StepInput(program, field, shape)

    step = StepSymbols(symbol("step"), symbol("tokens", "T"), symbol("positions", "T"), symbol("logit_rows", "R"))
    result: Tensor = architecture.forward(Model(checkpoint, architecture.WEIGHTS, config, context), config, step)
    if result.shape[0] != "R":
        raise ModelError(f"{name}: forward gives {list(result.shape)}, not rows of logits")
    return program
