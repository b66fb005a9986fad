"""EXAONE 4: norms after the blocks and on each head of queries and keys; of the large one, only windowed layers rotate.

Paper: LG AI Research 2025 (arXiv 2507.11407); facts that it leaves out are from Hugging Face's modeling_exaone4.py.
llama.cpp has the windows only in models of 64 layers; Hugging Face in all whose config has some.
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

WEIGHTS: Table = {
    **decoder.OUTER,
    **decoder.ATTENTION,
    **decoder.HEAD_NORMS,
    **decoder.NETWORK,
    **decoder.DIVISORS,
    "blk.{}.post_attention_norm": Name("model.layers.{}.post_attention_layernorm", "D"),
    "blk.{}.post_ffw_norm": Name("model.layers.{}.post_feedforward_layernorm", "D"),
}
KEYS: Keys = {**decoder.KEYS, **WINDOW_KEYS}


class Config(NamedTuple):
    """What the metadata says of an EXAONE 4."""

    sizes: Sizes
    eps: float
    windows: tuple[int, ...]  # of each layer: keys that a token sees, itself included; 0: all
    rotates: tuple[bool, ...]  # each layer
    rope: Rope

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        metadata.expect("hidden_act", "silu")
        s, eps, rope = read_usual(metadata, checkpoint)
        windows = read_windows(metadata, s.layers, 4)
        hybrid = metadata.integer("attention.sliding_window", 0, least=0) > 0
        return cls(s, eps, windows, tuple(window > 0 or not hybrid for window in windows), rope)


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    table = c.rope.table("rope", m.context, m.divisors("rope_freqs"))
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        x = x + ops.rms_norm(attend(x, w, c, step, table), w("post_attention_norm"), eps=c.eps)
        x = x + ops.rms_norm(feed_forward(x, w, "silu"), w("post_ffw_norm"), eps=c.eps)
    return logits(m, x, step, c.eps)


def attend(h: Tensor, w: Layer, c: Config, step: StepSymbols, table: Constant) -> Tensor:
    """Self-attention of a layer over its input, h [T, D]."""
    q, k, v = queries_keys_values(h, w, c.sizes.of(w.index))
    q, k = ops.rms_norm(q, w("attn_q_norm"), eps=c.eps), ops.rms_norm(k, w("attn_k_norm"), eps=c.eps)
    if c.rotates[w.index]:
        q, k = rotated(q, k, step, table, "halves")
    return attention(q, k, v, w, step, window=c.windows[w.index])
