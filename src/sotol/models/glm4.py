"""GLM-4 of 2025 (GLM-4-0414, GLM-Z1), the dense ones: norms before and after each block, and half of a head rotates.

Paper: GLM team 2024 (arXiv 2406.12793); facts that it leaves out are from Hugging Face's modeling_glm4.py. Its
checkpoints join gate and up, as GGUF does.
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, F feed-forward width,
V vocabulary.
"""

from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint
from sotol.models.binding.bind import Name, Table
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.model import Model, StepSymbols
from sotol.models.parts import decoder
from sotol.models.parts.decoder import attend, feed_forward, logits
from sotol.models.parts.rope import PARTIAL
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS: Table = {
    **decoder.WEIGHTS,
    "blk.{}.post_attention_norm": Name("model.layers.{}.post_self_attn_layernorm", "D"),
    "blk.{}.ffn_norm": Name("model.layers.{}.post_attention_layernorm", "D"),
    "blk.{}.post_ffw_norm": Name("model.layers.{}.post_mlp_layernorm", "D"),
    "blk.{}.ffn_gate": Name("", "F D"),
    "blk.{}.ffn_up": Name("model.layers.{}.mlp.gate_up_proj", "F D"),
}
KEYS: Keys = {**decoder.KEYS, "rope.partial_rotary_factor": PARTIAL}


class Config(decoder.Config):
    """The usual config of a decoder."""

    __slots__ = ()

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> decoder.Config:
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        if metadata.has("rope.dimension_sections"):  # GLM-4.1V: other pairs of channels rotate, by several positions
            raise ModelError(f"{checkpoint.path}: glm4 with rope.dimension_sections is not a model that sotol runs")
        return super().read(metadata, checkpoint)


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    table = c.rope.table("rope", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        h = attend(ops.rms_norm(x, w("attn_norm"), eps=c.eps), w, c.sizes.of(w.index), step, table, "pairs")
        x = x + ops.rms_norm(h, w("post_attention_norm"), eps=c.eps)
        h = feed_forward(ops.rms_norm(x, w("ffn_norm"), eps=c.eps), w, "silu")
        x = x + ops.rms_norm(h, w("post_ffw_norm"), eps=c.eps)
    return logits(m, x, step, c.eps)
