"""Seed-OSS: Llama's decoder by other names, with biases on queries, keys and values.

Source: Hugging Face's modeling_seed_oss.py (ByteDance Seed team 2025).
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, F feed-forward width,
V vocabulary.
"""

from sotol.models.binding.bind import Name, Table
from sotol.models.model import Model, StepSymbols
from sotol.models.parts import decoder
from sotol.models.parts.decoder import KEYS, Config, attend, feed_forward, logits
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS: Table = {
    **decoder.OUTER,
    "blk.{}.attn_norm": Name("model.layers.{}.input_layernorm", "D"),
    "blk.{}.post_attention_norm": Name("model.layers.{}.post_attention_layernorm", "D"),
    **decoder.ATTENTION,
    **decoder.NETWORK,
    **decoder.NETWORK_BIASES,
}


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    table = c.rope.table("rope", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        x = x + attend(ops.rms_norm(x, w("attn_norm"), eps=c.eps), w, c.sizes.of(w.index), step, table, "halves")
        x = x + feed_forward(ops.rms_norm(x, w("post_attention_norm"), eps=c.eps), w, "silu")
    return logits(m, x, step, c.eps)
