"""ERNIE 4.5 with experts (21B-A3B, 300B-A47B): its dense decoder, whose later layers have experts.

Source: Hugging Face's modeling_ernie4_5_moe.py (ERNIE team 2025, ERNIE 4.5 Technical Report). The chosen experts'
weights are divided by their sum; GGUF has no key for that.
T tokens, R rows with logits, D width, V vocabulary, E experts.
"""

from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint
from sotol.models import decoder, ernie4_5, experts
from sotol.models.bind import Name, Table
from sotol.models.decoder import attend, logits
from sotol.models.experts import LATER_KEYS, LATER_WEIGHTS, feed_forward, read_experts
from sotol.models.metadata import Keys, Metadata
from sotol.models.model import Model, StepSymbols
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS: Table = {
    **LATER_WEIGHTS,
    **ernie4_5.WEIGHTS,
    "blk.{}.exp_probs_b.bias": Name("model.layers.{}.mlp.moe_statics.e_score_correction_bias", "E"),
}
KEYS: Keys = {
    **LATER_KEYS,
    "expert_count": ("moe_num_experts",),
    "expert_used_count": ("moe_k",),
    "leading_dense_block_count": ("moe_layer_start_index",),
    "expert_shared_count": ("moe_num_shared_experts",),
    "interleave_moe_layer_step": ("moe_layer_interval",),
    "last_layer": ("moe_layer_end_index",),  # GGUF has no such key
}


class Config(experts.Config):
    """The dense model's, and that of the experts."""

    __slots__ = ()

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        usual = decoder.Config.read(metadata, checkpoint)
        step, last = metadata.integer("interleave_moe_layer_step", 1), metadata.find("last_layer")
        if step != 1 or last not in (None, -1, usual.layers - 1):
            raise ModelError(
                f"{checkpoint.path}: an ernie4_5-moe with dense layers behind others is not one of sotol's"
            )
        chosen = read_experts(metadata, normalised=True)
        shared = chosen.width * metadata.integer("expert_shared_count", 0, least=0)
        return cls(usual, chosen, shared, metadata.integer("leading_dense_block_count", 0, least=0))


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    eps, table = c.decoder.eps, c.rope.table("rope", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        x = x + attend(ops.rms_norm(x, w("attn_norm"), eps=eps), w, c.sizes.of(w.index), step, table, "pairs")
        h = ops.rms_norm(x, w("ffn_norm"), eps=eps)
        x = x + feed_forward(h, w, c.experts, dense=w.index < c.dense, shared=c.shared_width > 0)
    return logits(m, x, step, eps)
