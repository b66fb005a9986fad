"""What decoders with layer norms have in common: names of weights, the config, the norm, the head, the usual forward.

T tokens, R rows with logits, D width, V vocabulary.
"""

from collections.abc import Callable
from typing import NamedTuple

from sotol.formats.weights import Checkpoint, Weight
from sotol.models.binding.bind import Name, Table
from sotol.models.binding.changes import Change
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.binding.sizes import Sizes, read_sizes
from sotol.models.model import Model, StepSymbols
from sotol.models.parts import decoder
from sotol.models.parts.decoder import WINDOW_KEYS, attend, plain_feed_forward, read_windows
from sotol.models.parts.rope import Rope, read_rope
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["KEYS", "Config", "forward", "logits", "norm", "weights"]

KEYS: Keys = {
    **decoder.KEYS,
    **WINDOW_KEYS,
    "attention.layer_norm_epsilon": ("layer_norm_eps", "norm_epsilon", "norm_eps"),
}


def weights(change: Change | None = None) -> Table:
    """The usual names but for the network's, with biases of norms. change: of the norms' weights, to GGUF's."""
    return {
        **decoder.OUTER,
        **decoder.ATTENTION,
        "output_norm": Name("model.norm", "D", change),
        "output_norm.bias": Name("model.norm.bias", "D"),
        "blk.{}.attn_norm": Name("model.layers.{}.input_layernorm", "D", change),
        "blk.{}.attn_norm.bias": Name("model.layers.{}.input_layernorm.bias", "D"),
        "blk.{}.ffn_norm": Name("model.layers.{}.post_attention_layernorm", "D", change),
        "blk.{}.ffn_norm.bias": Name("model.layers.{}.post_attention_layernorm.bias", "D"),
    }


class Config(NamedTuple):
    """What the metadata says of such a decoder."""

    sizes: Sizes
    eps: float
    windows: tuple[int, ...]  # of each layer: keys that a token sees, itself included; 0: all
    rope: Rope

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        s = read_sizes(metadata, checkpoint)
        return cls(
            s,
            metadata.number("attention.layer_norm_epsilon"),
            read_windows(metadata, s.layers, 0),
            read_rope(metadata, s.head_width),
        )


def forward(m: Model, c: Config, step: StepSymbols, act: str) -> Tensor:
    """Logits [R, V] of such a decoder whose feed-forward networks have no gate."""
    table = c.rope.table("rope", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        h, s, window = norm(x, w, "attn_norm", c.eps), c.sizes.of(w.index), c.windows[w.index]
        x = x + attend(h, w, s, step, table, "halves", window=window)
        x = x + plain_feed_forward(norm(x, w, "ffn_norm", c.eps), w, act)
    return logits(m, x, step, c.eps)


def norm(x: Tensor, w: Callable[[str], Weight], name: str, eps: float) -> Tensor:
    """The layer norm of this name, with its bias."""
    return ops.add_bias(ops.layer_norm(x, w(name), eps=eps), w(f"{name}.bias"))


def logits(m: Model, x: Tensor, step: StepSymbols, eps: float) -> Tensor:
    """The norm of the rows that are wanted of x [T, D], times the head, which may be the embedding: [R, V]."""
    x = norm(ops.rows(x, step.logit_rows), m.w, "output_norm", eps)  # [R, D]
    return ops.linear(x, m.w("output", otherwise="token_embd"))
