"""DeepSeekMoE (16B), the first DeepSeek with experts: Llama's decoder, whose later layers have many small experts.

Paper: Dai et al. 2024 (arXiv 2401.06066); names are those of its authors' modeling_deepseek.py. The chosen experts'
weights are not divided by their sum, unless config.json says so.
T tokens, R rows with logits, D width, V vocabulary, E experts.
"""

from sotol.formats.weights import Checkpoint
from sotol.models import llama
from sotol.models.binding.bind import Table
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.parts import decoder, mixtures
from sotol.models.parts.experts import read_experts
from sotol.models.parts.mixtures import forward

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS: Table = {**decoder.OUTER, **decoder.NORMS, **llama.ATTENTION, **mixtures.LATER}
KEYS: Keys = mixtures.LATER_KEYS


class Config(mixtures.Config):
    """Llama's, and that of the experts."""

    __slots__ = ()

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> mixtures.Config:
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        metadata.expect("moe_layer_freq", 1)
        metadata.expect("scoring_func", "softmax")
        usual = decoder.Config.read(metadata, checkpoint)
        return cls.with_later(usual, read_experts(metadata, normalised=False), metadata)
