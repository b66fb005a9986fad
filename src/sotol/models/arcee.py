"""AFM-4.5B of Arcee: Llama's decoder, whose feed-forward network has no gate but the square of a ReLU.

Source: Hugging Face's modeling_arcee.py (Arcee AI 2025).
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, F feed-forward width,
V vocabulary.
"""

from sotol.formats.weights import Checkpoint
from sotol.models import llama
from sotol.models.binding.bind import Table
from sotol.models.binding.metadata import Metadata
from sotol.models.model import Model, StepSymbols
from sotol.models.parts import decoder
from sotol.models.parts.decoder import KEYS, attend, logits, plain_feed_forward, read_usual
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS: Table = {
    **decoder.OUTER,
    **decoder.NORMS,
    **llama.ATTENTION,
    **decoder.PLAIN_NETWORK,
    **decoder.PLAIN_BIASES,
    **decoder.DIVISORS,
}


class Config(decoder.Config):
    """The usual config of a decoder."""

    __slots__ = ()

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> decoder.Config:
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        metadata.expect("hidden_act", "relu2")
        return read_usual(metadata, checkpoint)


def forward(m: Model, c: decoder.Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    table = c.rope.table("rope", m.context, m.divisors("rope_freqs"))
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        x = x + attend(ops.rms_norm(x, w("attn_norm"), eps=c.eps), w, c.sizes.of(w.index), step, table, "pairs")
        x = x + plain_feed_forward(ops.rms_norm(x, w("ffn_norm"), eps=c.eps), w, "relu2")
    return logits(m, x, step, c.eps)
