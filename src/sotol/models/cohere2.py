"""Command R7B and Command A: both blocks of a layer read one layer norm; windowed layers rotate, the others do not.

Paper: Cohere 2025 (arXiv 2504.00698); facts that it leaves out are from Hugging Face's modeling_cohere2.py.
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, F feed-forward width,
V vocabulary.
"""

from typing import NamedTuple

from sotol.formats.weights import Checkpoint
from sotol.models.binding.bind import Table
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.binding.sizes import Sizes, read_sizes
from sotol.models.model import Model, StepSymbols
from sotol.models.parts import decoder
from sotol.models.parts.decoder import WINDOW_KEYS, attend, feed_forward, read_windows
from sotol.models.parts.rope import Rope, read_rope
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward", "logits"]

NORM: Table = {"blk.{}.attn_norm": decoder.NORMS["blk.{}.attn_norm"]}
WEIGHTS: Table = {**decoder.OUTER, **NORM, **decoder.ATTENTION, **decoder.NETWORK}
KEYS: Keys = {
    **decoder.KEYS,
    **WINDOW_KEYS,
    "attention.layer_norm_epsilon": ("layer_norm_eps",),
    "logit_scale": ("logit_scale",),
}


class Config(NamedTuple):
    """What the metadata says of a Command R7B."""

    sizes: Sizes
    eps: float
    windows: tuple[int, ...]  # of each layer: keys that a token sees, itself included; 0: all, and no RoPE
    rope: Rope
    logit_scale: float  # that logits are multiplied with

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        metadata.expect("hidden_act", "silu")
        s = read_sizes(metadata, checkpoint)
        return cls(
            s,
            metadata.number("attention.layer_norm_epsilon"),
            read_windows(metadata, s.layers, 4, None),
            read_rope(metadata, s.head_width),
            metadata.number("logit_scale"),
        )


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    table = c.rope.table("rope", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        h = ops.layer_norm(x, w("attn_norm"), eps=c.eps)
        s, window = c.sizes.of(w.index), c.windows[w.index]
        a = attend(h, w, s, step, table if window else None, "pairs", window=window)
        x = x + a + feed_forward(h, w, "silu")
    return logits(m, x, step, c.eps, c.logit_scale)


def logits(m: Model, x: Tensor, step: StepSymbols, eps: float, scale: float) -> Tensor:
    """The norm of the rows that are wanted of x [T, D], times the head (or the embedding) and scale: [R, V]."""
    x = ops.layer_norm(ops.rows(x, step.logit_rows), m.w("output_norm"), eps=eps)  # [R, D]
    return ops.scale(ops.linear(x, m.w("output", otherwise="token_embd")), factor=scale)
