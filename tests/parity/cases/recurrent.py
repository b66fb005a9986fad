"""Models with recurrent layers."""

from tests.parity.cases.case import GRANITE, ODD, QWEN_MOE, Case

DELTA_NET = {
    "num_hidden_layers": 4, "head_dim": 32, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_key_head_dim": 16, "linear_value_head_dim": 16,
}  # fmt: skip
ODD_DELTA_NET = {
    **ODD, "head_dim": 24, "attention_bias": True, "linear_num_value_heads": 6, "linear_key_head_dim": 12,
    "linear_value_head_dim": 20, "linear_conv_kernel_dim": 3, "linear_num_key_heads": 2,
    "layer_types": ["full_attention", "linear_attention", "linear_attention"],
}  # fmt: skip
QWEN35_MOE = {**DELTA_NET, **QWEN_MOE, "shared_expert_intermediate_size": 80}
# transformers has a least step of time for prompts, which NVIDIA's code has not.
MAMBA2 = {
    "time_step_min": 1e-30, "chunk_size": 16, "ssm_state_size": 16, "mamba_num_heads": 8, "mamba_head_dim": 16,
    "n_groups": 2, "head_dim": 24,
    "layers_block_type": ["linear_attention", "mlp", "full_attention", "linear_attention", "linear_attention", "mlp"],
}  # fmt: skip
NEMOTRON_MOE = {
    **MAMBA2, "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 48,
    "moe_shared_expert_intermediate_size": 80, "routed_scaling_factor": 2.5,
    "layers_block_type": ["linear_attention", "moe", "full_attention", "moe"],
}  # fmt: skip

GRANITE_HYBRID = {
    **GRANITE, "num_hidden_layers": 4, "layer_types": ["linear_attention", "full_attention", *["linear_attention"] * 2],
    "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_n_groups": 2, "mamba_chunk_size": 16,
    "num_local_experts": 8, "num_experts_per_tok": 3, "shared_intermediate_size": 80,
}  # fmt: skip
FALCON_H1 = {
    "head_dim": 16, "mamba_d_ssm": 128, "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16,
    "mamba_n_groups": 2, "mamba_chunk_size": 16, "mamba_norm_before_gate": False,
}  # fmt: skip
FACTORS = {
    "embedding_multiplier": 3.0, "lm_head_multiplier": 0.4, "attention_in_multiplier": 0.7, "key_multiplier": 0.3,
    "attention_out_multiplier": 0.6, "ssm_in_multiplier": 1.2, "ssm_out_multiplier": 0.5,
    "ssm_multipliers": [0.8, 0.9, 1.3, 0.7, 1.1], "mlp_multipliers": [0.9, 0.4],
}  # fmt: skip
LFM2 = {
    "num_hidden_layers": 4, "layer_types": ["conv", "conv", "full_attention", "conv"], "block_multiple_of": 32,
}  # fmt: skip

CASES = [
    Case("falcon-h1", "falcon-h1", "FalconH1Config", tokens=60, options={**FALCON_H1, **FACTORS}, multiplied=True),
    Case("falcon-h1-norm-tied", "falcon-h1", "FalconH1Config", tokens=60, options={
        **FALCON_H1, "mamba_rms_norm": True, "tie_word_embeddings": True,
    }),
    Case("falcon-h1-norm-first-odd-biases", "falcon-h1", "FalconH1Config", options={
        **FALCON_H1, **FACTORS, **ODD, "head_dim": 12, "mamba_d_ssm": 60, "mamba_n_heads": 6, "mamba_d_head": 10,
        "mamba_n_groups": 3, "mamba_d_state": 7, "mamba_d_conv": 3, "mamba_rms_norm": True,
        "mamba_norm_before_gate": True, "mamba_conv_bias": False, "attention_bias": True, "mlp_bias": True,
        "tie_word_embeddings": True,
    }, peer=False, in_gguf=False),
    Case("granitehybrid", "granitehybrid", "GraniteMoeHybridConfig", tokens=60, options=GRANITE_HYBRID),
    Case("granitehybrid-rope-tied", "granitehybrid", "GraniteMoeHybridConfig", options={
        **GRANITE_HYBRID, "position_embedding_type": "rope", "mamba_n_groups": 1, "tie_word_embeddings": True,
    }),
    Case("granitehybrid-without-experts", "granitehybrid", "GraniteMoeHybridConfig", options={
        **GRANITE_HYBRID, "num_local_experts": 0,
    }),
    Case("granitemoe", "granitemoe", "GraniteMoeConfig", options={
        **GRANITE, "num_local_experts": 8, "num_experts_per_tok": 3,
    }),
    Case("granitemoe-shared", "granitemoe", "GraniteMoeSharedConfig", options={
        **GRANITE, "num_local_experts": 5, "num_experts_per_tok": 2, "shared_intermediate_size": 33,
    }),
    Case("lfm2", "lfm2", "Lfm2Config", options=LFM2),
    Case("lfm2-odd-tied", "lfm2", "Lfm2Config", options={
        **ODD, "num_key_value_heads": 1, "num_hidden_layers": 3, "full_attn_idxs": [1], "conv_L_cache": 5,
        "block_auto_adjust_ff_dim": False, "tie_word_embeddings": True,
    }),
    Case("lfm2moe", "lfm2moe", "Lfm2MoeConfig", options={
        **LFM2, **QWEN_MOE, "num_dense_layers": 2,
    }),
    Case("lfm2moe-not-normalised", "lfm2moe", "Lfm2MoeConfig", options={
        **LFM2, **QWEN_MOE, "num_dense_layers": 0, "norm_topk_prob": False, "use_expert_bias": False,
        "routed_scaling_factor": 1.5,
    }, peer=False),
    Case("qwen35", "qwen35", "Qwen3_5TextConfig", tokens=90, options=DELTA_NET),
    Case("qwen35-equal-heads-tied", "qwen35", "Qwen3_5TextConfig", tokens=70, options={
        **DELTA_NET, "linear_num_value_heads": 2, "tie_word_embeddings": True, "num_hidden_layers": 3,
        "layer_types": ["linear_attention", "full_attention", "full_attention"],
    }),
    Case("qwen35-odd-biases", "qwen35", "Qwen3_5TextConfig", tokens=70, options=ODD_DELTA_NET, peer=False),
    Case("qwen35moe", "qwen35moe", "Qwen3_5MoeTextConfig", tokens=70, options=QWEN35_MOE),
    Case("qwen35moe-odd-biases", "qwen35moe", "Qwen3_5MoeTextConfig", options={
        **ODD_DELTA_NET, **QWEN_MOE, "shared_expert_intermediate_size": 33, "num_experts": 5,
        "num_experts_per_tok": 1, "moe_intermediate_size": 21, "tie_word_embeddings": True,
    }, peer=False),
    Case("qwen3next", "qwen3next", "Qwen3NextConfig", tokens=70, options={**QWEN35_MOE, "norm_topk_prob": True}),
    Case("qwen3next-odd", "qwen3next", "Qwen3NextConfig", options={
        **ODD_DELTA_NET, **QWEN_MOE, "shared_expert_intermediate_size": 33, "norm_topk_prob": False,
    }, peer=False),
    Case("nemotron-h", "nemotron_h", "NemotronHConfig", tokens=70, options=MAMBA2),
    Case("nemotron-h-odd", "nemotron_h", "NemotronHConfig", options={
        **MAMBA2, "hidden_size": 60, "intermediate_size": 77, "head_dim": 12, "ssm_state_size": 7, "n_groups": 3,
        "mamba_num_heads": 6, "mamba_head_dim": 10, "conv_kernel": 3,
        "hybrid_override_pattern": "*M-", "layers_block_type": None,
    }, peer=False),
    Case("nemotron-h-moe", "nemotron_h_moe", "NemotronHConfig", tokens=60, options=NEMOTRON_MOE),
    Case("nemotron-h-moe-latent", "nemotron_h_moe", "NemotronHConfig", options={
        **NEMOTRON_MOE, "moe_latent_size": 32, "norm_topk_prob": False,
    }),
    Case("nemotron-h-moe-groups-and-networks", "nemotron_h_moe", "NemotronHConfig", options={
        **NEMOTRON_MOE, "n_group": 4, "topk_group": 2,
        "layers_block_type": ["moe", "mlp", "linear_attention", "full_attention"],
    }, peer=False, in_gguf=False),
]  # fmt: skip
