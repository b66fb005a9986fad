"""MiniMax M2: OLMoE's attention, of whose heads a part rotates, and experts chosen by sigmoids with a bias.

Source: Hugging Face's modeling_minimax_m2.py (MiniMax 2025). GGUF has no key for that weights are divided by their sum.
T tokens, R rows with logits, D width, V vocabulary, E experts.
"""

from sotol.formats.weights import Checkpoint
from sotol.models import experts, olmoe
from sotol.models.bind import Name, Table
from sotol.models.decoder import logits
from sotol.models.experts import mixture, read_decoder, read_experts
from sotol.models.metadata import Keys, Metadata
from sotol.models.model import Model, StepSymbols
from sotol.models.rope import PARTIAL
from sotol.program import ops
from sotol.program.program import Tensor

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


class Config(experts.Config):
    """The decoder's, and that of the experts."""

    __slots__ = ()

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        decoder = read_decoder(metadata, checkpoint)
        width = decoder.sizes.ffn_width[0]
        return cls(decoder, read_experts(metadata, scores="sigmoid", normalised=True, width=width))


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    eps, table = c.decoder.eps, c.rope.table("rope", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        x = x + olmoe.attend(c, w, table, ops.rms_norm(x, w("attn_norm"), eps=eps), step)
        x = x + mixture(ops.rms_norm(x, w("ffn_norm"), eps=eps), w, c.experts, "silu")
    return logits(m, x, step, eps)
