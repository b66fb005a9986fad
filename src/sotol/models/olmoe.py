"""OLMoE (1B-7B): a decoder with experts, and norms over all heads of queries and of keys together.

Paper: Muennighoff et al. 2024 (arXiv 2409.02060). The chosen experts' weights are not divided by their sum.
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, V vocabulary.
"""

from sotol.formats.weights import Checkpoint
from sotol.models import experts
from sotol.models.bind import Name, Table
from sotol.models.decoder import attention, heads, logits, project, rotated
from sotol.models.experts import mixture, read_decoder, read_experts
from sotol.models.metadata import Keys, Metadata
from sotol.models.model import Layer, Model, StepSymbols
from sotol.program import ops
from sotol.program.program import Constant, Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS: Table = {
    **experts.WEIGHTS,
    "blk.{}.attn_q_norm": Name("model.layers.{}.self_attn.q_norm", "H*d"),
    "blk.{}.attn_k_norm": Name("model.layers.{}.self_attn.k_norm", "K*d"),
}

# config.json has the experts' width where others have that of the feed-forward network, and so has GGUF.
KEYS: Keys = {**experts.KEYS, "expert_feed_forward_length": ("intermediate_size",)}


class Config(experts.Config):
    """The decoder's, and that of the experts."""

    __slots__ = ()

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        metadata.expect("clip_qkv", None)
        decoder = read_decoder(metadata, checkpoint)
        return cls(decoder, read_experts(metadata, normalised=False, width=decoder.sizes.ffn_width[0]))


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    eps, table = c.decoder.eps, c.rope.table("rope", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        x = x + attend(c, w, table, ops.rms_norm(x, w("attn_norm"), eps=eps), step)
        x = x + mixture(ops.rms_norm(x, w("ffn_norm"), eps=eps), w, c.experts, "silu")
    return logits(m, x, step, eps)


def attend(c: experts.Config, w: Layer, table: Constant, h: Tensor, step: StepSymbols) -> Tensor:
    """Self-attention of a layer over its input's norm, h [T, D]."""
    s, eps = c.sizes.of(w.index), c.decoder.eps
    q = ops.rms_norm(project(h, w, "attn_q"), w("attn_q_norm"), eps=eps).reshape("T", s.heads, s.head_width)
    k = ops.rms_norm(project(h, w, "attn_k"), w("attn_k_norm"), eps=eps).reshape("T", s.kv_heads, s.head_width)
    v = heads(h, w, "attn_v", s.kv_heads)
    q, k = rotated(q, k, step, table, "halves")
    return attention(q, k, v, w, step)
