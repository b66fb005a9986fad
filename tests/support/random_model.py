"""A model that says anything: random logits over the 256 bytes, for tests of what answers may be at all.

Its logits depend on the tokens so far and on nothing else. Bytes that end things, as quotes and brackets, are likelier
than others, so that short answers are complete.
"""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tests.support.fake_runner import FakeRunner

from sotol.loading import Loaded, LoadOptions
from sotol.program.step import Limits
from sotol.quant import Float32Array
from sotol.tokenizers import Tokenizer
from sotol.tokenizers.bpe import CHARACTER_OF_BYTE

__all__ = ["random_model"]

ENDING = b'"]}'
WORDS = ('{"', '":', '",', '"},', "true", "null", "\\u00", "e1", "0.", "-1", "ab", "\u00e4")
NORMAL, CONTROL = 1, 3


def random_model(*, context: int = 1024, sequences: int = 32, sharp: float = 3.0) -> Loaded:
    """A loaded model. sharp: how far apart logits are."""
    words = ["".join(CHARACTER_OF_BYTE[b] for b in word.encode()) for word in WORDS]
    tokens = [*CHARACTER_OF_BYTE, *words, "<|end|>"]
    fields: dict[str, object] = {
        "general.architecture": "llama",
        "general.name": "Random",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [NORMAL] * (len(tokens) - 1) + [CONTROL],
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.eos_token_id": len(tokens) - 1,
    }
    bias = np.zeros(len(tokens), np.float32)
    bias[list(ENDING)] = 2 * sharp
    bias[-1] = 2 * sharp

    def logits(seen: Sequence[Sequence[int]]) -> Float32Array:
        seed = zlib.crc32(np.array(seen[0], np.int64).tobytes())
        row = sharp * np.random.default_rng(seed).standard_normal(len(tokens), np.float32)
        return row + bias

    limits = Limits(512, sequences, sequences, context, (sequences * (context // 16 + 2),))
    tokenizer = Tokenizer.from_metadata(fields, "random", logits=len(tokens))
    runner = FakeRunner(limits, logits=logits, vocabulary=len(tokens))
    return Loaded(Path("random.gguf"), fields, LoadOptions(), context, len(tokens), runner, tokenizer)
