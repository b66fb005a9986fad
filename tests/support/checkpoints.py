"""Small checkpoints of every architecture with random weights, without any file or other library."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sotol.formats.weights import Checkpoint, Weight
from sotol.models import ARCHITECTURES
from sotol.quant import ENCODINGS, Float32Array

__all__ = [
    "DEFAULTS",
    "RUNNABLE",
    "full_name",
    "fused",
    "mixed_encodings",
    "optional_names",
    "random_checkpoint",
    "with_weights",
]

DEFAULTS: dict[str, object] = {
    "block_count": 2,
    "context_length": 64,
    "embedding_length": 32,
    "feed_forward_length": 64,
    "attention.head_count": 2,
    "attention.head_count_kv": 1,
    "attention.layer_norm_rms_epsilon": 1e-6,
    "rope.freq_base": 10000.0,
}
VOCABULARY = 48
RUNNABLE = [name for name, encoding in ENCODINGS.items() if encoding.encode]  # each of them has kernels
BIASED = {"qwen2": {"blk.{}.attn_q.bias", "blk.{}.attn_k.bias", "blk.{}.attn_v.bias"}}  # that may not be missing


def optional_names(architecture: str) -> frozenset[str]:
    """Names of an architecture's table that a checkpoint may lack."""
    table = ARCHITECTURES[architecture].WEIGHTS
    names = {name for name in table if name in {"output", "rope_freqs"} or name.endswith(".bias")}
    return frozenset(names - BIASED.get(architecture, set()))


def full_name(name: str) -> str:
    """A name of an architecture's table as files have it: biases end in .bias, all others in .weight."""
    return name if name.endswith(".bias") else name + ".weight"


def random_checkpoint(
    architecture: str, metadata: Mapping[str, object] | None = None, *, optional: bool = False, seed: int = 0
) -> Checkpoint:
    """A checkpoint of `DEFAULTS` changed by `metadata`, F32, with the optional weights or without.

    Keys are without the architecture's prefix; a value of None takes a key out.
    """
    fields = {key: value for key, value in {**DEFAULTS, **(metadata or {})}.items() if value is not None}
    rng = np.random.default_rng(seed)
    dims = _dims(fields)
    weights, left_out = list[Weight](), frozenset[str]() if optional else optional_names(architecture)
    for name, (_, shape, _) in ARCHITECTURES[architecture].WEIGHTS.items():
        if name in left_out:
            continue
        sizes = tuple(math.prod(dims[letter] for letter in side.split("*")) for side in shape.split())
        for i in range(dims["layers"] if "{}" in name else 1):
            values = rng.normal(size=sizes) * 1.5 / math.sqrt(sizes[-1]) if len(sizes) == 2 else rng.uniform(
                0.5, 1.5, sizes
            )  # fmt: skip
            weights.append(Weight.from_values(full_name(name.format(i)), values.astype(np.float32), "F32"))
    all_fields = {"general.architecture": architecture, **{f"{architecture}.{k}": v for k, v in fields.items()}}
    return Checkpoint(Path("random.gguf"), all_fields, {weight.name: weight for weight in weights})


def mixed_encodings(checkpoint: Checkpoint, first: int = 0) -> Checkpoint:
    """The checkpoint with its matrices in all `RUNNABLE` encodings in turn, from one of them on.

    Rows must be multiples of 256 numbers.
    """
    matrices = [weight for weight in checkpoint.weights.values() if len(weight.shape) == 2]
    changed = {
        w.name: Weight.from_values(w.name, w.decode(), RUNNABLE[(first + i) % len(RUNNABLE)])
        for i, w in enumerate(matrices)
    }
    return checkpoint._replace(weights={**checkpoint.weights, **changed})


def fused(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with the rows of each layer's queries, keys and values in one weight, as some files have them."""
    weights = dict(checkpoint.weights)
    for name in checkpoint.weights:
        if ".attn_q." in name:
            parts = [weights.pop(name.replace("attn_q", f"attn_{part}")) for part in "qkv"]
            shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
            data = np.concatenate([part.rows().reshape(-1) for part in parts])
            whole = Weight.from_bytes(name.replace("attn_q", "attn_qkv"), parts[0].encoding, shape, data)
            weights[whole.name] = whole
    return checkpoint._replace(weights=weights)


def with_weights(checkpoint: Checkpoint, changes: Mapping[str, Float32Array | None]) -> Checkpoint:
    """The checkpoint with some weights replaced or added, or (None) taken out."""
    weights = {name: weight for name, weight in checkpoint.weights.items() if name not in changes}
    for name, values in changes.items():
        if values is not None:
            weights[name] = Weight.from_values(name, values, "F32")
    return Checkpoint(checkpoint.path, checkpoint.metadata, weights)


def _dims(fields: Mapping[str, object]) -> dict[str, int]:
    def number(key: str, default: int = 0) -> int:
        value = fields.get(key, default)
        assert isinstance(value, int)
        return value

    width, heads = number("embedding_length"), number("attention.head_count")
    head_width = number("attention.key_length", width // heads)
    return {
        "layers": number("block_count"),
        "D": width,
        "H": heads,
        "K": number("attention.head_count_kv", heads),
        "d": head_width,
        "F": number("feed_forward_length"),
        "V": VOCABULARY,
        "r": number("rope.dimension_count", head_width) // 2,
    }
