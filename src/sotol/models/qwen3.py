"""Qwen3, the dense ones: Llama's decoder with a norm on each head of queries and keys.

Paper: Qwen team 2025 (arXiv 2505.09388).
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, F feed-forward width,
V vocabulary.
"""

from sotol.models.binding.bind import Table
from sotol.models.model import Layer, Model, StepSymbols
from sotol.models.parts import decoder
from sotol.models.parts.decoder import KEYS, Config, Usual, attention, feed_forward, heads, logits, rotated
from sotol.program import ops
from sotol.program.program import Constant, Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "attend", "forward"]

WEIGHTS: Table = {**decoder.WEIGHTS, **decoder.HEAD_NORMS}


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    table = c.rope.table("rope", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        x = x + attend(ops.rms_norm(x, w("attn_norm"), eps=c.eps), w, c, step, table)
        x = x + feed_forward(ops.rms_norm(x, w("ffn_norm"), eps=c.eps), w, "silu")
    return logits(m, x, step, c.eps)


def attend(h: Tensor, w: Layer, c: Usual, step: StepSymbols, table: Constant) -> Tensor:
    """Self-attention of a layer over its input's norm, h [T, D]."""
    s = c.sizes.of(w.index)
    q = ops.rms_norm(heads(h, w, "attn_q", s.heads), w("attn_q_norm"), eps=c.eps)  # [T, H, d]
    k = ops.rms_norm(heads(h, w, "attn_k", s.kv_heads), w("attn_k_norm"), eps=c.eps)  # [T, K, d]
    v = heads(h, w, "attn_v", s.kv_heads)
    q, k = rotated(q, k, step, table, "halves")
    return attention(q, k, v, w, step)
