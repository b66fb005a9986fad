"""What GGUF says of single architectures in another way than their tables do, after llama.cpp's conversion/*.py.

Metadata are by keys without the architecture, a value of None takes a key out; weights by the names of the tables.
Weights stay in the file until they are asked for: rows of heads only get another place.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sotol.formats.files import in_memory
from sotol.formats.weights import Weight
from sotol.models import qwen3next
from sotol.models.binding.changes import head_rows, times, turned_heads
from sotol.models.binding.metadata import Metadata

__all__ = ["gguf_facts", "gguf_weights"]

LAYER = re.compile(r"blk\.\d+\.")
Fields = dict[str, object]
Weights = dict[str, Weight]
NO_ROTATION = 1e30  # divisor of a pair that does not rotate: conversion/gemma.py
SECTIONS = [11, 11, 10, 0]  # of Qwen 3.5, which llama.cpp asks for: conversion/qwen.py


def gguf_facts(name: str, config: Any, facts: Metadata) -> Fields:
    """What GGUF says of this architecture, by sotol's name, besides or instead of what its table says."""
    return FACTS[name](config, facts) if name in FACTS else {}


def gguf_weights(name: str, config: Any, weights: Mapping[str, Weight]) -> Weights:
    """The weights in the forms that GGUF has them in."""
    return WEIGHTS[name](config, weights) if name in WEIGHTS else dict(weights)


# ---- latent attention: conversion/deepseek.py


def _deepseek2(config: Any, facts: Metadata) -> Fields:
    """Keys and values are one latent vector for all heads there; and a tenth of YaRN's mscale of all dimensions."""
    widths, chosen = config.latent, config.experts
    said: Fields = {
        "attention.head_count_kv": 1,
        "attention.key_length": widths.latent + widths.rotated,
        "attention.value_length": widths.latent,
        "attention.key_length_mla": widths.plain + widths.rotated,
        "attention.value_length_mla": widths.value,
        "leading_dense_block_count": config.dense,
        "expert_gating_func": 2 if chosen.scores == "sigmoid" else 1,
        "expert_group_count": chosen.groups,
        "expert_group_used_count": chosen.groups_used,
    }
    everywhere = facts.find("rope.scaling.yarn_log_multiplier")
    if config.rope.scaling == "yarn" and isinstance(everywhere, int | float) and everywhere:
        said |= {"rope.scaling.yarn_log_multiplier": 0.1 * everywhere, "rope.scaling.yarn_attn_factor": None}
    return said


def _keys_and_values_apart(config: Any, weights: Mapping[str, Weight]) -> Weights:
    """Of each head the matrix that makes keys, transposed, and the one that makes values."""
    c, apart = config.latent, dict[str, Weight]()
    for name, weight in weights.items():
        if not name.endswith(".attn_kv_b"):
            apart[name] = weight
            continue
        apart[name.replace("kv_b", "k_b")] = turned_heads(weight, c.heads, 0, c.plain)
        apart[name.replace("kv_b", "v_b")] = head_rows(weight, c.heads, c.plain, c.plain + c.value, apart=True)
    return apart


# ---- Gemma 4 and Llama 4: conversion/gemma.py and llama4.py


def _gemma4(config: Any, _facts: Metadata) -> Fields:
    """Both widths of heads; of what config.json may leave out, all."""
    local, width = config.sizes.head_width, config.global_width
    return {
        "attention.key_length": width,
        "attention.value_length": width,
        "attention.key_length_swa": local,
        "attention.value_length_swa": local,
        "attention.sliding_window_pattern": [window > 0 for window in config.windows],
        "rope.dimension_count": width,
        "rope.dimension_count_swa": local,
        "rope.freq_base_swa": config.local_rope.base,
        "embedding_length_per_layer_input": config.own_width,
        "final_logit_softcapping": config.logit_cap,  # llama.cpp takes 30 where a file says nothing
    }


def _divisors_of_wide_heads(config: Any, weights: Mapping[str, Weight]) -> Weights:
    """And the divisors that say which pairs of wide heads rotate."""
    turning = np.arange(config.rope.whole) < config.rope.pairs
    numbers = np.where(turning, 1, NO_ROTATION).astype(np.float32)
    return {**weights, "rope_freqs": Weight.from_values("rope_freqs", numbers, "F32")}


def _llama4(config: Any, _facts: Metadata) -> Fields:
    """Chunks are of one size in all models that have any: only their absence is said; of the temperature, nothing."""
    temperature = ("attention.temperature", "attention.temperature_scale", "attention.temperature_length")
    return {**dict.fromkeys(temperature), "attention.sliding_window": None if any(config.chunks) else 0}


# ---- recurrent layers: conversion/qwen.py, granite.py, nemotron.py


def _delta_net(_config: Any, facts: Metadata) -> Fields:
    """The width of all heads of values, and which layers are recurrent, as truth values."""
    said: Fields = {"ssm.inner_size": facts.integer("ssm.value_size") * facts.integer("ssm.time_step_rank")}
    if isinstance(kinds := facts.find("attention.recurrent_layers"), list):
        said["attention.recurrent_layers"] = [kind == "linear_attention" for kind in kinds]
    return said


def _qwen35(config: Any, facts: Metadata) -> Fields:
    return {**_delta_net(config, facts), "rope.dimension_sections": SECTIONS}


def _projections_apart(config: Any, weights: Mapping[str, Weight]) -> Weights:
    """Queries, keys and values of all heads, and their gates, for what checkpoints have head by head."""
    apart = dict[str, Weight]()
    for name, weight in weights.items():
        if not name.endswith(".ssm_in"):
            apart[name] = weight
            continue
        before = name.removesuffix("ssm_in")
        apart[f"{before}attn_qkv"], apart[f"{before}attn_gate"] = qwen3next.parts_of(weight, config.trunk.delta)
    return apart


def _nemotron_h(config: Any, _facts: Metadata) -> Fields:
    """Counts of zero say what a layer is not; where there are experts, others count as wide as one."""
    said: Fields = {"ssm.inner_size": config.mamba.inner}
    if config.experts is not None:
        said["feed_forward_length"] = [config.experts.width if width else 0 for width in config.sizes.ffn_width]
    return said


def _granitehybrid(config: Any, _facts: Metadata) -> Fields:
    """One width for experts, or for the network that is there instead of them; and whether anything rotates."""
    said: Fields = {
        "expert_feed_forward_length": None,
        "rope.scaling.finetuned": config.granite.rotates,
        "ssm.inner_size": None if config.mamba is None else config.mamba.inner,
    }
    if config.experts is None:
        said["feed_forward_length"] = config.shared_width or config.sizes.ffn_width[0]
    return said


def _granite_weights(config: Any, weights: Mapping[str, Weight]) -> Weights:
    """Without experts, the network of all tokens is the feed-forward network."""
    if config.experts is None:
        weights = {name.replace("_shexp", ""): weight for name, weight in weights.items()}
    return _shapes_of_mamba2(config, weights)


def _shapes_of_mamba2(config: Any, weights: Mapping[str, Weight]) -> Weights:
    """Its vectors in the shapes that llama.cpp asks for: a column, or a row for each group."""
    shaped = dict(weights)
    for name, weight in weights.items():
        if name.endswith((".ssm_a", ".ssm_d")):
            shaped[name] = _matrix(weight, weight.shape[0])
        elif name.endswith(".ssm_norm"):
            shaped[name] = _matrix(weight, config.mamba.groups)
    return shaped


def _falcon_h1(config: Any, _facts: Metadata) -> Fields:
    return {"ssm.inner_size": config.mamba.inner}


def _multiplied(config: Any, weights: Mapping[str, Weight]) -> Weights:
    """Falcon-H1's weights times its factors, for which GGUF has no keys: conversion/falcon_h1.py."""
    by, mamba = config.factors, config.mamba
    shared = mamba.groups * mamba.state
    factors = {
        "token_embd": by.embedding,
        "output": by.head,
        "attn_q": by.attention_in,
        "attn_k": by.attention_in * by.key,
        "attn_k.bias": by.key,
        "attn_v": by.attention_in,
        **dict.fromkeys(("attn_output", "attn_output.bias"), by.attention_out),
        "ssm_in": np.repeat(mamba.factors, (mamba.inner, mamba.inner, shared, shared, mamba.heads)),
        "ssm_out": by.ssm_out,
        **dict.fromkeys(("ffn_gate", "ffn_gate.bias"), by.gate),
        **dict.fromkeys(("ffn_down", "ffn_down.bias"), by.down),
    }
    if "output" not in weights and by.embedding != by.head:  # it is the embedding, times another factor
        weights = {**weights, "output": weights["token_embd"]}
    made = dict[str, Weight]()
    for name, weight in weights.items():
        factor = factors.get(LAYER.sub("", name), 1.0)
        made[name] = weight if np.all(factor == 1) else times(weight, factor)
    return _shapes_of_mamba2(config, made)


def _matrix(weight: Weight, rows: int) -> Weight:
    """A vector as so many rows, in F32."""
    return Weight.from_values(weight.name, in_memory(weight).decode().reshape(rows, -1), "F32")


# ---- experts: conversion/ernie.py, minimax.py


def _ernie4_5_moe(config: Any, _facts: Metadata) -> Fields:
    return {"expert_shared_feed_forward_length": config.shared_width or None}


def _minimax_m2(config: Any, _facts: Metadata) -> Fields:
    return {"expert_feed_forward_length": config.experts.width}


FACTS: Mapping[str, Callable[[Any, Metadata], Fields]] = {
    "deepseek2": _deepseek2,
    "ernie4_5-moe": _ernie4_5_moe,
    "falcon-h1": _falcon_h1,
    "gemma4": _gemma4,
    "granitehybrid": _granitehybrid,
    "granitemoe": _granitehybrid,
    "llama4": _llama4,
    "minimax-m2": _minimax_m2,
    "nemotron_h": _nemotron_h,
    "nemotron_h_moe": _nemotron_h,
    "qwen35": _qwen35,
    "qwen35moe": _qwen35,
    "qwen3next": _delta_net,
}
WEIGHTS: Mapping[str, Callable[[Any, Mapping[str, Weight]], Weights]] = {
    "deepseek2": _keys_and_values_apart,
    "falcon-h1": _multiplied,
    "gemma4": _divisors_of_wide_heads,
    "granitehybrid": _granite_weights,
    "granitemoe": _granite_weights,
    "nemotron_h": _shapes_of_mamba2,
    "nemotron_h_moe": _shapes_of_mamba2,
    "qwen3next": _projections_apart,
}
