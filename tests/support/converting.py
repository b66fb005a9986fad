"""Hugging Face models as checkpoints, and as GGUF files: small ones, in F32, without a tokenizer.

What is renamed, permuted or shifted on the way is in the architectures' tables; here is what GGUF says otherwise.
"""

from pathlib import Path
from typing import Any

import numpy as np
from tests.support.checkpoints import full_name, joined_gates

from sotol.formats import Checkpoint, Weight, write_gguf
from sotol.models import ARCHITECTURES
from sotol.models.bind import bind, renamed
from sotol.models.metadata import Metadata

__all__ = ["as_gguf", "checkpoint_of"]

# What GGUF has no key for: weights have the divisors, the number of layers says the scale of queries, and a count of
# channels what share of a head rotates.
NOT_IN_GGUF = (
    "attention.query_scale", "rope.scaling.yarn_mscale", "low_freq_factor", "high_freq_factor", "short_factor",
    "long_factor", "truncate", "partial_rotary_factor", "rope.layers",
)  # fmt: skip
JOINED_GATES = {"glm4", "phi3"}  # whose files have gate and up in one


def checkpoint_of(model: Any) -> Checkpoint:
    """A `transformers` model for causal language modelling as its own files have it: config.json and weights in F32."""
    weights = {name: Weight.from_values(name, x.numpy(), "F32") for name, x in model.state_dict().items()}
    return Checkpoint(Path("config.json"), model.config.to_dict(), weights)


def as_gguf(checkpoint: Checkpoint, architecture: str, path: Path) -> Path:
    """Write a checkpoint with Hugging Face's names as a GGUF file with the same numbers."""
    module = ARCHITECTURES[architecture]
    described = Metadata(checkpoint.metadata, architecture, module.KEYS)
    config = module.Config.read(described, renamed(checkpoint, module.WEIGHTS))
    bound = bind(checkpoint, module.WEIGHTS, config)
    weights = [Weight.from_values(full_name(name), weight.decode(), "F32") for name, weight in bound.items()]
    metadata = {key: described.find(key) for key in module.KEYS if not key.endswith(NOT_IN_GGUF)}
    metadata["rope.freq_base"] = config.rope.base
    if metadata["rope.scaling.type"] in {"default", "llama3", "dynamic"}:
        if metadata["rope.scaling.type"] == "llama3":
            divisors = config.rope.divisors().astype(np.float32)
            weights.append(Weight.from_values("rope_freqs.weight", divisors, "F32"))
        metadata = {key: value for key, value in metadata.items() if not key.startswith("rope.scaling.")}
    if config.rope.scaling == "longrope":
        for kind in ("short", "long"):
            factors = np.array(getattr(config.rope, f"{kind}_factors"), np.float32)
            weights.append(Weight.from_values(f"rope_factors_{kind}.weight", factors, "F32"))
        metadata |= {"rope.scaling.factor": None, "rope.scaling.yarn_attn_factor": None}
        metadata |= {"rope.scaling.attn_factor": config.rope.attention_factor}
    metadata["rope.dimension_count"] = 2 * config.rope.pairs
    width = bound["blk.0.attn_k"].shape[0] // config.sizes.kv_heads[0]
    metadata |= {"attention.key_length": width, "attention.value_length": width}
    kinds = metadata.get("attention.sliding_window_pattern")
    if isinstance(kinds, list):
        metadata["attention.sliding_window_pattern"] = [kind == "sliding_attention" for kind in kinds]
    said = {f"{architecture}.{key}": value for key, value in metadata.items() if value is not None}
    converted = Checkpoint(path, {}, {weight.name: weight for weight in weights})
    if architecture in JOINED_GATES:
        converted = joined_gates(converted)
    write_gguf(path, {"general.architecture": architecture, **said}, converted.weights.values())
    return path
