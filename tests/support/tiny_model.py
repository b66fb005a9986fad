"""A model file of a few hundred kilobytes with random weights and a tokenizer of letters, for tests of `LLM`."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tests.support.checkpoints import random_checkpoint

from sotol.formats import write_gguf
from sotol.tokenizers import Tokenizer
from sotol.tools.hub_vocabulary import hub_vocabulary

__all__ = ["CHATML", "TOKENS", "VOCABULARY", "tiny_model", "with_vocabulary"]

TOKENS = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "\n", "▁", *"abcdefghijklmnopqrstuvwxyz.,:;?!+-*()<>_|"]
VOCABULARY: Mapping[str, object] = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.token_type": [2, *[3] * 4, *[1] * (len(TOKENS) - 5)],
    "tokenizer.ggml.scores": np.linspace(0, -1, len(TOKENS), dtype=np.float32),
    "tokenizer.ggml.unknown_token_id": 0,
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
}
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
        **VOCABULARY,
        "tokenizer.chat_template": CHATML,
        **(fields or {}),
    }
    kept = {name: value for name, value in metadata.items() if value is not None}
    path = folder / "tiny.gguf"
    write_gguf(path, kept, checkpoint.weights.values())
    return path


def with_vocabulary(folder: Path) -> Path:
    """Give a folder of Hugging Face's kind the same tokenizer, which GGUF has, too."""
    whole, said = hub_vocabulary(VOCABULARY, Tokenizer.from_metadata(VOCABULARY))
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return folder
