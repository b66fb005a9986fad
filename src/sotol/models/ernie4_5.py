"""ERNIE 4.5, the dense ones: Llama's decoder, whose checkpoints have the channels of a pair side by side everywhere.

Source: Hugging Face's modeling_ernie4_5.py (ERNIE team 2025, ERNIE 4.5 Technical Report).
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, F feed-forward width,
V vocabulary.
"""

from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint
from sotol.models.binding.bind import Table
from sotol.models.binding.metadata import Metadata
from sotol.models.model import Model, StepSymbols
from sotol.models.parts import decoder
from sotol.models.parts.decoder import KEYS, attend, feed_forward, logits
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS: Table = {**decoder.WEIGHTS, **decoder.NETWORK_BIASES}  # all biases are `use_bias` of transformers' config


class Config(decoder.Config):
    """The usual config of a decoder."""

    __slots__ = ()

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> decoder.Config:
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        if metadata.has("rope.dimension_sections"):  # PaddleOCR-VL: pairs rotate by several positions
            raise ModelError(f"{checkpoint.path}: ernie4_5 with rope.dimension_sections is not a model that sotol runs")
        return super().read(metadata, checkpoint)


def forward(m: Model, c: decoder.Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    table = c.rope.table("rope", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        x = x + attend(ops.rms_norm(x, w("attn_norm"), eps=c.eps), w, c.sizes.of(w.index), step, table, "pairs")
        x = x + feed_forward(ops.rms_norm(x, w("ffn_norm"), eps=c.eps), w, "silu")
    return logits(m, x, step, c.eps)
