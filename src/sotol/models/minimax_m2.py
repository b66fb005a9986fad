"""MiniMax M2: OLMo 2's attention, of whose heads a part rotates, and experts chosen by sigmoids with a bias.

Source: Hugging Face's modeling_minimax_m2.py (MiniMax 2025). GGUF has no key for that weights are divided by their sum.
T tokens, R rows with logits, D width, V vocabulary, E experts.
"""

from sotol.formats.weights import Checkpoint
from sotol.models import olmoe
from sotol.models.binding.bind import Name, Table
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.olmoe import forward
from sotol.models.parts import mixtures
from sotol.models.parts.experts import read_experts
from sotol.models.parts.mixtures import read_decoder
from sotol.models.parts.rope import PARTIAL

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS: Table = {
    **olmoe.WEIGHTS,
    "blk.{}.exp_probs_b.bias": Name("model.layers.{}.mlp.e_score_correction_bias", "E"),
}
KEYS: Keys = {
    **olmoe.KEYS,
    "rope.partial_rotary_factor": PARTIAL,
    "rope.dimension_count": ("rotary_dim",),
}


class Config(mixtures.Config):
    """The decoder's, and that of the experts."""

    __slots__ = ()

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        usual = read_decoder(metadata, checkpoint)
        width = usual.sizes.ffn_width[0]
        return cls(*usual, read_experts(metadata, scores="sigmoid", normalised=True, width=width))
