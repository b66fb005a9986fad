"""Llama: a pre-norm decoder with grouped-query attention, RoPE and SwiGLU. Llama 2 and 3, SmolLM2, Mistral.

Papers: Touvron et al. 2023 (arXiv 2307.09288); Llama team 2024 (arXiv 2407.21783).
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, F feed-forward width,
V vocabulary.
"""

from sotol.models.binding.bind import Name, Table
from sotol.models.binding.changes import pairs_together
from sotol.models.model import Model, StepSymbols
from sotol.models.parts import decoder
from sotol.models.parts.decoder import KEYS, Config, attend, feed_forward, logits
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["ATTENTION", "KEYS", "WEIGHTS", "Config", "forward"]

# GGUF stores queries and keys with the channels of a pair side by side, as Meta's own checkpoints do.
ATTENTION: Table = {
    **decoder.ATTENTION,
    "blk.{}.attn_q": Name("model.layers.{}.self_attn.q_proj", "H*d D", pairs_together),
    "blk.{}.attn_k": Name("model.layers.{}.self_attn.k_proj", "K*d D", pairs_together),
    "blk.{}.attn_q.bias": Name("model.layers.{}.self_attn.q_proj.bias", "H*d", pairs_together),
    "blk.{}.attn_k.bias": Name("model.layers.{}.self_attn.k_proj.bias", "K*d", pairs_together),
}
WEIGHTS: Table = {
    **decoder.OUTER,
    **decoder.NORMS,
    **ATTENTION,
    **decoder.NETWORK,
    **decoder.NETWORK_BIASES,
    **decoder.DIVISORS,
}


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    table = c.rope.table("rope", m.context, m.divisors("rope_freqs"))
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        x = x + attend(ops.rms_norm(x, w("attn_norm"), eps=c.eps), w, c.sizes.of(w.index), step, table, "pairs")
        x = x + feed_forward(ops.rms_norm(x, w("ffn_norm"), eps=c.eps), w, "silu")
    return logits(m, x, step, c.eps)
