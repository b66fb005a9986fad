"""Qwen2 and Qwen2.5: Llama's decoder with biases on queries, keys and values.

Paper: Yang et al. 2024 (arXiv 2407.10671).
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, F feed-forward width,
V vocabulary.
"""

from sotol.models import decoder
from sotol.models.bind import Name, Table
from sotol.models.decoder import KEYS, Config, feed_forward, heads, project
from sotol.models.model import Layer, Model, StepSymbols
from sotol.program import ops
from sotol.program.memory import Paged
from sotol.program.program import Constant, Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS: Table = {
    **decoder.WEIGHTS,
    "output.bias": Name("lm_head.bias", "V"),  # llama.cpp's models/qwen2.cpp adds it where a file has it
}


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    table = c.rope.table("rope", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        x = x + attend(c, w, table, ops.rms_norm(x, w("attn_norm"), eps=c.eps), step)
        x = x + feed_forward(ops.rms_norm(x, w("ffn_norm"), eps=c.eps), w, "silu")
    x = ops.rms_norm(ops.rows(x, step.logit_rows), m.w("output_norm"), eps=c.eps)  # [R, D]
    logits = ops.linear(x, m.w("output", otherwise="token_embd"))
    return ops.add_bias(logits, m.w("output.bias")) if m.has("output.bias") else logits


def attend(c: Config, w: Layer, table: Constant, h: Tensor, step: StepSymbols) -> Tensor:
    """Self-attention of a layer over its input's norm, h [T, D]."""
    s = c.sizes.of(w.index)
    q = heads(h, w, "attn_q", s.heads, biased=True)  # [T, H, d]
    k = heads(h, w, "attn_k", s.kv_heads, biased=True)  # [T, K, d]
    v = heads(h, w, "attn_v", s.kv_heads, biased=True)
    q, k = (ops.rope(x, step.positions, table, style="halves") for x in (q, k))
    cache = w.cache(Paged(s.kv_heads, s.head_width, s.head_width))
    ops.remember(k, v, cache, step.step)
    out = ops.attention(q, cache, step.step, scale=s.head_width**-0.5)  # [T, H, d]
    return project(out.reshape("T", s.heads * s.head_width), w, "attn_output")
