"""Qwen2 and Qwen2.5: Llama's decoder with biases on queries, keys and values.

Paper: Yang et al. 2024 (arXiv 2407.10671).
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, F feed-forward width,
V vocabulary.
"""

from sotol.models.binding.bind import Name, Table
from sotol.models.model import Layer, Model, StepSymbols
from sotol.models.parts import decoder
from sotol.models.parts.decoder import (
    KEYS,
    Config,
    Usual,
    attention,
    feed_forward,
    logits,
    queries_keys_values,
    rotated,
)
from sotol.program import ops
from sotol.program.program import Constant, Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "attend", "forward"]

WEIGHTS: Table = {
    **decoder.WEIGHTS,
    "output.bias": Name("lm_head.bias", "V"),  # llama.cpp's models/qwen2.cpp adds it where a file has it
}


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    table = c.rope.table("rope", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        x = x + attend(ops.rms_norm(x, w("attn_norm"), eps=c.eps), w, c, step, table)
        x = x + feed_forward(ops.rms_norm(x, w("ffn_norm"), eps=c.eps), w, "silu")
    x = logits(m, x, step, c.eps)  # [R, V]
    return ops.add_bias(x, m.w("output.bias")) if m.has("output.bias") else x


def attend(h: Tensor, w: Layer, c: Usual, step: StepSymbols, table: Constant) -> Tensor:
    """Self-attention of a layer over its input's norm, h [T, D]."""
    q, k, v = queries_keys_values(h, w, c.sizes.of(w.index), biased=True)
    q, k = rotated(q, k, step, table, "halves")
    return attention(q, k, v, w, step)
