"""The config of the text model in a repository of several models, with what it leaves out.

`transformers` writes of a config within another one only what differs from the defaults of its class; Gemma 3's 4B says
neither how many heads it has nor how wide they are. So the defaults are here, of its version 5.24, for the text models
that such repositories have. What stands there as null is said.
"""

from collections.abc import Mapping

from sotol.errors import FormatError, plain

__all__ = ["DEFAULTS", "text_config"]

# Where the config of the text model is: InternVL's own files have the second.
PLACES = ("text_config", "llm_config")
# Whose config of the text model is not apart: model_type -> that of the text model.
FLAT = {"qwen2_vl": "qwen2_vl_text", "qwen2_5_vl": "qwen2_5_vl_text"}


def _sizes(
    hidden: int, wide: int | None, layers: int, heads: int, kv_heads: int, base: float, context: int,
    head: int | None = None, eps: float = 1e-6,
) -> dict[str, object]:  # fmt: skip
    """wide: None where all networks are experts'. head: None where a class computes the width of heads."""
    return {
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "rope_theta": base, "max_position_embeddings": context, "rms_norm_eps": eps,
        **({} if wide is None else {"intermediate_size": wide}), **({} if head is None else {"head_dim": head}),
    }  # fmt: skip


_QWEN35 = {
    "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32,
    "linear_value_head_dim": 128, "partial_rotary_factor": 0.25,
}  # fmt: skip
# By model_type of the text model.
DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "cohere2": {
        **_sizes(8192, 22528, 40, 64, 64, 10000.0, 8192), "layer_norm_eps": 1e-5, "logit_scale": 0.0625,
        "sliding_window": 4096,
    },
    "gemma": _sizes(3072, 24576, 28, 16, 16, 10000.0, 8192, 256),
    "gemma2": {
        **_sizes(2304, 9216, 26, 8, 4, 10000.0, 8192, 256), "sliding_window": 4096, "query_pre_attn_scalar": 256,
        "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
    },
    "gemma3_text": {
        **_sizes(2304, 9216, 26, 8, 4, 1e6, 131072, 256), "sliding_window": 4096, "query_pre_attn_scalar": 256,
    },
    "gemma4_text": {
        **_sizes(2304, 9216, 30, 8, 4, 1e6, 131072, 256), "sliding_window": 512, "hidden_size_per_layer_input": 256,
        "num_kv_shared_layers": 0, "enable_moe_block": False, "attention_k_eq_v": False, "use_double_wide_mlp": False,
    },
    "granite": {
        **_sizes(4096, 11008, 32, 32, 32, 10000.0, 2048), "attention_multiplier": 1.0, "embedding_multiplier": 1.0,
        "logits_scaling": 1.0, "residual_multiplier": 1.0,
    },
    "lfm2": {
        **_sizes(2560, 12288, 32, 32, 8, 1e6, 128000), "norm_eps": 1e-5, "conv_L_cache": 3,
        "block_auto_adjust_ff_dim": True, "block_ffn_dim_multiplier": 1.0, "block_multiple_of": 256,
    },
    "llama": _sizes(4096, 11008, 32, 32, 32, 10000.0, 2048),
    "llama4_text": {
        **_sizes(5120, 8192, 48, 40, 8, 500000.0, 131072, 128, 1e-5), "intermediate_size_mlp": 16384,
        "num_local_experts": 16, "num_experts_per_tok": 1, "interleave_moe_layer_step": 1, "no_rope_layer_interval": 4,
        "attention_chunk_size": 8192, "use_qk_norm": True, "attn_temperature_tuning": True, "attn_scale": 0.1,
        "floor_scale": 8192,
    },
    "mistral": {**_sizes(4096, 14336, 32, 32, 8, 10000.0, 131072), "sliding_window": 4096},
    "phi3": _sizes(3072, 8192, 32, 32, 32, 10000.0, 4096, eps=1e-5),
    "qwen2": _sizes(4096, 22016, 32, 32, 32, 10000.0, 32768),
    "qwen2_5_vl_text": _sizes(8192, 29568, 80, 64, 8, 1e6, 32768, eps=1e-5),
    "qwen2_vl_text": _sizes(8192, 29568, 80, 64, 8, 1e6, 32768, eps=1e-5),
    "qwen3": _sizes(4096, 22016, 32, 32, 32, 10000.0, 32768, 128),
    "qwen3_5_moe_text": {
        **_sizes(2048, None, 40, 16, 2, 10000.0, 32768, 256), **_QWEN35, "moe_intermediate_size": 512,
        "num_experts": 256, "num_experts_per_tok": 8, "shared_expert_intermediate_size": 512,
    },
    "qwen3_5_text": {**_sizes(4096, 12288, 32, 16, 4, 10000.0, 32768, 256), **_QWEN35},
    "qwen3_vl_text": _sizes(4096, 22016, 32, 32, 32, 500000.0, 128000, 128),
    "smollm3": _sizes(2048, 11008, 36, 16, 4, 2e6, 32768),
}  # fmt: skip


def text_config(config: Mapping[str, object], where: str) -> dict[str, object] | None:
    """The config of the text model, whole; None where a config.json has that of one model. where: for errors."""
    kind = config.get("model_type")
    if isinstance(kind, str) and kind in FLAT and not any(place in config for place in PLACES):
        return {**config, "model_type": FLAT[kind]}
    place = next((place for place in PLACES if place in config), None)
    if place is None:
        return None
    text = config[place]
    if not isinstance(text, dict):
        raise FormatError(f"{where}: {plain(place)} is not an object")
    return {**DEFAULTS.get(str(text.get("model_type")), {}), **text}
