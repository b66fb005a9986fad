"""EXAONE 4: norms after the blocks and on each head of queries and keys; of the large one, only windowed layers rotate.

Paper: LG AI Research 2025 (arXiv 2507.11407); facts that it leaves out are from Hugging Face's modeling_exaone4.py.
llama.cpp has the windows only in models of 64 layers; Hugging Face in all whose config has some.
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, F feed-forward width,
V vocabulary.
"""

from collections.abc import Mapping
from typing import NamedTuple

from sotol.formats.weights import Checkpoint
from sotol.models import decoder
from sotol.models.bind import Name, Table
from sotol.models.decoder import (
    WINDOW_KEYS,
    Sizes,
    attention,
    feed_forward,
    logits,
    queries_keys_values,
    read_sizes,
    read_windows,
    rotated,
)
from sotol.models.metadata import Keys, Metadata
from sotol.models.model import Layer, Model, StepSymbols
from sotol.models.rope import Rope, read_rope
from sotol.program import ops
from sotol.program.program import Constant, Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS: Table = {
    **{key: name for key, name in decoder.WEIGHTS.items() if key not in ("blk.{}.attn_norm", "blk.{}.ffn_norm")},
    "blk.{}.attn_q_norm": Name("model.layers.{}.self_attn.q_norm", "d"),
    "blk.{}.attn_k_norm": Name("model.layers.{}.self_attn.k_norm", "d"),
    "blk.{}.post_attention_norm": Name("model.layers.{}.post_attention_layernorm", "D"),
    "blk.{}.post_ffw_norm": Name("model.layers.{}.post_feedforward_layernorm", "D"),
    "rope_freqs": Name("", "r"),  # as Llama 3's
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
        s = read_sizes(metadata, checkpoint)
        windows = read_windows(metadata, s.layers, 4)
        hybrid = metadata.integer("attention.sliding_window", 0, least=0) > 0
        return cls(
            s,
            metadata.number("attention.layer_norm_rms_epsilon"),
            windows,
            tuple(window > 0 or not hybrid for window in windows),
            read_rope(metadata, s.head_width),
        )

    @property
    def layers(self) -> int:
        return self.sizes.layers

    def dims(self, layer: int | None) -> Mapping[str, int]:
        return {**self.sizes.letters(layer), "r": self.rope.pairs}


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    table = c.rope.table("rope", m.context, m.divisors("rope_freqs"))
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        x = x + ops.rms_norm(attend(c, w, table, x, step), w("post_attention_norm"), eps=c.eps)
        x = x + ops.rms_norm(feed_forward(x, w, "silu"), w("post_ffw_norm"), eps=c.eps)
    return logits(m, x, step, c.eps)


def attend(c: Config, w: Layer, table: Constant, h: Tensor, step: StepSymbols) -> Tensor:
    """Self-attention of a layer over its input, h [T, D]."""
    q, k, v = queries_keys_values(h, w, c.sizes.of(w.index))
    q, k = ops.rms_norm(q, w("attn_q_norm"), eps=c.eps), ops.rms_norm(k, w("attn_k_norm"), eps=c.eps)
    if c.rotates[w.index]:
        q, k = rotated(q, k, step, table, "halves")
    return attention(q, k, v, w, step, window=c.windows[w.index])
