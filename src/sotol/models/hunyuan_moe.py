"""Hunyuan with experts (A13B): the dense model's attention, and experts beside one that every token takes.

Source: Hugging Face's modeling_hunyuan_v1_moe.py (Tencent Hunyuan team 2025). The chosen experts' weights are divided
by their sum; GGUF has no key for that.
T tokens, R rows with logits, D width, V vocabulary, E experts, s width of the shared one.
"""

from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint
from sotol.models import hunyuan_dense
from sotol.models.binding.bind import Name, Table
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.model import Model, StepSymbols
from sotol.models.parts import mixtures
from sotol.models.parts.decoder import logits
from sotol.models.parts.experts import read_experts, shared_names
from sotol.models.parts.mixtures import feed_forward
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS: Table = {
    **mixtures.WEIGHTS,
    **hunyuan_dense.HEAD_NORMS,
    "blk.{}.ffn_gate_inp": Name("model.layers.{}.mlp.gate.wg", "E D"),
    **shared_names("model.layers.{}.mlp.shared_mlp"),
}
# config.json may have a number for each layer; they are the same in released models, and so is the experts' width.
KEYS: Keys = {
    **mixtures.KEYS,
    **hunyuan_dense.KEYS,
    "expert_used_count": ("moe_topk",),
    "expert_feed_forward_length": ("moe_intermediate_size", "intermediate_size"),
    "expert_shared_feed_forward_length": ("intermediate_size",),
    "shared_experts": ("num_shared_expert",),  # GGUF has no such key
}


class Config(mixtures.Config):
    """The dense model's, and that of the experts."""

    __slots__ = ()

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        if metadata.integer("shared_experts", 1) != 1:
            raise ModelError(f"{checkpoint.path}: a hunyuan-moe with several shared experts is not one that sotol runs")
        usual = hunyuan_dense.Config.read(metadata, checkpoint)
        width = usual.sizes.ffn_width[0]
        shared = metadata.integer("expert_shared_feed_forward_length", width)
        return cls(*usual, read_experts(metadata, normalised=True, width=width), shared)


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    table = c.rope.table("rope", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        x = x + hunyuan_dense.attend(ops.rms_norm(x, w("attn_norm"), eps=c.eps), w, c, step, table)
        x = x + feed_forward(ops.rms_norm(x, w("ffn_norm"), eps=c.eps), w, c.experts, mixed=True, shared=True)
    return logits(m, x, step, c.eps)
