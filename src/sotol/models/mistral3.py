"""Mistral's models by Hugging Face's names, and Ministral 3: Llama's decoder with windows, and queries that grow.

Papers: Jiang et al. 2023 (arXiv 2310.06825); the factor on queries of late positions is Llama 4's (Nakanishi 2025,
arXiv 2501.19399), as in Hugging Face's modeling_ministral3.py. GGUF calls Ministral 3 mistral3, and all others llama.
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, F feed-forward width,
V vocabulary.
"""

from typing import NamedTuple

import numpy as np

from sotol import numerics
from sotol.formats.weights import Checkpoint
from sotol.models import llama
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.binding.sizes import Sizes
from sotol.models.model import Layer, Model, StepSymbols
from sotol.models.parts import decoder
from sotol.models.parts.decoder import (
    WINDOW_KEYS,
    attention,
    feed_forward,
    logits,
    queries_keys_values,
    read_usual,
    read_windows,
    rotated,
)
from sotol.models.parts.rope import Rope
from sotol.program import ops
from sotol.program.program import Constant, Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS = llama.WEIGHTS
KEYS: Keys = {
    **decoder.KEYS,
    **WINDOW_KEYS,
    "attention.temperature_scale": ("rope_parameters.llama_4_scaling_beta",),
}


class Config(NamedTuple):
    """What the metadata says of a Mistral."""

    sizes: Sizes
    eps: float
    windows: tuple[int, ...]  # of each layer: keys that a token sees, itself included; 0: all
    rope: Rope
    growth: float  # of queries, with the logarithm of how many spans of positions came before; 0: none
    span: int  # positions whose queries grow alike

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        metadata.expect("hidden_act", "silu")
        s, eps, rope = read_usual(metadata, checkpoint)
        growth = float(np.float32(metadata.number("attention.temperature_scale", 0.0, zero=True)))  # as GGUF has it
        return cls(
            s,
            eps,
            read_windows(metadata, s.layers, 0),
            rope,
            growth,
            metadata.integer("rope.scaling.original_context_length") if growth else 0,
        )

    def temperature(self, context: int) -> Constant | None:
        """What queries are multiplied with at each position, float32 [context]; None where they do not grow."""
        if not self.growth:
            return None
        before = np.arange(context) // self.span
        return Constant("temperature", (1 + self.growth * numerics.log(1.0 + before)).astype(np.float32))


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    table, temperature = c.rope.table("rope", m.context, m.divisors("rope_freqs")), c.temperature(m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        x = x + attend(ops.rms_norm(x, w("attn_norm"), eps=c.eps), w, c, step, table, temperature)
        x = x + feed_forward(ops.rms_norm(x, w("ffn_norm"), eps=c.eps), w, "silu")
    return logits(m, x, step, c.eps)


def attend(h: Tensor, w: Layer, c: Config, step: StepSymbols, table: Constant, temperature: Constant | None) -> Tensor:
    """Self-attention of a layer over its input's norm, h [T, D]."""
    q, k, v = queries_keys_values(h, w, c.sizes.of(w.index))
    q, k = rotated(q, k, step, table, "pairs")
    if temperature is not None:
        q = ops.scale_by_position(q, step.positions, temperature)
    return attention(q, k, v, w, step, window=c.windows[w.index])
