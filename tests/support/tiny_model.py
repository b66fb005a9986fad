"""A model file of a few hundred kilobytes with random weights and a tokenizer of letters, for tests of `LLM`."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tests.support.checkpoints import random_checkpoint

from sotol.formats import write_gguf

__all__ = ["CHATML", "TOKENS", "tiny_model"]

TOKENS = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "\n", "▁", *"abcdefghijklmnopqrstuvwxyz.,:;?!+-*()<>_|"]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for t in tools or [] %}{{ t | tojson }}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_model(
    folder: Path, fields: Mapping[str, object] | None = None, *, seed: int = 0, architecture: str = "llama",
    context: int = 64,
) -> Path:  # fmt: skip
    """Write a model with a context of 64 tokens, or so many; fields change or (None) take out metadata."""
    checkpoint = random_checkpoint(architecture, {"context_length": context}, seed=seed)
    metadata = {
        **checkpoint.metadata,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": [2, *[3] * 4, *[1] * (len(TOKENS) - 5)],
        "tokenizer.ggml.scores": np.linspace(0, -1, len(TOKENS), dtype=np.float32),
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": CHATML,
        **(fields or {}),
    }
    kept = {name: value for name, value in metadata.items() if value is not None}
    path = folder / "tiny.gguf"
    write_gguf(path, kept, checkpoint.weights.values())
    return path
