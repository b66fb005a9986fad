"""Models with experts, with latent attention, and Gemma 4, of which some have experts."""

from tests.parity.cases.case import LLAMA3, ODD, QWEN_MOE, VOCABULARY, Case, yarn

# Its windows are shorter than the prompt, its ramp of YaRN is not at whole pairs.
GPT_OSS = {
    "num_local_experts": 9,
    "num_experts_per_tok": 4,
    "head_dim": 32,
    "sliding_window": 16,
    "num_hidden_layers": 4,
    "rope_parameters": {**yarn(), "original_max_position_embeddings": 64, "truncate": False},
}
MLA = {
    "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 4, "q_lora_rank": 24, "kv_lora_rank": 32,
    "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 12, "n_routed_experts": 8, "num_experts_per_tok": 3,
    "moe_intermediate_size": 48, "n_shared_experts": 2, "first_k_dense_replace": 1, "routed_scaling_factor": 1.5,
    "rms_norm_eps": 1e-6,
}  # fmt: skip
V3 = {**MLA, "n_group": 4, "topk_group": 2, "norm_topk_prob": True}
LATER = {
    "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 48, "n_shared_experts": 1,
    "first_k_dense_replace": 1,
}  # fmt: skip
FLASH = {key: value for key, value in MLA.items() if key != "first_k_dense_replace"}
# Two of three layers see chunks of 16 positions of a text of 60; of the spans of 16 there are three, and more.
LLAMA4 = {
    "num_hidden_layers": 5, "intermediate_size_mlp": 80, "intermediate_size": 48, "head_dim": 24,
    "num_local_experts": 6, "num_experts_per_tok": 1, "attention_chunk_size": 16, "no_rope_layer_interval": 3,
    "floor_scale": 16,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}  # fmt: skip
SLIDING, FULL = "sliding_attention", "full_attention"
GEMMA4 = {
    "num_hidden_layers": 4, "layer_types": [SLIDING, FULL, SLIDING, FULL], "head_dim": 16, "global_head_dim": 32,
    "sliding_window": 9, "hidden_size_per_layer_input": 0, "final_logit_softcapping": 5.0, "tie_word_embeddings": True,
    "vocab_size_per_layer_input": VOCABULARY,
}  # fmt: skip
SMALL_GEMMA4 = {  # as E2B
    **GEMMA4, "num_hidden_layers": 6, "layer_types": [SLIDING, SLIDING, FULL, SLIDING, SLIDING, FULL],
    "num_kv_shared_layers": 3, "use_double_wide_mlp": True, "hidden_size_per_layer_input": 24,
}  # fmt: skip
MIXED_GEMMA4 = {**GEMMA4, "enable_moe_block": True, "num_experts": 7, "top_k_experts": 3, "moe_intermediate_size": 40}

CASES = [
    Case("qwen3moe", "qwen3moe", "Qwen3MoeConfig", options={**QWEN_MOE, "head_dim": 32, "norm_topk_prob": True}),
    Case(
        "qwen3moe-odd-not-normalised",
        "qwen3moe",
        "Qwen3MoeConfig",
        options={
            **QWEN_MOE, **ODD, "head_dim": 18, "norm_topk_prob": False, "moe_intermediate_size": 21, "num_experts": 5,
            "num_experts_per_tok": 1, "attention_bias": True,
        },
        peer=False,
    ),
    Case(
        "qwen3moe-all-experts-tied",
        "qwen3moe",
        "Qwen3MoeConfig",
        options={
            **QWEN_MOE, "norm_topk_prob": True, "num_experts": 20, "num_experts_per_tok": 20,
            "tie_word_embeddings": True, "head_dim": 16,
        },
    ),
    Case("qwen2moe", "qwen2moe", "Qwen2MoeConfig", options={**QWEN_MOE, "shared_expert_intermediate_size": 80}),
    Case(
        "qwen2moe-odd-normalised",
        "qwen2moe",
        "Qwen2MoeConfig",
        options={**QWEN_MOE, **ODD, "shared_expert_intermediate_size": 33, "norm_topk_prob": True},
        peer=False,
    ),
    Case("mixtral", "mixtral", "MixtralConfig", options={"num_local_experts": 6, "num_experts_per_tok": 2}),
    Case(
        "mixtral-odd-tied",
        "mixtral",
        "MixtralConfig",
        options={**ODD, "num_local_experts": 3, "num_experts_per_tok": 3, "tie_word_embeddings": True},
    ),
    Case(
        "olmoe",
        "olmoe",
        "OlmoeConfig",
        options={"num_key_value_heads": 4, "num_experts": 8, "num_experts_per_tok": 3},
    ),
    Case(
        "olmoe-odd-normalised",
        "olmoe",
        "OlmoeConfig",
        options={**ODD, "num_key_value_heads": 1, "num_experts": 6, "num_experts_per_tok": 4, "norm_topk_prob": True},
        peer=False,
    ),
    Case("gpt-oss", "gpt-oss", "GptOssConfig", tokens=90, options=GPT_OSS, peer=False),
    Case(
        "gpt-oss-without-yarn",
        "gpt-oss",
        "GptOssConfig",
        tokens=90,
        options={**GPT_OSS, "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0}},
    ),
    Case(
        "gpt-oss-odd",
        "gpt-oss",
        "GptOssConfig",
        tokens=40,
        options={
            **GPT_OSS, "hidden_size": 60, "intermediate_size": 45, "num_attention_heads": 6, "num_key_value_heads": 2,
            "head_dim": 24, "num_local_experts": 7, "num_experts_per_tok": 1, "sliding_window": 3,
            "layer_types": ["full_attention", *["sliding_attention"] * 2, "full_attention"],
        },
        peer=False,
    ),
]  # fmt: skip

CASES += [
    Case("deepseek-v2", "deepseek2", "DeepseekV2Config", options={
        **MLA, "n_group": 4, "topk_group": 2, "topk_method": "group_limited_greedy",
    }, peer=False),
    Case("deepseek-v2-lite", "deepseek2", "DeepseekV2Config", tokens=80, options={
        **MLA, "q_lora_rank": None, "n_group": 1, "topk_group": 1, "num_hidden_layers": 27,
        "rope_parameters": yarn(mscale=0.707, mscale_all_dim=0.707, original_max_position_embeddings=64),
    }),
    Case("deepseek-v2-biases-tied", "deepseek2", "DeepseekV2Config", options={
        **MLA, "attention_bias": True, "tie_word_embeddings": True, "n_shared_experts": 1, "first_k_dense_replace": 0,
        "n_group": 1, "topk_group": 1,
    }, peer=False),
    Case("deepseek-v3", "deepseek2", "DeepseekV3Config", tokens=80, options={
        **V3, "rope_parameters": yarn(mscale=1.0, mscale_all_dim=1.0, original_max_position_embeddings=64),
    }),
    Case("deepseek-v3-ratio-of-mscales", "deepseek2", "DeepseekV3Config", options={
        **V3, "rope_parameters": yarn(mscale=1.0, mscale_all_dim=0.5), "norm_topk_prob": False,
        "first_k_dense_replace": 2,
    }, peer=False, in_gguf=False),
    Case("deepseek-v3-without-q-latent", "deepseek2", "DeepseekV3Config", options={
        **V3, "q_lora_rank": None, "n_group": 1, "topk_group": 1, "num_attention_heads": 5, "num_key_value_heads": 5,
        "hidden_size": 60,
    }, peer=False),
    Case("glm4-moe-lite", "deepseek2", "Glm4MoeLiteConfig", options={**FLASH, "n_group": 1, "topk_group": 1}),
    Case("glm4-moe-lite-values-as-wide", "deepseek2", "Glm4MoeLiteConfig", options={
        **FLASH, "v_head_dim": 24, "kv_lora_rank": 40, "n_group": 2, "topk_group": 1, "mlp_layer_types": ["sparse"] * 3,
        "rms_norm_eps": 1e-5,
    }, peer=False),
    Case("glm4-moe", "glm4moe", "Glm4MoeConfig", options={**LATER, "head_dim": 16, "use_qk_norm": True}),
    Case("glm4-moe-air-groups", "glm4moe", "Glm4MoeConfig", options={
        **LATER, "head_dim": 24, "attention_bias": True, "n_group": 4, "topk_group": 2, "n_shared_experts": 2,
        "first_k_dense_replace": 2, "tie_word_embeddings": True, "norm_topk_prob": False, "routed_scaling_factor": 2.0,
    }, peer=False),
    Case("dots1", "dots1", "Dots1Config", options={**LATER, "num_key_value_heads": 4, "norm_topk_prob": True}),
    Case("dots1-odd-biases", "dots1", "Dots1Config", options={
        **LATER, **ODD, "head_dim": 12, "attention_bias": True, "n_shared_experts": 3, "routed_scaling_factor": 2.5,
        "first_k_dense_replace": 0,
    }, peer=False),
    Case("ernie4_5-moe", "ernie4_5-moe", "Ernie4_5_MoeConfig", options={
        "moe_num_experts": 8, "moe_k": 3, "moe_intermediate_size": 48, "moe_layer_start_index": 1,
    }),
    Case("ernie4_5-moe-odd-tied", "ernie4_5-moe", "Ernie4_5_MoeConfig", options={
        **ODD, "moe_num_experts": 5, "moe_k": 1, "moe_intermediate_size": 20, "moe_num_shared_experts": 1,
        "tie_word_embeddings": True, "moe_layer_start_index": 2,
    }, peer=False),
    Case("minimax-m2", "minimax-m2", "MiniMaxM2Config", options={
        "head_dim": 16, "num_local_experts": 8, "num_experts_per_tok": 3, "rotary_dim": 8,
    }),
    Case("hunyuan-moe", "hunyuan-moe", "HunYuanMoEV1Config", options={
        "num_experts": 6, "moe_topk": 2, "head_dim": 16,
    }),
    Case("hunyuan-moe-odd-biases", "hunyuan-moe", "HunYuanMoEV1Config", options={
        **ODD, "num_experts": 4, "moe_topk": 3, "head_dim": 12, "attention_bias": True, "tie_word_embeddings": True,
    }, peer=False),
    Case("llama4", "llama4", "Llama4TextConfig", tokens=60, options=LLAMA4, peer=False, in_gguf=False),
    Case("llama4-as-scout", "llama4", "Llama4TextConfig", tokens=60, options={
        **LLAMA4, "num_hidden_layers": 4, "no_rope_layer_interval": 4, "attention_chunk_size": 8192,
        "floor_scale": 8192, "rope_parameters": LLAMA3, "head_dim": 32,
    }),
    Case("llama4-as-maverick", "llama4", "Llama4TextConfig", tokens=60, options={
        **LLAMA4, "interleave_moe_layer_step": 2, "use_qk_norm": False, "num_experts_per_tok": 2,
        "attention_bias": True, "tie_word_embeddings": True,
    }, peer=False, in_gguf=False),
    Case("llama4-dense-without-chunks", "llama4", "Llama4TextConfig", tokens=60, options={
        **LLAMA4, "moe_layers": [1], "attention_chunk_size": None, "attn_temperature_tuning": False,
    }, peer=False, in_gguf=False),
    Case("gemma4", "gemma4", "Gemma4TextConfig", options=GEMMA4),
    Case("gemma4-keys-are-values", "gemma4", "Gemma4TextConfig", options={
        **GEMMA4, "attention_k_eq_v": True, "num_global_key_value_heads": 1, "final_logit_softcapping": None,
        "tie_word_embeddings": False,
    }),
    Case("gemma4-as-e2b", "gemma4", "Gemma4TextConfig", options=SMALL_GEMMA4),
    Case("gemma4-odd-donors-biases", "gemma4", "Gemma4TextConfig", options={
        **SMALL_GEMMA4, **ODD, "layer_types": [FULL, SLIDING, SLIDING, SLIDING, FULL, FULL], "head_dim": 12,
        "global_head_dim": 24, "use_double_wide_mlp": False, "attention_bias": True,
    }, peer=False),
    Case("gemma4-as-26b", "gemma4", "Gemma4TextConfig", options={
        **MIXED_GEMMA4, "attention_k_eq_v": True, "num_global_key_value_heads": 1,
    }),
    Case("gemma4-experts-and-own-embeddings", "gemma4", "Gemma4TextConfig", options={
        **MIXED_GEMMA4, "num_kv_shared_layers": 2, "hidden_size_per_layer_input": 20, "top_k_experts": 1,
        "rope_parameters": {
            SLIDING: {"rope_type": "default", "rope_theta": 500.0},
            FULL: {"rope_type": "proportional", "rope_theta": 9000.0, "partial_rotary_factor": 0.5},
        },
    }),
]  # fmt: skip
