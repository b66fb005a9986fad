"""Small models with every encoding: of as many architectures as it takes to have all ops, in all their kinds."""

from collections.abc import Hashable, Iterator
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tests.support.checkpoints import RUNNABLE, VOCABULARY, is_matrix, random_checkpoint, wide_sizes
from tests.support.running import limits_for, run_text

from sotol.backends.cpu import CpuRunner
from sotol.backends.cpu.target import Target
from sotol.formats import Weight, read_gguf, write_gguf
from sotol.formats.weights import Checkpoint
from sotol.models import ARCHITECTURES, trace_model
from sotol.program.fuse import fuse, quantize_inputs
from sotol.program.program import Program
from sotol.quant import Float32Array

__all__ = ["Model", "models_in", "write_models"]

CONTEXT = 128
SIZES: dict[str, object] = {
    "context_length": CONTEXT,
    "embedding_length": 256,
    "feed_forward_length": 512,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "expert_feed_forward_length": 256,
    "expert_shared_feed_forward_length": 256,
}
OTHERS: dict[str, dict[str, object]] = {
    "gemma3": {"attention.sliding_window": 24, "block_count": 7, "final_logit_softcapping": 8.0},
    "cohere2": {"attention.sliding_window": 24, "block_count": 4},
    "mistral3": {"attention.temperature_scale": 0.1, "rope.scaling.original_context_length": 32},
}
ODD: dict[str, object] = {  # widths that are no whole vectors
    "embedding_length": 60,
    "feed_forward_length": 172,
    "attention.head_count": 5,
    "attention.head_count_kv": 5,
}
DIFFERENT = VOCABULARY  # rows of a matrix
CHUNKS = (37, 1, 1, 9)  # a prompt that is no multiple of any tile, two single tokens, a few more


class Model(NamedTuple):
    """A model's file, run with int8 activations or without."""

    path: Path
    precision: str

    @property
    def name(self) -> str:
        return f"{self.path.stem} {self.precision}"

    def results(self, target: Target, threads: int) -> Float32Array:
        """Logits [T, V] of a text."""
        program = trace_model(read_gguf(self.path), CONTEXT)
        program = quantize_inputs(program) if self.precision == "int8" else program
        text = np.random.default_rng(5).integers(0, 48, sum(CHUNKS)).tolist()
        runner = CpuRunner(program, limits_for(program, CONTEXT), threads=threads, target=target)
        try:
            logits = run_text(runner, text, CHUNKS)
        finally:
            runner.close()
        assert np.isfinite(logits).all()
        return logits


def models_in(folder: Path) -> Iterator[Model]:
    """The models that `write_models` wrote, each in both precisions."""
    for path in sorted(folder.glob("*.gguf")):
        yield Model(path, "int8")
        yield Model(path, "f32")


def write_models(folder: Path) -> None:
    """A small random model of each architecture of `covering`, its matrices in all encodings in turn; and one of odd
    widths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.gguf"):
        old.unlink()
    for name in covering():
        checkpoint, turn = checkpoint_of(name), count(list(ARCHITECTURES).index(name))
        weights = [encoded(w, next(turn)) if is_matrix(w) else w for w in checkpoint.weights.values()]
        write_gguf(folder / f"{name}.gguf", checkpoint.metadata, weights)
    odd = random_checkpoint("qwen3", SIZES | ODD, optional=True)
    halves = [
        Weight.from_values(w.name, w.decode(), "F16" if len(w.shape) == 2 else "F32") for w in odd.weights.values()
    ]
    write_gguf(folder / "odd.gguf", odd.metadata, halves)


def encoded(weight: Weight, turn: int) -> Weight:
    """The weight in one of the encodings in turn: its first rows again and again, since encoding takes long."""
    encoding = RUNNABLE[turn % len(RUNNABLE)]
    rows = weight.decode().reshape(-1, weight.shape[-1])
    some = Weight.from_values(weight.name, rows[:DIFFERENT], encoding)
    data = some.rows()[np.arange(len(rows)) % len(some.rows())]
    return Weight.from_bytes(weight.name, some.encoding, weight.shape, data.reshape(-1))


def checkpoint_of(architecture: str) -> Checkpoint:
    """Random weights of an architecture, in float32."""
    sizes = SIZES | OTHERS.get(architecture, {}) | wide_sizes(architecture)
    return random_checkpoint(architecture, sizes, optional=architecture != "gemma3")


def covering() -> list[str]:
    """Architectures that together have all that any has: the one with the most that is new, again and again."""
    left = {name: kinds_of(trace_model(checkpoint_of(name), CONTEXT)) for name in ARCHITECTURES}
    chosen = list[str]()
    while any(left.values()):
        best = max(left, key=lambda name: len(left[name]))
        chosen.append(best)
        left = {name: kinds - left[best] for name, kinds in left.items()}
    return chosen


def kinds_of(program: Program) -> frozenset[Hashable]:
    """The ops of a program as a backend runs them, each with those attributes that are no numbers."""
    nodes = fuse(quantize_inputs(program)).nodes
    return frozenset(
        (node.op.name, part.op.name, *((k, v) for k, v in part.attributes.items() if isinstance(v, str | bool)))
        for node in nodes
        for part in (node.parts or (node,))
    )
