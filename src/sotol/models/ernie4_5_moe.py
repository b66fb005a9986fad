"""ERNIE 4.5 with experts (21B-A3B, 300B-A47B): its dense decoder, whose later layers have experts.

Source: Hugging Face's modeling_ernie4_5_moe.py (ERNIE team 2025, ERNIE 4.5 Technical Report). The chosen experts'
weights are divided by their sum; GGUF has no key for that.
T tokens, R rows with logits, D width, V vocabulary, E experts.
"""

from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint
from sotol.models.binding.bind import Name, Table
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.parts import decoder, mixtures
from sotol.models.parts.experts import read_experts
from sotol.models.parts.mixtures import forward

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS: Table = {
    **decoder.OUTER,
    **decoder.NORMS,
    **decoder.ATTENTION,
    **mixtures.LATER,
    **decoder.NETWORK_BIASES,
    "blk.{}.exp_probs_b.bias": Name("model.layers.{}.mlp.moe_statics.e_score_correction_bias", "E"),
}
KEYS: Keys = {
    **mixtures.LATER_KEYS,
    "expert_count": ("moe_num_experts",),
    "expert_used_count": ("moe_k",),
    "leading_dense_block_count": ("moe_layer_start_index",),
    "expert_shared_count": ("moe_num_shared_experts",),
    "interleave_moe_layer_step": ("moe_layer_interval",),
    "last_layer": ("moe_layer_end_index",),  # GGUF has no such key
}


class Config(mixtures.Config):
    """The dense model's, and that of the experts."""

    __slots__ = ()

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> mixtures.Config:
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        usual = decoder.Config.read(metadata, checkpoint)
        step, last = metadata.integer("interleave_moe_layer_step", 1), metadata.find("last_layer")
        if step != 1 or last not in (None, -1, usual.sizes.layers - 1):
            raise ModelError(
                f"{checkpoint.path}: an ernie4_5-moe with dense layers behind others is not one of sotol's"
            )
        return cls.with_later(usual, read_experts(metadata, normalised=True), metadata)
