"""What config.json says of single architectures that their tables `KEYS` can't tell from a GGUF file's metadata.

Names are those of transformers 5. A value of None stands for a fact that is not so.
"""

from collections.abc import Callable, Mapping
from typing import Any

from sotol.formats.files import in_memory
from sotol.formats.weights import Weight
from sotol.models.binding.metadata import Metadata
from sotol.models.deepseek2 import GLM_FLASH
from sotol.models.gemma4 import TURNED
from sotol.models.lfm2 import KINDS as OF_LFM2
from sotol.models.parts.recurrent import KINDS as OF_DELTA_NET

__all__ = ["deepseek2_kind", "hub_facts"]

Fields = dict[str, Any]
Weights = Mapping[str, Weight]
Says = Callable[[Any, Metadata, Weights], Fields]
# Kinds of layers of Nemotron-H, in the order of its module's numbers.
OF_NEMOTRON_H = ("linear_attention", "full_attention", "mlp", "moe")
DIGITS = 6  # of YaRN's mscale: ten times a float32


def hub_facts(model_type: str, config: Any, facts: Metadata, weights: Weights) -> Fields:
    """What config.json says of this model_type, besides or instead of the usual.

    config: as the architecture's module read the GGUF file, whose metadata are `facts`; weights: by the tables' names.
    """
    return FACTS[model_type](config, facts, weights) if model_type in FACTS else {}


def _any(weights: Weights, name: str) -> bool:
    """Whether some layer has this weight."""
    return any(own.endswith(f".{name}") for own in weights)


def deepseek2_kind(config: Any) -> tuple[str, str]:
    """The model_type and the class of latent attention: by how experts are chosen, and of GLM by its sizes."""
    if config.experts.scores != "sigmoid":
        return "deepseek_v2", "DeepseekV2ForCausalLM"
    layers, vocabulary = GLM_FLASH
    if config.sizes.layers in layers and config.sizes.vocabulary == vocabulary:
        return "glm4_moe_lite", "Glm4MoeLiteForCausalLM"
    return "deepseek_v3", "DeepseekV3ForCausalLM"


# ---- latent attention


def _latent(config: Any, facts: Metadata, weights: Weights) -> Fields:
    widths, chosen, rope = config.latent, config.experts, config.rope
    said: Fields = {
        "num_key_value_heads": widths.heads,
        "head_dim": widths.rotated,
        "q_lora_rank": widths.queries or None,
        "qk_nope_head_dim": widths.plain,
        "qk_rope_head_dim": widths.rotated,
        "v_head_dim": widths.value,
        "n_group": chosen.groups,
        "topk_group": chosen.groups_used,
        "attention_bias": _any(weights, "attn_kv_a_mqa.bias"),
    }
    everywhere = facts.number("rope.scaling.yarn_log_multiplier", 0.0, zero=True)
    if rope.scaling == "yarn" and everywhere:
        mscale = round(10 * everywhere, DIGITS)
        said["rope_parameters"] = {
            "rope_theta": rope.base,
            "rope_type": "yarn",
            "factor": rope.factor,
            "original_max_position_embeddings": rope.original_context,
            "beta_fast": rope.fast,
            "beta_slow": rope.slow,
            "mscale": mscale,
            "mscale_all_dim": mscale,
        }
    return said


def _deepseek_v2(config: Any, facts: Metadata, weights: Weights) -> Fields:
    method = "greedy" if config.experts.groups == 1 else "group_limited_greedy"
    return {**_latent(config, facts, weights), "topk_method": method}


def _glm4_moe_lite(config: Any, facts: Metadata, weights: Weights) -> Fields:
    kinds = ["sparse" if mixed else "dense" for mixed in config.mixed]
    return {**_latent(config, facts, weights), "mlp_layer_types": kinds}


# ---- Gemma 4 and Llama 4


def _gemma4(config: Any, _facts: Metadata, weights: Weights) -> Fields:
    """Its full layers have heads of another width, and may have another count of them, or no values of their own."""
    sizes, full = config.sizes, [i for i, window in enumerate(config.windows) if not window]
    local = [i for i, window in enumerate(config.windows) if window]
    narrow, width, turning = min(sizes.ffn_width), config.global_width, config.rope.pairs
    if (divisors := weights.get("rope_freqs")) is not None:
        turning = int((in_memory(divisors).decode() < TURNED).sum())
    return {
        "num_key_value_heads": sizes.kv_heads[(local or full)[0]],
        "num_global_key_value_heads": sizes.kv_heads[(full or local)[0]],
        "attention_k_eq_v": any(config.donors[i] == i and f"blk.{i}.attn_v" not in weights for i in full),
        "head_dim": sizes.head_width,
        "global_head_dim": width,
        "intermediate_size": narrow,
        "use_double_wide_mlp": narrow < max(sizes.ffn_width),
        "hidden_size_per_layer_input": config.own_width,
        "vocab_size_per_layer_input": sizes.vocabulary,
        "enable_moe_block": config.experts is not None,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": config.local_rope.base},
            "full_attention": {
                "rope_type": "proportional",
                "rope_theta": config.rope.base,
                "partial_rotary_factor": 2 * turning / width,
            },
        },
    }


def _llama4(config: Any, _facts: Metadata, _weights: Weights) -> Fields:
    return {
        "intermediate_size": config.experts.width,
        "intermediate_size_mlp": max(config.sizes.ffn_width),
        "attention_chunk_size": max(config.chunks) or None,
        "layer_types": ["chunked_attention" if chunk else "full_attention" for chunk in config.chunks],
        "no_rope_layers": [int(rotates) for rotates in config.rotates],
        "moe_layers": [i for i, mixed in enumerate(config.mixed) if mixed],
        "use_qk_norm": config.normalised,
        "attn_temperature_tuning": config.growth > 0,
        "attn_scale": config.growth,
        "floor_scale": config.span,
    }


# ---- recurrent layers


def _delta_net(config: Any, _facts: Metadata, _weights: Weights) -> Fields:
    trunk = getattr(config, "trunk", config)
    return {
        "layer_types": [OF_DELTA_NET[0] if recurrent else OF_DELTA_NET[1] for recurrent in trunk.recurrent],
        "linear_value_head_dim": trunk.delta.value_width,
    }


def _lfm2(config: Any, _facts: Metadata, weights: Weights) -> Fields:
    return {
        "layer_types": [OF_LFM2[0] if convolved else OF_LFM2[1] for convolved in config.convolved],
        "num_key_value_heads": max(config.sizes.kv_heads) or config.sizes.heads[0],
        "block_auto_adjust_ff_dim": False,
        "use_expert_bias": _any(weights, "exp_probs_b.bias"),
    }


def _nemotron_h(config: Any, _facts: Metadata, weights: Weights) -> Fields:
    """Without a least step of time for prompts: transformers would take 0.001, NVIDIA's own code has none."""
    return {
        "layers_block_type": [OF_NEMOTRON_H[kind] for kind in config.kinds],
        "num_key_value_heads": max(config.sizes.kv_heads) or config.sizes.heads[0],
        "intermediate_size": max(config.sizes.ffn_width) or config.sizes.width,
        "mamba_head_dim": config.mamba.width,
        "use_conv_bias": _any(weights, "ssm_conv1d.bias"),
        "time_step_min": 0.0,
    }


def _granitemoe(config: Any, _facts: Metadata, _weights: Weights) -> Fields:
    """Without experts, the only network is the one that all tokens take."""
    experts, width = config.experts, config.sizes.ffn_width[0]
    return {
        "num_key_value_heads": max(config.sizes.kv_heads) or config.sizes.heads[0],
        "num_local_experts": 0 if experts is None else experts.number,
        "intermediate_size": width if experts is None else experts.width,
        "shared_intermediate_size": width if experts is None else config.shared_width,
    }


def _granitemoehybrid(config: Any, facts: Metadata, weights: Weights) -> Fields:
    said = _granitemoe(config, facts, weights)
    kinds = [OF_DELTA_NET[0] if recurrent else OF_DELTA_NET[1] for recurrent in config.recurrent]
    said |= {"layer_types": kinds, "position_embedding_type": "rope" if config.granite.rotates else None}
    if config.mamba is not None:
        said |= {**_mamba(config, weights), "mamba_expand": _ratio(config.mamba.inner, config.sizes.width)}
    return said


def _mamba(config: Any, weights: Weights) -> Fields:
    """Mamba-2's sizes, by Granite's and Falcon's names."""
    mamba = config.mamba
    return {
        "mamba_n_heads": mamba.heads,
        "mamba_d_head": mamba.width,
        "mamba_n_groups": mamba.groups,
        "mamba_d_state": mamba.state,
        "mamba_d_conv": mamba.taps,
        "mamba_conv_bias": _any(weights, "ssm_conv1d.bias"),
    }


def _falcon_h1(config: Any, _facts: Metadata, weights: Weights) -> Fields:
    mamba = config.mamba
    norm = {"mamba_rms_norm": mamba.normalised, "mamba_norm_before_gate": mamba.norm_first}
    return {**_mamba(config, weights), **norm, "mamba_d_ssm": mamba.inner}


def _ratio(a: int, b: int) -> float:
    return a // b if a % b == 0 else a / b


# ---- experts


def _glm4_moe(_config: Any, _facts: Metadata, weights: Weights) -> Fields:
    return {"use_qk_norm": _any(weights, "attn_q_norm")}


def _dots1(config: Any, _facts: Metadata, _weights: Weights) -> Fields:
    return {"sliding_window": None, "layer_types": ["full_attention"] * config.sizes.layers}


def _of_one_width(config: Any, _facts: Metadata, _weights: Weights) -> Fields:
    """Experts are as wide as config.json's only width says."""
    return {"intermediate_size": config.experts.width}


FACTS: Mapping[str, Says] = {
    "deepseek_v2": _deepseek_v2,
    "deepseek_v3": _latent,
    "dots1": _dots1,
    "falcon_h1": _falcon_h1,
    "gemma4_text": _gemma4,
    "glm4_moe": _glm4_moe,
    "glm4_moe_lite": _glm4_moe_lite,
    "granitemoe": _granitemoe,
    "granitemoehybrid": _granitemoehybrid,
    "granitemoeshared": _granitemoe,
    "lfm2": _lfm2,
    "lfm2_moe": _lfm2,
    "llama4_text": _llama4,
    "minimax_m2": _of_one_width,
    "nemotron_h": _nemotron_h,
    "qwen3_5_moe_text": _delta_net,
    "qwen3_5_text": _delta_net,
    "qwen3_next": _delta_net,
}
