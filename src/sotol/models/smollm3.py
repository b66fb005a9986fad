"""SmolLM3: Llama's decoder where some layers, each fourth one, do not rotate queries and keys.

Source: Hugging Face's modeling_smollm3.py; the layers without RoPE are those of Yang et al. 2025 (arXiv 2501.18795).
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, F feed-forward width,
V vocabulary.
"""

from typing import NamedTuple

from sotol.formats.weights import Checkpoint
from sotol.models import llama
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.binding.sizes import Sizes
from sotol.models.model import Model, StepSymbols
from sotol.models.parts import decoder
from sotol.models.parts.decoder import attend, feed_forward, logits
from sotol.models.parts.rope import Rope
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS = llama.WEIGHTS
# GGUF has no key for the layers that rotate: each fourth one does not. config.json has 1 for layers that do.
KEYS: Keys = {**decoder.KEYS, "rope.layers": ("no_rope_layers", "no_rope_layer_interval")}
PERIOD = 4


class Config(NamedTuple):
    """What the metadata says of a SmolLM3."""

    sizes: Sizes
    eps: float
    rope: Rope
    rotates: tuple[bool, ...]  # each layer

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        sizes, eps, rope = decoder.Config.read(metadata, checkpoint)
        return cls(sizes, eps, rope, metadata.layer_flags("rope.layers", sizes.layers, PERIOD, ("rope", "none")))


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    table = c.rope.table("rope", m.context, m.divisors("rope_freqs"))
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        h = ops.rms_norm(x, w("attn_norm"), eps=c.eps)
        x = x + attend(h, w, c.sizes.of(w.index), step, table if c.rotates[w.index] else None, "pairs")
        x = x + feed_forward(ops.rms_norm(x, w("ffn_norm"), eps=c.eps), w, "silu")
    return logits(m, x, step, c.eps)
