"""From a checkpoint to a Program: what an architecture's forward sees while it is traced.

An architecture is a module with `Config.read(metadata, checkpoint)`, `WEIGHTS` (each weight's name in GGUF, its name in
Hugging Face's checkpoints, its shape in the config's letters, and how the one becomes the other), `KEYS` (the same of
metadata) and `forward(m, config, step)`, which gives logits [R, V], or several results by name. Every weight of the
file must be in the table (`bind.py`), and forward must ask for each that is there; what it asks for in vain is missing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np

from sotol.arrays import Float64Array
from sotol.errors import ModelError
from sotol.formats.files import in_memory
from sotol.formats.weights import Checkpoint, Weight
from sotol.models.binding.bind import bind, is_gguf, renamed
from sotol.models.binding.metadata import Metadata
from sotol.program.fuse import reorder_inputs
from sotol.program.memory import Cache, Layout, State
from sotol.program.program import Program, StepInput, Tensor

__all__ = ["Layer", "Model", "StepSymbols", "trace"]


class StepSymbols(NamedTuple):
    """The Step while tracing: symbols for its arrays."""

    step: StepInput
    tokens: StepInput
    positions: StepInput
    logit_rows: StepInput


class Model:
    """A checkpoint's weights by name, its caches and constants, for a forward that records."""

    def __init__(self, path: Path, weights: Mapping[str, Weight], layers: int, context: int, program: Program) -> None:
        """weights: as `bind` gives them; path: of the file, for errors; program: what is recorded."""
        self.context = context
        self._path, self._weights, self._asked = path, weights, set[str]()
        self._layers, self._program, self._caches = layers, program, dict[str, Layout]()

    def has(self, name: str) -> bool:
        """Whether the checkpoint has this weight."""
        return name in self._weights

    def w(self, name: str, otherwise: str = "") -> Weight:
        """The weight of this name, or the other where it is absent; ModelError if there is none."""
        if otherwise and name not in self._weights:
            name = otherwise
        if name not in self._weights:
            raise ModelError(f"{self._path}: weight {name} is missing")
        self._asked.add(name)
        return self._weights[name]

    def layers(self) -> Iterator["Layer"]:
        """The weights of each layer in turn; what is recorded meanwhile is that layer's."""
        try:
            for i in range(self._layers):
                self._program.layer = i
                yield Layer(self, i)
        finally:  # when a loop ends before the layers do, too
            self._program.layer = None

    def cache(self, name: str, layout: Layout) -> Cache:
        """What a layer keeps, under a name of its own; layers that give the same name and layout share one."""
        if self._caches.setdefault(name, layout) != layout:
            raise ModelError(f"{self._path}: the cache {name} has two layouts, {self._caches[name]} and {layout}")
        return Cache(name, layout)

    def divisors(self, name: str) -> Float64Array | None:
        """A small vector weight as numbers, if the checkpoint has it: Llama 3's divisors of RoPE's frequencies."""
        return self.numbers(name) if self.has(name) else None

    def numbers(self, name: str) -> Float64Array:
        """A small vector weight as numbers; ModelError if it is missing."""
        return in_memory(self.w(name)).decode().astype(np.float64)

    def check_all_asked(self) -> None:
        """ModelError that names a weight of the checkpoint which nothing asked for."""
        if left := sorted(self._weights.keys() - self._asked):
            raise ModelError(
                f"{self._path}: weight {left[0]} (of {len(left)}) has no use in a model of this description"
            )


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one layer: `w("attn_q")` is blk.<i>.attn_q."""

    model: Model
    index: int

    def cache(self, layout: Layout, of: int | None = None) -> Cache:
        """The keys and values of this layer, or of an earlier one that it reads."""
        return self.model.cache(f"kv.{self.index if of is None else of}", layout)

    def state(self, name: str, *shape: int) -> Cache:
        """A recurrent state of this layer, one of several by its name."""
        return self.model.cache(f"{name}.{self.index}", State(shape))

    def __call__(self, name: str) -> Weight:
        return self.model.w(f"blk.{self.index}.{name}")

    def has(self, name: str) -> bool:
        """Whether the checkpoint has this weight."""
        return self.model.has(f"blk.{self.index}.{name}")

    def leave(self, *names: str) -> None:
        """Leave these weights unused where the checkpoint has them: files of some models have more than they need."""
        for name in names:
            if self.has(name):
                self(name)


def trace(architecture: ModuleType, name: str, checkpoint: Checkpoint, context: int, *, runs: bool = True) -> Program:
    """The architecture's forward as a Program over the checkpoint's weights, for sequences of up to `context` tokens.

    name: of the architecture, by GGUF. runs: False for a program that is only looked at: then weights whose inputs have
    an order of their own stay as they are. Raises ModelError for a checkpoint that is not such a model.
    """
    keys = None if is_gguf(checkpoint) else architecture.KEYS
    metadata = Metadata(checkpoint.metadata, name, keys)
    config = architecture.Config.read(metadata, renamed(checkpoint, architecture.WEIGHTS))
    program = Program()
    weights = bind(checkpoint, architecture.WEIGHTS, config)
    model = Model(checkpoint.path, weights, config.sizes.layers, context, program)

    def symbol(field: str, *shape: str) -> StepInput:
        return StepInput(program, field, shape)

    step = StepSymbols(symbol("step"), symbol("tokens", "T"), symbol("positions", "T"), symbol("logit_rows", "R"))
    given: Tensor | Mapping[str, Tensor] = architecture.forward(model, config, step)
    program.results = {"logits": given} if isinstance(given, Tensor) else dict(given)
    for result, x in program.results.items():
        if x.shape[0] != "R" or x.kind != "f32":
            raise ModelError(f"{name}: forward gives {result} as {x.kind} {list(x.shape)}, not rows of float32")
    model.check_all_asked()
    return reorder_inputs(program) if runs else program
