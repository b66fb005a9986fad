"""Each architecture against `transformers`: tiny random models, converted to GGUF in F32, logits on each backend; and
as `save_pretrained` writes them: the same bits.

And against llama.cpp on the same files, where it is installed: so the files mean the same to both.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from bench.accuracy import llama_cpp_logits
from tests.support.checkpoints import fused, random_checkpoint
from tests.support.converting import as_gguf, checkpoint_of
from tests.support.programs import same_programs
from tests.support.running import RUNNERS, limits_for, run_text

from sotol.formats import read_gguf, read_model, write_gguf
from sotol.formats.text_configs import DEFAULTS
from sotol.formats.weights import Checkpoint
from sotol.models import trace_model
from sotol.program.program import Program

torch = pytest.importorskip("torch", reason="torch is not installed: `make parity` has it")

Array = npt.NDArray[Any]
VOCABULARY = 96
TOLERANCE = 2e-4  # of a row's largest logit
SHIFTED = {"gemma", "gemma2", "gemma3", "nemotron", "qwen35", "qwen35moe", "qwen3next"}  # whose norms multiply by 1 + w
GELU = {"gemma", "gemma2", "gemma3", "gemma4", "starcoder2"}
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "pad_token_id": None,
}


@dataclass(frozen=True)
class Case:
    """A configuration: `transformers`' config class and what differs from the common one."""

    name: str
    architecture: str
    config: str
    tokens: int = 45
    options: dict[str, Any] = field(default_factory=dict)
    peer: bool = True  # whether llama.cpp reads all of the metadata and biases that `transformers`' config gives
    text: str = ""  # of a model that sees: the class of its text model, which has no head
    in_gguf: bool = True  # whether GGUF's metadata can say all of it


def yarn(**more: float) -> dict[str, Any]:
    """YaRN that reaches all three kinds of pairs with the heads of these models."""
    return {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 2000, **more}


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR = {"rope_type": "linear", "rope_theta": 5000.0, "factor": 4.0}
ODD = {"hidden_size": 60, "intermediate_size": 172, "num_attention_heads": 5, "num_key_value_heads": 5}
GEMMA = {"head_dim": 32, "query_pre_attn_scalar": 32, "tie_word_embeddings": True, "sliding_window": 7}

QWEN_MOE = {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 48}
# Its windows are shorter than the prompt, its ramp of YaRN is not at whole pairs.
GPT_OSS = {
    "num_local_experts": 9,
    "num_experts_per_tok": 4,
    "head_dim": 32,
    "sliding_window": 16,
    "num_hidden_layers": 4,
    "rope_parameters": {**yarn(), "original_max_position_embeddings": 64, "truncate": False},
}

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

GEMMA2 = {**GEMMA, "attn_logit_softcapping": 3.0, "final_logit_softcapping": 4.0}
GRANITE = {
    "attention_multiplier": 0.21, "embedding_multiplier": 3.0, "residual_multiplier": 0.4, "logits_scaling": 2.0,
}  # fmt: skip
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

# Texts are longer than the chunks of 64, or of 16, that transformers computes recurrent layers by.
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
LFM2 = {
    "num_hidden_layers": 4, "layer_types": ["conv", "conv", "full_attention", "conv"], "block_multiple_of": 32,
}  # fmt: skip

CASES += [
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


@dataclass(frozen=True)
class Judged:
    """A model as its own checkpoint, folder and as a GGUF file, the ids of a prompt, and their logits [T, V]."""

    case: Case
    checkpoint: Checkpoint
    folder: Path | None  # None: what is judged is part of what Hugging Face saves
    path: Path
    ids: list[int]
    logits: Array


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def judged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """The case as a file, a prompt, and `transformers`' logits for it."""
    case: Case = request.param
    torch.set_num_threads(1)
    model = random_model(case)
    ids = np.random.default_rng(7).integers(0, VOCABULARY, case.tokens)
    with torch.no_grad():
        logits = model(torch.tensor(ids)[None]).logits[0].numpy()
    folder = tmp_path_factory.mktemp("tiny")
    path, checkpoint = folder / f"{case.name}.gguf", checkpoint_of(model)
    saved = None if isinstance(model, Headed) else folder
    if saved is not None:
        model.save_pretrained(saved, max_shard_size="40KB")
    return Judged(case, checkpoint, saved, as_gguf(checkpoint, case.architecture, path), ids.tolist(), logits)


@dataclass(frozen=True)
class Headed:
    """A text model whose embedding is its head, as a model for causal language modelling."""

    body: Any

    @property
    def config(self) -> Any:
        return self.body.config

    def named_parameters(self) -> Iterator[tuple[str, Any]]:
        return ((f"model.{name}", x) for name, x in self.body.named_parameters())

    def state_dict(self) -> dict[str, Any]:
        return {f"model.{name}": x for name, x in self.body.state_dict().items()}

    def __call__(self, ids: Any) -> Any:
        return SimpleNamespace(logits=self.body(ids).last_hidden_state @ self.body.embed_tokens.weight.T)


def random_model(case: Case) -> Any:
    """A model of the case whose every parameter is drawn at random: no zero biases, no norms of one."""
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, case.config)(**{**COMMON, **case.options})
    if case.text:
        config._attn_implementation = "eager"
        model: Any = Headed(getattr(transformers, case.text)(config).eval())
    else:
        model = transformers.AutoModelForCausalLM.from_config(
            config, attn_implementation="eager", experts_implementation="eager"
        ).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            draw(case.architecture, name, parameter)
        for name, buffer in model.named_buffers() if hasattr(model, "named_buffers") else ():
            if name.endswith("_bias"):  # of a choice
                buffer.normal_(0, 0.3)
            elif name.endswith("layer_scalar"):
                buffer.uniform_(0.5, 1.5)
    return model


def draw(architecture: str, name: str, parameter: Any) -> None:
    """Random numbers for a parameter, of the size that it needs."""
    if name.endswith(("norm.weight", "norm_f.weight")):
        shifted = architecture in SHIFTED and not name.endswith("linear_attn.norm.weight")
        parameter.uniform_(0.5, 1.5).sub_(1.0 if shifted else 0.0)
        if architecture == "gemma4" and name.endswith("q_norm.weight"):
            parameter.mul_(0.25)  # nothing scales scores: in large ones, the peer's rounding of GELU would show
    elif name.endswith(("bias", "sinks")):
        parameter.normal_(0, 0.7)
    elif name.endswith(("router.scale", "per_expert_scale")):
        parameter.uniform_(0.5, 1.5)
    else:
        parameter.normal_(0, 1.5 / parameter.shape[-1] ** 0.5)


@pytest.mark.parametrize("backend", RUNNERS)
@pytest.mark.parametrize(
    "chunks",
    [lambda n: [n], lambda n: [n - 5, *[1] * 5], lambda n: [1, 7, 7, n - 15]],
    ids=["at-once", "prompt-then-decode", "chunks"],
)
def test_logits_are_those_of_transformers(judged: Judged, backend: str, chunks: Callable[[int], list[int]]) -> None:
    program = trace_model(read_gguf(judged.path) if judged.case.in_gguf else judged.checkpoint, context=128)
    with RUNNERS[backend](program, limits_for(program, 128)) as runner:
        logits = run_text(runner, judged.ids, chunks(len(judged.ids)))
    assert worst(logits, judged.logits) <= TOLERANCE


def test_the_checkpoint_itself_gives_the_logits_of_its_conversion(judged: Judged) -> None:
    """Its config.json and its weights by their own names, in memory and in a folder: the same bits."""
    checkpoints = [judged.checkpoint]
    if judged.folder is not None:
        checkpoints.append(read_model(judged.folder))
    if judged.case.in_gguf:
        checkpoints.append(read_gguf(judged.path))
    programs = [trace_model(checkpoint, 128) for checkpoint in checkpoints]
    results = [cpu_logits(program, judged.ids) for program in programs]
    assert worst(results[0], judged.logits) <= TOLERANCE
    for program, logits in zip(programs[1:], results[1:], strict=True):
        same_programs(programs[0], program)
        np.testing.assert_array_equal(results[0].view(np.int32), logits.view(np.int32))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["llama-gqa", "qwen2-gqa", "qwen3-gqa", "gemma3"])
def test_a_folder_of_half_precision(name: str, dtype: str, tmp_path: Path) -> None:
    """One of each architecture, in several shards: logits as of `transformers` in float32, and of F32 in GGUF."""
    import transformers

    case = next(case for case in CASES if case.name == name)
    random_model(case).to(getattr(torch, dtype)).save_pretrained(tmp_path, max_shard_size="30KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    ids = np.random.default_rng(7).integers(0, VOCABULARY, 30).tolist()
    load = transformers.AutoModelForCausalLM.from_pretrained
    model = load(tmp_path, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        expected = model(torch.tensor(ids)[None]).logits[0].numpy()
    checkpoint = read_model(tmp_path)
    assert {weight.encoding.name for weight in checkpoint.weights.values()} == {"BF16" if dtype[0] == "b" else "F16"}
    logits = cpu_logits(trace_model(checkpoint, 128), ids)
    assert worst(logits, expected) <= TOLERANCE
    path = as_gguf(checkpoint, case.architecture, tmp_path / "x.gguf")
    again = cpu_logits(trace_model(read_gguf(path), 128), ids)
    np.testing.assert_array_equal(logits.view(np.int32), again.view(np.int32))


def test_the_text_model_of_a_multimodal_one(tmp_path: Path) -> None:
    """Gemma 3 with its tower for images: what `transformers` saves gives the logits of its text model."""
    import transformers

    text = {**COMMON, **GEMMA, "num_hidden_layers": 7}
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
             "image_size": 28, "patch_size": 14}  # fmt: skip
    torch.manual_seed(0)
    config = transformers.Gemma3Config(text_config=text, vision_config=tower, mm_tokens_per_image=4)
    model = transformers.Gemma3ForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path)
    ids = np.random.default_rng(7).integers(3, VOCABULARY, 30).tolist()
    with torch.no_grad():
        expected = model(torch.tensor(ids)[None]).logits[0].numpy()
    checkpoint = read_model(tmp_path)
    assert not any("vision" in name or "projector" in name for name in checkpoint.weights)
    assert worst(cpu_logits(trace_model(checkpoint, 128), ids), expected) <= TOLERANCE


@pytest.mark.parametrize("name", ["Gemma4", "Llama4"])
def test_the_text_model_beside_a_tower(name: str, tmp_path: Path) -> None:
    """What `transformers` saves of a model that sees gives the logits of its text model, which is asked alone here."""
    import transformers

    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
             "num_key_value_heads": 2, "head_dim": 16, "image_size": 28, "patch_size": 14}  # fmt: skip
    if name == "Llama4":
        tower |= {"vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32}
    text = {**COMMON, **(SMALL_GEMMA4 if name == "Gemma4" else LLAMA4)}
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(text_config=text, vision_config=tower)
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config).eval()
    model.save_pretrained(tmp_path)
    ids = np.random.default_rng(7).integers(3, VOCABULARY, 40).tolist()
    with torch.no_grad():
        if name == "Llama4":
            expected = model.language_model(torch.tensor(ids)[None]).logits[0].numpy()
        else:
            hidden = model.model.language_model(torch.tensor(ids)[None]).last_hidden_state
            cap = text["final_logit_softcapping"]
            expected = (torch.tanh(model.lm_head(hidden) / cap) * cap)[0].numpy()
    checkpoint = read_model(tmp_path)
    assert not any("vision" in weight for weight in checkpoint.weights)
    assert worst(cpu_logits(trace_model(checkpoint, 128), ids), expected) <= TOLERANCE


@pytest.mark.parametrize("kind", DEFAULTS)
def test_what_the_config_of_a_text_model_leaves_out(kind: str) -> None:
    """The defaults of `transformers`' classes, but for widths of heads that these compute."""
    from transformers import CONFIG_MAPPING

    theirs, ours = CONFIG_MAPPING[kind]().to_dict(), dict(DEFAULTS[kind])
    rotation = theirs["rope_parameters"]
    rotation = rotation.get("full_attention", rotation)
    assert rotation["rope_type"] in ("default", "proportional")
    assert ours.pop("rope_theta") == rotation["rope_theta"]
    assert ours.pop("partial_rotary_factor", rotation.get("partial_rotary_factor", 1.0)) == rotation.get(
        "partial_rotary_factor", 1.0
    )
    lacking = {"lfm2": {"rms_norm_eps"}, "cohere2": {"rms_norm_eps"}}.get(kind, set[str]())
    assert {key for key in ours if key not in theirs} == lacking
    assert {key: theirs[key] for key in ours.keys() - lacking} == {
        key: value for key, value in ours.items() if key not in lacking
    }


SEEING = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
          "image_size": 28, "patch_size": 14}  # fmt: skip
QWEN_SEEING = {"depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "out_hidden_size": 64,
               "embed_dim": 32, "patch_size": 4}  # fmt: skip
MROPE = {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}}
CLIP, SIGLIP = ({**SEEING, "model_type": f"{kind}_vision_model"} for kind in ("clip", "siglip"))
# The class of a repository's model -> what its text model has, what sees, and what the config has besides.
REPOSITORIES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "Mistral3": ({"model_type": "mistral"}, {**SEEING, "model_type": "pixtral", "head_dim": 16}, {}),
    "Llava": ({"model_type": "llama"}, {**CLIP, "projection_dim": 32}, {}),
    "LlavaNext": ({"model_type": "mistral", "sliding_window": None}, {**CLIP, "projection_dim": 32}, {}),
    "LlavaOnevision": ({"model_type": "qwen2"}, SIGLIP, {}),
    "Idefics3": ({"model_type": "llama"}, SEEING, {"scale_factor": 2}),
    "InternVL": ({"model_type": "qwen3"}, {**SEEING, "image_size": [28, 28], "patch_size": [14, 14]}, {}),
    "Qwen2VL": (MROPE, QWEN_SEEING, {}),
    "Qwen2_5_VL": (MROPE, QWEN_SEEING, {}),
    "Gemma3": (
        {"tie_word_embeddings": True, "num_hidden_layers": 7, "num_attention_heads": 8, "num_key_value_heads": 4},
        SEEING, {"mm_tokens_per_image": 4},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REPOSITORIES)
def test_the_text_model_of_a_repository(name: str, tmp_path: Path) -> None:
    """As `transformers` saves it: a text_config of what is not a default, names as of its version 5."""
    import transformers

    text, tower, more = REPOSITORIES[name]
    torch.manual_seed(0)
    common = {key: value for key, value in COMMON.items() if key != "pad_token_id"}
    config = getattr(transformers, f"{name}Config")(text_config={**common, **text}, vision_config=tower, **more)
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config).eval()
    model.save_pretrained(tmp_path)
    ids = np.random.default_rng(7).integers(3, 80, 30).tolist()
    with torch.no_grad():
        expected = model(input_ids=torch.tensor(ids)[None]).logits[0].numpy()
    assert worst(cpu_logits(trace_model(read_model(tmp_path), 128), ids), expected) <= TOLERANCE


def test_the_text_model_of_qwen35_with_its_tower_and_drafts(tmp_path: Path) -> None:
    """As `transformers` saves it, with a draft's weight as released files have some: the logits of its text model."""
    import transformers
    from safetensors.torch import load_file, save_file

    tower = {"hidden_size": 32, "intermediate_size": 48, "depth": 2, "num_heads": 2, "patch_size": 4,
             "out_hidden_size": 64, "num_position_embeddings": 16}  # fmt: skip
    torch.manual_seed(0)
    config = transformers.Qwen3_5Config(text_config={**COMMON, **DELTA_NET}, vision_config=tower)
    model = transformers.Qwen3_5ForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({**weights, "mtp.fc.weight": torch.ones(64, 128)}, tmp_path / "model.safetensors")
    ids = np.random.default_rng(7).integers(3, VOCABULARY, 30).tolist()
    with torch.no_grad():
        expected = model(torch.tensor(ids)[None]).logits[0].numpy()
    checkpoint = read_model(tmp_path)
    assert not any("visual" in name for name in checkpoint.weights)
    assert worst(cpu_logits(trace_model(checkpoint, 128), ids), expected) <= TOLERANCE


def cpu_logits(program: Program, ids: list[int]) -> Array:
    """Logits [T, V] of one prompt at once."""
    with RUNNERS["cpu"](program, limits_for(program, 128)) as runner:
        return run_text(runner, ids, [len(ids)])


def test_logits_are_those_of_llama_cpp(judged: Judged, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: `make parity` builds it")
    if not judged.case.peer:
        pytest.skip(
            "llama.cpp ignores some of it in files of this architecture: biases, YaRN's bounds, windows, whether the"
            " experts' weights are divided by their sum, chunks; it rounds YaRN's ramp for GPT-OSS, judges groups of"
            " experts of DeepSeek-V2 by two, needs a latent of queries unless layers are 26 or 27; and Gemma 4's donors"
        )
    logits = peer_logits(read_gguf(judged.path), judged.ids, tmp_path / "peer.gguf")
    # Its GELU is a table of float16.
    assert worst(logits, judged.logits) <= (5e-3 if judged.case.architecture in GELU else TOLERANCE)


def test_the_first_deepseek_is_llama_cpps(tmp_path: Path) -> None:
    """`transformers` does not have it."""
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: `make parity` builds it")
    sizes = {"attention.key_length": 16, "expert_weights_scale": 1.5, "rope.dimension_count": 16}
    checkpoint = random_checkpoint("deepseek", sizes)._replace(types={})
    ids = np.random.default_rng(8).integers(0, 48, 20).tolist()
    logits = peer_logits(checkpoint, ids, tmp_path / "peer.gguf")
    assert worst(cpu_logits(trace_model(checkpoint, 128), ids), logits) <= TOLERANCE


def test_joined_queries_keys_and_values_are_those_of_llama_cpp(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: `make parity` builds it")
    checkpoint = fused(random_checkpoint("llama", {"attention.key_length": 16}))._replace(types={})
    assert "blk.0.attn_qkv.weight" in checkpoint.weights
    ids = np.random.default_rng(8).integers(0, 48, 20).tolist()
    logits = peer_logits(checkpoint, ids, tmp_path / "peer.gguf")
    program = trace_model(checkpoint, 64)
    with RUNNERS["cpu"](program, limits_for(program, 64)) as runner:
        assert worst(run_text(runner, ids, [20]), logits) <= TOLERANCE


def peer_logits(checkpoint: Checkpoint, ids: list[int], path: Path) -> Array:
    """llama.cpp's logits [T, V] of a checkpoint, which is written with what it needs besides."""
    prefix = str(checkpoint.metadata["general.architecture"])
    rotated = checkpoint.metadata.get(f"{prefix}.rope.dimension_count")
    needed = {
        "tokenizer.ggml.model": "none",
        f"{prefix}.vocab_size": checkpoint.weights["token_embd.weight"].shape[0],
        f"{prefix}.rope.dimension_count": rotated or checkpoint.metadata[f"{prefix}.attention.key_length"],
    }
    write_gguf(path, {**checkpoint.metadata, **needed}, checkpoint.weights.values(), types=checkpoint.types)
    return llama_cpp_logits(path, ids, codec="f32", threads=1)


def worst(logits: Array, expected: Array) -> float:
    """The largest error of any row, in units of the row's largest logit."""
    return float((np.abs(logits - expected).max(axis=1) / np.abs(expected).max(axis=1)).max())
