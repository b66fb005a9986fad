"""OLMoE (1B-7B): a decoder with experts, and OLMo 2's norms over all heads of queries and of keys.

Paper: Muennighoff et al. 2024 (arXiv 2409.02060). The chosen experts' weights are not divided by their sum.
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, V vocabulary.
"""

from sotol.formats.weights import Checkpoint
from sotol.models import olmo2
from sotol.models.binding.bind import Table
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.model import Model, StepSymbols
from sotol.models.olmo2 import attend
from sotol.models.parts import mixtures
from sotol.models.parts.decoder import logits
from sotol.models.parts.experts import mixture, read_experts
from sotol.models.parts.mixtures import read_decoder
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS: Table = {**mixtures.WEIGHTS, **olmo2.WHOLE_NORMS}

# config.json has the experts' width where others have that of the feed-forward network, and so has GGUF.
KEYS: Keys = {**mixtures.KEYS, "expert_feed_forward_length": ("intermediate_size",)}


class Config(mixtures.Config):
    """The decoder's, and that of the experts."""

    __slots__ = ()

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        metadata.expect("clip_qkv", None)
        usual = read_decoder(metadata, checkpoint)
        return cls(*usual, read_experts(metadata, normalised=False, width=usual.sizes.ffn_width[0]))


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    table = c.rope.table("rope", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        x = x + attend(ops.rms_norm(x, w("attn_norm"), eps=c.eps), w, c, step, table)
        x = x + mixture(ops.rms_norm(x, w("ffn_norm"), eps=c.eps), w, c.experts, "silu")
    return logits(m, x, step, c.eps)
