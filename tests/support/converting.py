"""Hugging Face models to GGUF, for tests: small ones, in F32, without a tokenizer.

What is permuted, shifted or computed on the way is as in llama.cpp's conversion/llama.py and conversion/gemma.py.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tests.support.checkpoints import full_name

from sotol.formats import Weight, write_gguf
from sotol.models import ARCHITECTURES
from sotol.quant import Float32Array

__all__ = ["convert"]

FIELDS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}


def convert(model: Any, architecture: str, path: Path) -> Path:
    """Write a `transformers` model for causal language modelling, with its weights as they are."""
    config, state = model.config, {name: value.numpy() for name, value in model.state_dict().items()}
    metadata = {name: getattr(config, field) for name, field in FIELDS.items()}
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    metadata["attention.key_length"] = metadata["attention.value_length"] = width
    rope = config.rope_parameters
    metadata |= _rope(rope.get("full_attention", rope))
    if architecture == "gemma3":
        metadata |= _gemma(config)
    weights = list[Weight]()
    for name, (source, _) in ARCHITECTURES[architecture].WEIGHTS.items():
        for i in range(config.num_hidden_layers if "{}" in name else 1):
            values = state.get(full_name(source.format(i)))
            if values is None or (name == "output" and config.tie_word_embeddings):
                continue
            if architecture == "gemma3" and name.endswith("norm"):
                values = values + np.float32(1)
            if architecture == "llama" and name.removesuffix(".bias").endswith(("attn_q", "attn_k")):
                values = _pairs_together(values, width)
            weights.append(Weight.from_values(full_name(name.format(i)), values, "F32"))
    if rope.get("rope_type") == "llama3":
        weights.append(Weight.from_values("rope_freqs.weight", _llama3_divisors(rope, width), "F32"))
    write_gguf(
        path,
        {"general.architecture": architecture, **{f"{architecture}.{key}": v for key, v in metadata.items()}},
        weights,
    )
    return path


def _rope(rope: Mapping[str, Any]) -> dict[str, object]:
    fields: dict[str, object] = {"rope.freq_base": float(rope["rope_theta"])}
    if rope["rope_type"] in {"linear", "yarn"}:
        fields |= {"rope.scaling.type": rope["rope_type"], "rope.scaling.factor": float(rope["factor"])}
    names = {
        "original_context_length": "original_max_position_embeddings",
        "yarn_attn_factor": "attention_factor",
        "yarn_beta_fast": "beta_fast",
        "yarn_beta_slow": "beta_slow",
        "yarn_log_multiplier": "mscale_all_dim",
    }
    if rope["rope_type"] == "yarn":
        fields |= {f"rope.scaling.{key}": rope[name] for key, name in names.items() if rope.get(name) is not None}
    return fields


def _gemma(config: Any) -> dict[str, object]:
    period = config.layer_types.index("full_attention") + 1
    fields: dict[str, object] = {
        "attention.sliding_window": config.sliding_window,
        "rope.freq_base_swa": float(config.rope_parameters["sliding_attention"]["rope_theta"]),
    }
    if period != 6:
        fields["attention.sliding_window_pattern"] = period
    if config.final_logit_softcapping:
        fields["final_logit_softcapping"] = config.final_logit_softcapping
    return fields


def _pairs_together(values: Float32Array, width: int) -> Float32Array:
    """Rows of each head from (first halves, second halves) to pairs side by side: [H d, D] or [H d]."""
    return values.reshape(-1, 2, width // 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def _llama3_divisors(rope: Mapping[str, Any], width: int) -> Float32Array:
    """Short waves keep their frequency, long ones are divided by the factor, between them a ramp."""
    context, factor = rope["original_max_position_embeddings"], rope["factor"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    waves = 2 * math.pi * rope["rope_theta"] ** (np.arange(0, width, 2) / width)
    mixed = 1 / ((1 - (smooth := (context / waves - low) / (high - low))) / factor + smooth)
    divisors = np.where(waves < context / high, 1.0, np.where(waves > context / low, factor, mixed))
    return divisors.astype(np.float32)
