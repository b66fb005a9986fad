"""Command R and Aya 23: both blocks of a layer read one layer norm, and all layers rotate.

Source: Hugging Face's modeling_cohere.py (Cohere 2024). Command R+, with a norm for each head, is not one of them.
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, F feed-forward width,
V vocabulary.
"""

from typing import NamedTuple

from sotol.formats.weights import Checkpoint
from sotol.models import cohere2
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.binding.sizes import Sizes, read_sizes
from sotol.models.model import Model, StepSymbols
from sotol.models.parts import decoder
from sotol.models.parts.decoder import attend, feed_forward
from sotol.models.parts.rope import Rope, read_rope
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS = cohere2.WEIGHTS
KEYS: Keys = {
    **decoder.KEYS,
    "attention.layer_norm_epsilon": ("layer_norm_eps",),
    "logit_scale": ("logit_scale",),
}


class Config(NamedTuple):
    """What the metadata says of a Command R."""

    sizes: Sizes
    eps: float
    rope: Rope
    logit_scale: float  # that logits are multiplied with

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        metadata.expect("hidden_act", "silu")
        metadata.expect("use_qk_norm", False)
        s = read_sizes(metadata, checkpoint)
        eps, scale = metadata.number("attention.layer_norm_epsilon"), metadata.number("logit_scale")
        return cls(s, eps, read_rope(metadata, s.head_width), scale)


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    table = c.rope.table("rope", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        h = ops.layer_norm(x, w("attn_norm"), eps=c.eps)
        x = x + attend(h, w, c.sizes.of(w.index), step, table, "pairs") + feed_forward(h, w, "silu")
    return cohere2.logits(m, x, step, c.eps, c.logit_scale)
