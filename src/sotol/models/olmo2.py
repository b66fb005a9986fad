"""OLMo 2 and 3: no norms before the blocks but after them, and one over all queries and one over all keys of a token.

Papers: OLMo team 2025 (arXiv 2501.00656); Olmo 3's windowed layers, which rotate without its YaRN, are from Hugging
Face's modeling_olmo3.py and llama.cpp's models/olmo2.cpp. GGUF calls both olmo2.
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, F feed-forward width,
V vocabulary.
"""

from typing import NamedTuple

from sotol.formats.weights import Checkpoint
from sotol.models.binding.bind import Name, Table
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.binding.sizes import Sizes
from sotol.models.model import Layer, Model, StepSymbols
from sotol.models.parts import decoder
from sotol.models.parts.decoder import (
    WINDOW_KEYS,
    Usual,
    attention,
    feed_forward,
    heads,
    logits,
    project,
    read_usual,
    read_windows,
    rotated,
)
from sotol.models.parts.rope import ROPE_KEYS, Rope
from sotol.program import ops
from sotol.program.program import Constant, Tensor

__all__ = ["KEYS", "WEIGHTS", "WHOLE_NORMS", "Config", "attend", "forward"]

WHOLE_NORMS: Table = {
    "blk.{}.attn_q_norm": Name("model.layers.{}.self_attn.q_norm", "H*d"),
    "blk.{}.attn_k_norm": Name("model.layers.{}.self_attn.k_norm", "K*d"),
}
WEIGHTS: Table = {
    **decoder.OUTER,
    **decoder.ATTENTION,
    **decoder.NETWORK,
    **WHOLE_NORMS,
    "blk.{}.post_attention_norm": Name("model.layers.{}.post_attention_layernorm", "D"),
    "blk.{}.post_ffw_norm": Name("model.layers.{}.post_feedforward_layernorm", "D"),
}

# Olmo 3 has a rotation for each kind of layers, OLMo 2 one.
KEYS: Keys = {
    **decoder.KEYS,
    **WINDOW_KEYS,
    **{key: (*(place.replace("rope_parameters.", "rope_parameters.full_attention.") for place in places[:1]), *places)
       for key, places in ROPE_KEYS.items()},
    "rope.freq_base_swa": ("rope_parameters.sliding_attention.rope_theta",),
}  # fmt: skip


class Config(NamedTuple):
    """What the metadata says of an OLMo 2."""

    sizes: Sizes
    eps: float
    windows: tuple[int, ...]  # of each layer: keys that a token sees, itself included; 0: all
    rope: Rope  # of layers that see everything
    local_rope: Rope  # of windowed layers

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        metadata.expect("hidden_act", "silu")
        metadata.expect("rope_parameters.sliding_attention.rope_type", "default")
        s, eps, rope = read_usual(metadata, checkpoint)
        return cls(
            s,
            eps,
            read_windows(metadata, s.layers, 4),
            rope,
            Rope(rope.pairs, metadata.number("rope.freq_base_swa", rope.base)),
        )


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    full, local = c.rope.table("rope", m.context), c.local_rope.table("rope_local", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        window = c.windows[w.index]
        h = attend(x, w, c, step, local if window else full, window=window)
        x = x + ops.rms_norm(h, w("post_attention_norm"), eps=c.eps)
        x = x + ops.rms_norm(feed_forward(x, w, "silu"), w("post_ffw_norm"), eps=c.eps)
    return logits(m, x, step, c.eps)


def attend(h: Tensor, w: Layer, c: Usual, step: StepSymbols, table: Constant, *, window: int = 0) -> Tensor:
    """Self-attention of a layer over its input, h [T, D], with norms over all queries and over all keys of a token."""
    s = c.sizes.of(w.index)
    q = ops.rms_norm(project(h, w, "attn_q"), w("attn_q_norm"), eps=c.eps).reshape("T", s.heads, s.head_width)
    k = ops.rms_norm(project(h, w, "attn_k"), w("attn_k_norm"), eps=c.eps).reshape("T", s.kv_heads, s.head_width)
    v = heads(h, w, "attn_v", s.kv_heads)
    q, k = rotated(q, k, step, table, "halves")
    return attention(q, k, v, w, step, window=window)
