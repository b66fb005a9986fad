"""Mixtral: Llama's decoder with experts in place of its feed-forward network. In GGUF it is a `llama` with experts.

Paper: Jiang et al. 2024 (arXiv 2401.04088): a softmax over the chosen experts' logits, which is that over all of them,
divided by the sum of the chosen ones.
T tokens, R rows with logits, D width, V vocabulary.
"""

from sotol.formats.weights import Checkpoint
from sotol.models import llama
from sotol.models.binding.bind import Table
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.parts import decoder, mixtures
from sotol.models.parts.experts import read_experts
from sotol.models.parts.mixtures import forward, read_decoder

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS: Table = {**mixtures.WEIGHTS, **llama.ATTENTION, **decoder.DIVISORS}

# config.json has the experts' width where others have that of the feed-forward network, and so have most GGUF files.
KEYS: Keys = {**mixtures.KEYS, "expert_feed_forward_length": ("intermediate_size",)}


class Config(mixtures.Config):
    """Llama's, and that of the experts."""

    __slots__ = ()

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        metadata.expect("sliding_window", None)
        usual = read_decoder(metadata, checkpoint)
        return cls(*usual, read_experts(metadata, normalised=True, width=usual.sizes.ffn_width[0]))
