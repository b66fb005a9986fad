"""Dense models."""

import numpy as np
from tests.parity.cases.case import GEMMA, GRANITE, LINEAR, LLAMA3, ODD, Case, yarn

GEMMA2 = {**GEMMA, "attn_logit_softcapping": 3.0, "final_logit_softcapping": 4.0}
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": np.linspace(1, 1.3, 8).tolist(),
    "long_factor": np.linspace(1, 9, 8).tolist(),
}
# Spans of 16 positions whose queries grow alike: the texts have three of them, and a part of a fourth.
MINISTRAL = yarn(
    factor=16.0, original_max_position_embeddings=16, beta_fast=32.0, beta_slow=1.0, mscale=1.0, mscale_all_dim=1.0,
    llama_4_scaling_beta=0.4,
)  # fmt: skip
# The text of models that see, which has sections of pairs for time, height and width.
SEEING = {
    "head_dim": 16, "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
}  # fmt: skip
HYBRID = {"num_hidden_layers": 4, "sliding_window": 7}

CASES = [
    Case("llama-gqa", "llama", "LlamaConfig"),
    Case("llama-mha-tied", "llama", "LlamaConfig", options={"num_key_value_heads": 4, "tie_word_embeddings": True}),
    Case("llama-wide-heads", "llama", "LlamaConfig", options={"head_dim": 48}),
    Case("llama-odd-biases", "llama", "LlamaConfig", options={**ODD, "attention_bias": True, "mlp_bias": True}),
    Case("llama-heads-of-100", "llama", "LlamaConfig", options={"head_dim": 100, "intermediate_size": 77}),
    Case("llama-linear", "llama", "LlamaConfig", options={"rope_parameters": LINEAR}),
    Case(
        "llama-yarn",
        "llama",
        "LlamaConfig",
        options={"rope_parameters": yarn(beta_fast=16.0, beta_slow=2.0)},
        peer=False,
    ),
    Case("llama3", "llama", "LlamaConfig", tokens=90, options={"rope_parameters": LLAMA3, "head_dim": 32}),
    Case("qwen2-gqa", "qwen2", "Qwen2Config"),
    Case("qwen2-odd", "qwen2", "Qwen2Config", options=ODD),
    Case("qwen2-tied-yarn", "qwen2", "Qwen2Config", options={"tie_word_embeddings": True, "rope_parameters": yarn()}),
    Case("qwen3-gqa", "qwen3", "Qwen3Config", options={"head_dim": 32}),
    Case(
        "qwen3-odd-biases", "qwen3", "Qwen3Config", options={**ODD, "head_dim": 18, "attention_bias": True}, peer=False
    ),
    Case("qwen3-tied", "qwen3", "Qwen3Config", options={"head_dim": 16, "tie_word_embeddings": True}),
    Case(
        "qwen3-yarn-factor",
        "qwen3",
        "Qwen3Config",
        options={"head_dim": 48, "rope_parameters": yarn(attention_factor=1.5)},
        peer=False,
    ),
    Case(
        "qwen3-yarn-mscale",
        "qwen3",
        "Qwen3Config",
        options={"head_dim": 32, "rope_parameters": yarn(mscale=1.0, mscale_all_dim=0.5)},
        peer=False,
    ),
    Case("gemma3", "gemma3", "Gemma3TextConfig", options={**GEMMA, "num_hidden_layers": 7}),
    Case(
        "gemma3-odd-biases",
        "gemma3",
        "Gemma3TextConfig",
        options={
            **GEMMA,
            **ODD,
            "num_hidden_layers": 7,
            "head_dim": 12,
            "query_pre_attn_scalar": 12,
            "attention_bias": True,
        },
        peer=False,
    ),
    Case(
        "gemma3-period-3-linear",
        "gemma3",
        "Gemma3TextConfig",
        options={
            **GEMMA,
            "num_hidden_layers": 4,
            "sliding_window_pattern": 3,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 100000.0, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 3000.0},
            },
        },
    ),
    Case(
        "gemma3-cap-mqa",
        "gemma3",
        "Gemma3TextConfig",
        options={
            **GEMMA,
            "num_hidden_layers": 6,
            "num_key_value_heads": 1,
            "sliding_window": 20,
            "final_logit_softcapping": 2.0,
        },
    ),
    Case(
        "gemma3-as-27b",
        "gemma3",
        "Gemma3TextConfig",
        tokens=20,
        options={**GEMMA, "num_hidden_layers": 62, "query_pre_attn_scalar": 16},
    ),
]  # fmt: skip

CASES += [
    Case("gemma2", "gemma2", "Gemma2Config", options={**GEMMA2, "num_hidden_layers": 4}),
    Case("gemma2-mqa-odd-biases", "gemma2", "Gemma2Config", options={
        **GEMMA2, **ODD, "num_key_value_heads": 1, "head_dim": 12, "query_pre_attn_scalar": 12, "attention_bias": True,
    }, peer=False),
    Case("gemma2-as-27b", "gemma2", "Gemma2Config", tokens=20, options={
        **GEMMA2, "num_hidden_layers": 46, "query_pre_attn_scalar": 16,
    }),
    Case("phi3", "phi3", "Phi3Config"),
    Case("phi3-window", "phi3", "Phi3Config", options={"sliding_window": 9}, peer=False),
    Case("phi3-short", "phi3", "Phi3Config", options={
        "rope_parameters": LONGROPE, "original_max_position_embeddings": 1024, "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
    }),
    Case("phi3-long", "phi3", "Phi3Config", options={
        "rope_parameters": LONGROPE, "original_max_position_embeddings": 32, "max_position_embeddings": 512,
    }),
    Case("phi3-part-of-a-head", "phi3", "Phi3Config", options={
        "rope_parameters": {**LONGROPE, "partial_rotary_factor": 0.75, "short_factor": [1.0] * 6,
                            "long_factor": [1.0, 1.1, 2.0, 3.0, 5.0, 8.0], "attention_factor": 1.2},
        "original_max_position_embeddings": 32, "max_position_embeddings": 512,
    }),
    Case("granite", "granite", "GraniteConfig", options=GRANITE),
    Case("granite-odd-biases", "granite", "GraniteConfig", options={
        **GRANITE, **ODD, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True,
    }),
    Case("olmo2", "olmo2", "Olmo2Config"),
    Case("olmo2-mha-tied-odd-biases", "olmo2", "Olmo2Config", options={
        **ODD, "attention_bias": True, "tie_word_embeddings": True, "rope_parameters": yarn(),
    }, peer=False),
    Case("olmo3", "olmo2", "Olmo3Config", options={
        **HYBRID, "rope_parameters": {"full_attention": yarn(), "sliding_attention": {"rope_type": "default",
                                                                                        "rope_theta": 10000.0}},
    }),
    Case("olmo3-mixed", "olmo2", "Olmo3Config", options={"layer_types": MIXED, "sliding_window": 12}),
    Case("smollm3", "smollm3", "SmolLM3Config", options={"num_hidden_layers": 5}),
    Case("smollm3-some-biases", "smollm3", "SmolLM3Config", options={
        "no_rope_layers": [0, 1, 0], "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True,
    }, peer=False, in_gguf=False),
    Case("ministral3", "mistral3", "Ministral3Config", tokens=60, options={
        "head_dim": 32, "rope_parameters": MINISTRAL,
    }),
    Case("ministral3-not-rounded", "mistral3", "Ministral3Config", tokens=60, options={
        "head_dim": 32, "rope_parameters": {**MINISTRAL, "mscale": 0.5, "truncate": False}, "sliding_window": 20,
    }, peer=False, in_gguf=False),
    Case("mistral", "mistral3", "MistralConfig", options={"sliding_window": 7}, peer=False),
    Case("mistral-nemo", "mistral3", "MistralConfig", options={"head_dim": 24, "sliding_window": None}),
    Case("ministral", "mistral3", "MinistralConfig", options={
        "layer_types": MIXED, "sliding_window": 7, "head_dim": 16,
    }, peer=False),
    Case("cohere2", "cohere2", "Cohere2Config", options={**HYBRID, "tie_word_embeddings": True, "logit_scale": 0.4}),
    Case("cohere2-odd-biases", "cohere2", "Cohere2Config", options={
        **ODD, "layer_types": MIXED, "sliding_window": 12, "attention_bias": True,
    }, peer=False),
    Case("command-r", "command-r", "CohereConfig", options={"tie_word_embeddings": True, "logit_scale": 0.4}),
    Case("command-r-odd-biases", "command-r", "CohereConfig", options={**ODD, "attention_bias": True}, peer=False),
    Case("glm4", "glm4", "Glm4Config", options={"head_dim": 16}),
    Case("glm4-plain-part", "glm4", "Glm4Config", options={
        "head_dim": 24, "attention_bias": False, "partial_rotary_factor": 0.25, "tie_word_embeddings": True,
    }),
    Case("exaone4", "exaone4", "Exaone4Config", options={
        "sliding_window": None, "layer_types": ["full_attention"] * 3,
    }),
    Case("gemma", "gemma", "GemmaConfig", options={"head_dim": 32, "tie_word_embeddings": True}),
    Case("gemma-mqa-odd-biases", "gemma", "GemmaConfig", options={
        **ODD, "num_key_value_heads": 1, "head_dim": 12, "attention_bias": True,
    }, peer=False),
    Case("seed_oss", "seed_oss", "SeedOssConfig", options={"head_dim": 24}),
    Case("seed_oss-biases", "seed_oss", "SeedOssConfig", options={
        "head_dim": 16, "attention_out_bias": True, "mlp_bias": True, "tie_word_embeddings": True,
    }, peer=False),
    Case("ernie4_5", "ernie4_5", "Ernie4_5Config", options={"head_dim": 24}),
    Case("ernie4_5-odd-biases", "ernie4_5", "Ernie4_5Config", options={
        **ODD, "head_dim": 12, "use_bias": True, "tie_word_embeddings": True,
    }, peer=False),
    Case("arcee", "arcee", "ArceeConfig", options={"head_dim": 24}),
    Case("arcee-odd-biases", "arcee", "ArceeConfig", options={
        **ODD, "head_dim": 12, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True,
    }, peer=False),
    Case("nemotron", "nemotron", "NemotronConfig"),
    Case("nemotron-odd-biases", "nemotron", "NemotronConfig", options={
        **ODD, "attention_bias": True, "mlp_bias": True, "partial_rotary_factor": 1.0,
    }),
    Case("stablelm", "stablelm", "StableLmConfig"),
    Case("stablelm-biases-tied", "stablelm", "StableLmConfig", options={
        "use_qkv_bias": True, "partial_rotary_factor": 0.5, "tie_word_embeddings": True,
    }, peer=False),
    Case("starcoder2", "starcoder2", "Starcoder2Config"),
    Case("starcoder2-window-odd", "starcoder2", "Starcoder2Config", options={
        **ODD, "sliding_window": 9, "tie_word_embeddings": True,
    }, peer=False),
    Case("hunyuan", "hunyuan-dense", "HunYuanDenseV1Config", options={"head_dim": 16}),
    Case("hunyuan-alpha-odd-biases", "hunyuan-dense", "HunYuanDenseV1Config", options={
        **ODD, "head_dim": 12, "attention_bias": True, "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "alpha": 50.0, "factor": 1.0},
    }, peer=False),
    Case("qwen2-vl", "qwen2vl", "Qwen2VLTextConfig", text="Qwen2VLTextModel", options=SEEING, peer=False),
    Case("qwen2.5-vl", "qwen2vl", "Qwen2_5_VLTextConfig", text="Qwen2_5_VLTextModel", options=SEEING, peer=False),
    Case("qwen3-vl", "qwen3vl", "Qwen3VLTextConfig", text="Qwen3VLTextModel", options=SEEING, peer=False),
    Case("exaone4-hybrid", "exaone4", "Exaone4Config", options={
        **HYBRID, "rope_parameters": LLAMA3, "tie_word_embeddings": True,
    }, peer=False),
]  # fmt: skip
