"""GLM-4.5, 4.6 and 4.7: a decoder that rotates half of a head, with experts behind its first layers.

Paper: GLM team 2025 (arXiv 2508.06471); facts that it leaves out are from Hugging Face's modeling_glm4_moe.py. The
large ones normalise each head of queries and keys, GLM-4.5-Air does not.
T tokens, R rows with logits, D width, d head width, V vocabulary, E experts.
"""

from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint
from sotol.models import qwen3
from sotol.models.binding.bind import Name, Table
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.model import Model, StepSymbols
from sotol.models.parts import decoder, mixtures
from sotol.models.parts.decoder import attend, logits
from sotol.models.parts.experts import read_experts
from sotol.models.parts.mixtures import feed_forward
from sotol.models.parts.rope import PARTIAL
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS: Table = {
    **decoder.OUTER,
    "blk.{}.attn_norm": Name("model.layers.{}.input_layernorm", "D"),
    **decoder.ATTENTION,
    **decoder.HEAD_NORMS,
    **mixtures.LATER,
    **mixtures.CHOICE_BIAS,
    "blk.{}.post_attention_norm": Name("model.layers.{}.post_attention_layernorm", "D"),
}
KEYS: Keys = {**mixtures.LATER_KEYS, "rope.partial_rotary_factor": PARTIAL}
ROTATING = 0.5  # of a head, where config.json does not say it


class Config(mixtures.Config):
    """A decoder's, and that of the experts."""

    __slots__ = ()

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> mixtures.Config:
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        if metadata.has("rope.dimension_sections"):  # GLM-4.5V: pairs rotate by several positions
            raise ModelError(f"{checkpoint.path}: glm4moe with rope.dimension_sections is not a model that sotol runs")
        usual = decoder.Config.read(metadata, checkpoint)
        if metadata.keys is not None and not metadata.has("rope.partial_rotary_factor"):
            usual = usual._replace(rope=usual.rope._replace(pairs=int(usual.sizes.head_width * ROTATING) // 2))
        chosen = read_experts(metadata, scores="sigmoid", normalised=metadata.keys is not None)
        return cls.with_later(usual, chosen, metadata)


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    table = c.rope.table("rope", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        h = ops.rms_norm(x, w("attn_norm"), eps=c.eps)
        if w.has("attn_q_norm"):
            x = x + qwen3.attend(h, w, c, step, table)
        else:
            x = x + attend(h, w, c.sizes.of(w.index), step, table, "halves")
        h = ops.rms_norm(x, w("post_attention_norm"), eps=c.eps)
        x = x + feed_forward(h, w, c.experts, mixed=c.mixed[w.index], shared=c.shared_width > 0)
    return logits(m, x, step, c.eps)
