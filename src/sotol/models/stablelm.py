"""StableLM 3B and StableLM 2 1.6B: Llama's decoder with layer norms, and a quarter of a head rotates.

Source: Hugging Face's modeling_stablelm.py (Bellagente et al. 2024, arXiv 2402.17834). StableLM 2 12B, with a norm for
each head and its blocks side by side, is not one of them.
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, F feed-forward width,
V vocabulary.
"""

from sotol.formats.weights import Checkpoint
from sotol.models.binding.bind import Table
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.model import Model, StepSymbols
from sotol.models.parts import decoder, layer_norms
from sotol.models.parts.decoder import attend, feed_forward
from sotol.models.parts.layer_norms import norm, weights
from sotol.models.parts.rope import PARTIAL
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS: Table = {**weights(), **decoder.NETWORK}
KEYS: Keys = {**layer_norms.KEYS, "rope.partial_rotary_factor": PARTIAL}


class Config(layer_norms.Config):
    """The usual config of a decoder with layer norms."""

    __slots__ = ()

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> layer_norms.Config:
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        for place, wanted in (("hidden_act", "silu"), ("qk_layernorm", False), ("use_parallel_residual", False)):
            metadata.expect(place, wanted)
        return super().read(metadata, checkpoint)


def forward(m: Model, c: layer_norms.Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    table = c.rope.table("rope", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        h, s, window = norm(x, w, "attn_norm", c.eps), c.sizes.of(w.index), c.windows[w.index]
        x = x + attend(h, w, s, step, table, "halves", window=window)
        x = x + feed_forward(norm(x, w, "ffn_norm", c.eps), w, "silu")
    return layer_norms.logits(m, x, step, c.eps)
