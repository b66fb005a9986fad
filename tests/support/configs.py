"""Random models by Hugging Face's names: what config.json says of each architecture, and weights as files join them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from tests.support.checkpoints import DEFAULTS, full_name, model_type_of, random_checkpoint

from sotol.formats.weights import Checkpoint, Weight
from sotol.models import ARCHITECTURES

__all__ = ["CONFIGS", "hf_checkpoint"]

LATER_EXPERTS: dict[str, object] = {
    "moe_intermediate_size": 32, "n_shared_experts": 2, "first_k_dense_replace": 1, "routed_scaling_factor": 1.5,
}  # fmt: skip
DELTA_NET: dict[str, object] = {
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "full_attention"],
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
}
NEMOTRON_H: dict[str, object] = {
    "layers_block_type": ["mamba", "attention", "mlp", "mamba"],
    "conv_kernel": 4,
    "ssm_state_size": 6,
    "n_groups": 2,
    "mamba_num_heads": 4,
    "mamba_head_dim": 16,
    "layer_norm_epsilon": 1e-6,
}
# By GGUF's name: the facts of `random_checkpoint`'s models by config.json's names, besides those that all have.
CONFIGS: dict[str, dict[str, object]] = {
    "cohere2": {"layer_norm_eps": 1e-5, "logit_scale": 0.5, "sliding_window": 9},
    "command-r": {"layer_norm_eps": 1e-5, "logit_scale": 0.5},
    "exaone4": {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 5},
    "falcon-h1": {
        "mamba_d_conv": 4, "mamba_d_state": 6, "mamba_n_groups": 2, "mamba_n_heads": 4, "mamba_d_head": 16,
        "mamba_rms_norm": True, "mamba_norm_before_gate": False,
    },
    "gemma": {"hidden_act": "gelu"},
    "gemma2": {
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 5,
        "query_pre_attn_scalar": 16,
        "attn_logit_softcapping": 7.0,
        "final_logit_softcapping": 3.0,
        "hidden_activation": "gelu_pytorch_tanh",
    },
    "deepseek": {**LATER_EXPERTS, "n_routed_experts": 5, "num_experts_per_tok": 2, "scoring_func": "softmax"},
    "deepseek2": {
        "n_routed_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_shared_experts": 2,
        "first_k_dense_replace": 1, "q_lora_rank": 32, "kv_lora_rank": 32, "qk_nope_head_dim": 24,
        "qk_rope_head_dim": 8, "v_head_dim": 16, "model_type": "deepseek_v3", "routed_scaling_factor": 2.5,
        "norm_topk_prob": True,
    },
    "dots1": {**LATER_EXPERTS, "n_routed_experts": 5, "num_experts_per_tok": 2, "norm_topk_prob": True},
    "ernie4_5-moe": {
        "moe_num_experts": 5, "moe_k": 2, "moe_intermediate_size": 32, "moe_num_shared_experts": 2,
        "moe_layer_start_index": 1, "moe_layer_end_index": -1, "moe_layer_interval": 1,
    },
    "glm4moe": {
        **LATER_EXPERTS, "n_routed_experts": 5, "num_experts_per_tok": 2, "norm_topk_prob": True,
        "partial_rotary_factor": 0.5,
    },
    "hunyuan-moe": {"num_experts": 5, "moe_topk": 2, "intermediate_size": 64, "moe_intermediate_size": 32},
    "minimax-m2": {"num_local_experts": 5, "num_experts_per_tok": 2, "intermediate_size": 32, "rotary_dim": 8},
    "gemma4": {
        "layer_types": ["full_attention", *["sliding_attention"] * 2, "full_attention"], "sliding_window": 5,
        "num_kv_shared_layers": 2, "head_dim": 16, "global_head_dim": 32, "hidden_size_per_layer_input": 32,
        "num_experts": 5, "top_k_experts": 2, "moe_intermediate_size": 32, "final_logit_softcapping": 3.0,
        "hidden_activation": "gelu_pytorch_tanh",
        "rope_parameters": {
            "full_attention": {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25},
            "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
        },
    },
    "glm4": {"partial_rotary_factor": 0.5},
    "granite": {
        "attention_multiplier": 0.3,
        "embedding_multiplier": 2.0,
        "residual_multiplier": 0.4,
        "logits_scaling": 3.0,
    },
    "hunyuan-dense": {
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "alpha": 50.0, "factor": 1.0},
    },
    "mistral3": {
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1e6,
            "factor": 4.0,
            "original_max_position_embeddings": 16,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "llama_4_scaling_beta": 0.1,
        },
        "sliding_window": 11,
    },
    "olmo2": {
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 5,
        "rope_parameters": {
            "full_attention": {
                "rope_type": "yarn",
                "rope_theta": 1e6,
                "factor": 4.0,
                "original_max_position_embeddings": 16,
            },
            "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
        },
    },
    "phi3": {
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 1e4,
            "partial_rotary_factor": 0.5,
            "short_factor": [1.0, 1.5, 2.0, 2.5],
            "long_factor": [1.0, 3.0, 5.0, 7.0],
        },
        "original_max_position_embeddings": 16,
        "sliding_window": 9,
    },
    "arcee": {"hidden_act": "relu2"},
    "nemotron": {"hidden_act": "relu2", "norm_eps": 1e-5, "partial_rotary_factor": 0.5},
    "stablelm": {"hidden_act": "silu", "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.25},
    "starcoder2": {"hidden_act": "gelu_pytorch_tanh", "norm_epsilon": 1e-5, "sliding_window": 9},
    "smollm3": {"no_rope_layers": [1, 1], "no_rope_layer_interval": 4},
    "gemma3": {
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 5,
        "query_pre_attn_scalar": 16,
        "final_logit_softcapping": 3.0,
        "hidden_activation": "gelu_pytorch_tanh",
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 4.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
        },
    },
    "gpt-oss": {
        "num_local_experts": 5,
        "num_experts_per_tok": 2,
        "intermediate_size": 32,
        "sliding_window": 5,
        "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 300.0, "factor": 4.0, "original_max_position_embeddings": 16,
            "truncate": False,
        },
    },
    "llama4": {
        "num_local_experts": 5, "num_experts_per_tok": 2, "intermediate_size_mlp": 64, "intermediate_size": 32,
        "interleave_moe_layer_step": 2, "attention_chunk_size": 7,
    },
    "mixtral": {"num_local_experts": 5, "num_experts_per_tok": 2, "intermediate_size": 32},
    "olmoe": {"num_experts": 5, "num_experts_per_tok": 2, "intermediate_size": 32, "norm_topk_prob": False},
    "qwen2moe": {
        "num_experts": 5,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 64,
        "norm_topk_prob": False,
    },
    "granitehybrid": {
        "conv_kernel": None, "mamba_d_conv": 4, "mamba_d_state": 6, "mamba_n_groups": 2, "mamba_n_heads": 4,
        "mamba_d_head": 16, "layer_types": ["mamba", "attention"], "num_local_experts": 5, "num_experts_per_tok": 2,
        "intermediate_size": 32, "shared_intermediate_size": 64, "residual_multiplier": 0.5,
        "position_embedding_type": "rope",
    },
    "granitemoe": {
        "num_local_experts": 5, "num_experts_per_tok": 2, "intermediate_size": 32, "attention_multiplier": 0.3,
        "logits_scaling": 3.0,
    },
    "lfm2": {
        "norm_eps": 1e-6, "conv_L_cache": 3, "full_attn_idxs": [1], "intermediate_size": 60,
        "block_auto_adjust_ff_dim": True, "block_multiple_of": 32, "block_ffn_dim_multiplier": 1.5,
    },
    "lfm2moe": {
        "norm_eps": 1e-6, "conv_L_cache": 3, "layer_types": ["conv", "full_attention"], "num_dense_layers": 1,
        "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
    },
    "nemotron_h": NEMOTRON_H,
    "nemotron_h_moe": {
        **NEMOTRON_H, "layers_block_type": ["linear_attention", "full_attention", "moe", "linear_attention"],
        "n_routed_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
        "moe_shared_expert_intermediate_size": 64, "moe_latent_size": 32, "routed_scaling_factor": 1.5,
    },
    "qwen35": DELTA_NET,
    "qwen35moe": {
        **DELTA_NET, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 64,
    },
    "qwen3next": {
        **DELTA_NET, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 64, "norm_topk_prob": True, "mlp_only_layers": [], "decoder_sparse_step": 1,
    },
    "qwen3moe": {
        "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": True,
        "mlp_only_layers": [], "decoder_sparse_step": 1,
    },
}  # fmt: skip


def hf_checkpoint(architecture: str, **config: object) -> Checkpoint:
    """A checkpoint of transformers' names with the random numbers of `random_checkpoint`, taken as they are."""
    ours = _as_joined(architecture, random_checkpoint(architecture, optional=True))
    weights = dict[str, Weight]()
    layers = int(str(ours.metadata[f"{architecture}.block_count"]))
    for key, (name, *_) in ARCHITECTURES[architecture].WEIGHTS.items():
        for i in range(layers if "{}" in key and name else bool(name)):
            full = full_name(name.format(i))
            if (named := full_name(key.format(i))) in ours.weights:
                weights[full] = replace(ours.weights[named], name=full)
    described = {
        "model_type": model_type_of(architecture),
        "num_hidden_layers": layers,
        "max_position_embeddings": DEFAULTS["context_length"],
        "hidden_size": DEFAULTS["embedding_length"],
        "intermediate_size": DEFAULTS["feed_forward_length"],
        "num_attention_heads": DEFAULTS["attention.head_count"],
        "num_key_value_heads": DEFAULTS["attention.head_count_kv"],
        "rms_norm_eps": DEFAULTS["attention.layer_norm_rms_epsilon"],
        "rope_parameters": {"rope_type": "default", "rope_theta": DEFAULTS["rope.freq_base"]},
        "head_dim": None,  # null says as much as nothing
        **CONFIGS.get(architecture, {}),
        **config,
    }
    return Checkpoint(Path("config.json"), described, weights)


def _as_joined(architecture: str, checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with weights joined as Hugging Face's files of the architecture join them, by a part's name."""
    table, weights = ARCHITECTURES[architecture].WEIGHTS, dict(checkpoint.weights)
    joined = (
        (("attn_q", "attn_k", "attn_v"), "attn_q"), (("ffn_gate", "ffn_up"), "ffn_up"),
        (("ffn_gate_shexp", "ffn_up_shexp"), "ffn_up_shexp"),
    )  # fmt: skip
    for names, whole in joined:
        for i in range(2):
            parts = [f"blk.{i}.{part}.weight" for part in names]
            rows_of = [table.get(f"blk.{{}}.{part}") for part in names]
            if all(rows_of) and not all(name.hf for name in rows_of if name) and parts[0] in weights:
                rows = np.concatenate([weights[part].decode() for part in parts])
                weights[f"blk.{i}.{whole}.weight"] = Weight.from_values("", rows, "F32")
    if architecture == "qwen3next":  # of each of 2 heads of keys: 8 rows of q and of k, 32 of v and of the gate
        qkv, gate = (weights.pop(f"blk.0.attn_{part}.weight").decode() for part in ("qkv", "gate"))
        each = [part.reshape(2, -1, part.shape[1]) for part in (*np.split(qkv, (16, 32)), gate)]
        rows = np.concatenate(each, axis=1).reshape(-1, gate.shape[1])
        weights["blk.0.ssm_in.weight"] = Weight.from_values("", rows, "F32")
    return checkpoint._replace(weights=weights)
