"""Hunyuan, the dense ones: Llama's decoder with a norm on each head of queries and keys, after they are rotated.

Source: Hugging Face's modeling_hunyuan_v1_dense.py (Tencent Hunyuan team 2025).
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, F feed-forward width,
V vocabulary.
"""

from sotol.formats.weights import Checkpoint
from sotol.models.binding.bind import Name, Table
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.binding.sizes import read_sizes
from sotol.models.model import Layer, Model, StepSymbols
from sotol.models.parts import decoder
from sotol.models.parts.decoder import Usual, attention, feed_forward, logits, queries_keys_values, rotated
from sotol.models.parts.rope import read_ntk
from sotol.program import ops
from sotol.program.program import Constant, Tensor

__all__ = ["HEAD_NORMS", "KEYS", "WEIGHTS", "Config", "attend", "forward"]

HEAD_NORMS: Table = {
    "blk.{}.attn_q_norm": Name("model.layers.{}.self_attn.query_layernorm", "d"),
    "blk.{}.attn_k_norm": Name("model.layers.{}.self_attn.key_layernorm", "d"),
}
WEIGHTS: Table = {**decoder.WEIGHTS, **HEAD_NORMS}
KEYS: Keys = {**decoder.KEYS, "rope.scaling.alpha": ("rope_parameters.alpha", "rope_scaling.alpha")}


class Config(decoder.Config):
    """The usual config of a decoder."""

    __slots__ = ()

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> decoder.Config:
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        metadata.expect("hidden_act", "silu")
        sizes = read_sizes(metadata, checkpoint)
        return cls(sizes, metadata.number("attention.layer_norm_rms_epsilon"), read_ntk(metadata, sizes.head_width))


def forward(m: Model, c: decoder.Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    table = c.rope.table("rope", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        x = x + attend(ops.rms_norm(x, w("attn_norm"), eps=c.eps), w, c, step, table)
        x = x + feed_forward(ops.rms_norm(x, w("ffn_norm"), eps=c.eps), w, "silu")
    return logits(m, x, step, c.eps)


def attend(h: Tensor, w: Layer, c: Usual, step: StepSymbols, table: Constant) -> Tensor:
    """Self-attention of a layer over its input's norm, h [T, D]."""
    q, k, v = queries_keys_values(h, w, c.sizes.of(w.index))
    q, k = rotated(q, k, step, table, "halves")
    q, k = ops.rms_norm(q, w("attn_q_norm"), eps=c.eps), ops.rms_norm(k, w("attn_k_norm"), eps=c.eps)
    return attention(q, k, v, w, step)
