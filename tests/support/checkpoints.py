"""Small checkpoints of every architecture with random weights, without any file or other library."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sotol.formats.weights import Checkpoint, Weight
from sotol.models import ARCHITECTURES
from sotol.quant import ENCODINGS, Float32Array

__all__ = [
    "DEFAULTS",
    "NEEDED",
    "RUNNABLE",
    "full_name",
    "fused",
    "is_matrix",
    "joined_gates",
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
EXPERTS: dict[str, object] = {"expert_count": 5, "expert_used_count": 2, "expert_feed_forward_length": 32}
# What architectures need besides, or instead.
NEEDED: dict[str, dict[str, object]] = {
    "cohere2": {"attention.layer_norm_epsilon": 1e-5, "attention.sliding_window": 9, "logit_scale": 0.25},
    "command-r": {"attention.layer_norm_epsilon": 1e-5, "logit_scale": 0.25},
    **{name: {"attention.layer_norm_epsilon": 1e-5} for name in ("nemotron", "stablelm", "starcoder2")},
    "gpt-oss": {**EXPERTS, "attention.sliding_window": 5},
    **dict.fromkeys(("mixtral", "olmoe", "qwen3moe"), EXPERTS),
    "qwen2moe": {**EXPERTS, "expert_shared_feed_forward_length": 64},
}
VOCABULARY = 48
RUNNABLE = [name for name, encoding in ENCODINGS.items() if encoding.encode]  # each of them has kernels
PROJECTIONS = {"blk.{}.attn_q.bias", "blk.{}.attn_k.bias", "blk.{}.attn_v.bias"}
NORMS = {"output_norm.bias", "blk.{}.attn_norm.bias", "blk.{}.ffn_norm.bias"}
BIASED = {  # that may not be missing
    **dict.fromkeys(("qwen2", "qwen2moe", "qwen2vl"), PROJECTIONS),
    **dict.fromkeys(("nemotron", "stablelm", "starcoder2"), NORMS),
}


def optional_names(architecture: str) -> frozenset[str]:
    """Names of an architecture's table that a checkpoint may lack."""
    table = ARCHITECTURES[architecture].WEIGHTS
    names = {name for name in table if name == "output" or name.startswith("rope_") or name.endswith(".bias")}
    return frozenset(names - BIASED.get(architecture, set()))


def full_name(name: str) -> str:
    """A name of an architecture's table as files have it: biases end in .bias, all others in .weight."""
    return name if name.endswith(".bias") else name + ".weight"


def random_checkpoint(
    architecture: str, metadata: Mapping[str, object] | None = None, *, optional: bool = False, seed: int = 0
) -> Checkpoint:
    """A checkpoint of `DEFAULTS` and `NEEDED` changed by `metadata`, F32, with the optional weights or without.

    Keys are without the architecture's prefix; a value of None takes a key out.
    """
    fields = {
        key: value
        for key, value in {**DEFAULTS, **NEEDED.get(architecture, {}), **(metadata or {})}.items()
        if value is not None
    }
    rng = np.random.default_rng(seed)
    dims = _dims(fields)
    weights, left_out = list[Weight](), frozenset[str]() if optional else optional_names(architecture)
    for name, (_, shape, _) in ARCHITECTURES[architecture].WEIGHTS.items():
        if name in left_out:
            continue
        sizes = tuple(math.prod(dims[letter] for letter in side.split("*")) for side in shape.split())
        for i in range(dims["layers"] if "{}" in name else 1):
            values = rng.normal(size=sizes) * 1.5 / math.sqrt(sizes[-1]) if len(sizes) > 1 else rng.uniform(
                0.5, 1.5, sizes
            )  # fmt: skip
            weights.append(Weight.from_values(full_name(name.format(i)), values.astype(np.float32), "F32"))
    all_fields = {"general.architecture": architecture, **{f"{architecture}.{k}": v for k, v in fields.items()}}
    return Checkpoint(Path("random.gguf"), all_fields, {weight.name: weight for weight in weights})


def mixed_encodings(checkpoint: Checkpoint, first: int = 0) -> Checkpoint:
    """The checkpoint with its matrices in all `RUNNABLE` encodings in turn, from one of them on.

    Rows must be multiples of 256 numbers.
    """
    matrices = [weight for weight in checkpoint.weights.values() if is_matrix(weight)]
    changed = {
        w.name: Weight.from_values(w.name, w.decode(), RUNNABLE[(first + i) % len(RUNNABLE)])
        for i, w in enumerate(matrices)
    }
    return checkpoint._replace(weights={**checkpoint.weights, **changed})


def is_matrix(weight: Weight) -> bool:
    """Whether files have it encoded: matrices, and those of experts; norms, biases and the like they have in F32."""
    return len(weight.shape) > 1 and not weight.name.endswith(".bias")


def fused(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with the rows of each layer's queries, keys and values in one weight, as some files have them."""
    return _joined(checkpoint, ("attn_q", "attn_k", "attn_v"), "attn_qkv")


def joined_gates(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with the rows of each layer's gate before those of its up-projection, as some files have them."""
    return _joined(checkpoint, ("ffn_gate", "ffn_up"), "ffn_up")


def _joined(checkpoint: Checkpoint, names: Sequence[str], to: str) -> Checkpoint:
    """The checkpoint with the rows of several weights of each layer in one."""
    weights = dict(checkpoint.weights)
    for name in checkpoint.weights:
        if f".{names[0]}." in name:
            parts = [weights.pop(name.replace(names[0], part)) for part in names]
            shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
            data = np.concatenate([part.rows().reshape(-1) for part in parts])
            whole = Weight.from_bytes(name.replace(names[0], to), parts[0].encoding, shape, data)
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
        "E": number("expert_count"),
        "f": number("expert_feed_forward_length", number("feed_forward_length")),
        "s": number("expert_shared_feed_forward_length"),
        "V": VOCABULARY,
        "r": number("rope.dimension_count", head_width) // 2,
    }
