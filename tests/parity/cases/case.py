"""A case of parity: a configuration of an architecture, and what many of them have in common."""

from dataclasses import dataclass, field
from typing import Any

VOCABULARY = 96
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
    multiplied: bool = False  # whether config.json has factors that GGUF has in its weights: logits are rounded apart


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
GRANITE = {
    "attention_multiplier": 0.21, "embedding_multiplier": 3.0, "residual_multiplier": 0.4, "logits_scaling": 2.0,
}  # fmt: skip
