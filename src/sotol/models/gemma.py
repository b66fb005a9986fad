"""Gemma, the first: Llama's decoder with GELU, scaled embeddings, and norms that multiply by 1 + w. CodeGemma, too.

Paper: Gemma team 2024 (arXiv 2403.08295); facts that it leaves out are from Hugging Face's modeling_gemma.py.
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, F feed-forward width,
V vocabulary.
"""

from sotol.formats.weights import Checkpoint
from sotol.models.binding.bind import Name, Table
from sotol.models.binding.changes import plus_one
from sotol.models.binding.metadata import Metadata
from sotol.models.model import Model, StepSymbols
from sotol.models.parts import decoder
from sotol.models.parts.decoder import KEYS, attend, feed_forward, logits, read_usual
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

# GGUF stores 1 + w.
WEIGHTS: Table = {
    **decoder.WEIGHTS,
    "output_norm": Name("model.norm", "D", plus_one),
    "blk.{}.attn_norm": Name("model.layers.{}.input_layernorm", "D", plus_one),
    "blk.{}.ffn_norm": Name("model.layers.{}.post_attention_layernorm", "D", plus_one),
}


class Config(decoder.Config):
    """The usual config of a decoder."""

    __slots__ = ()

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> decoder.Config:
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        # The first releases say "gelu" and mean its tanh form, in either key.
        metadata.expect("hidden_act", "gelu_pytorch_tanh", "gelu")
        metadata.expect("hidden_activation", "gelu_pytorch_tanh")
        metadata.expect("use_bidirectional_attention", False)
        return read_usual(metadata, checkpoint)


def forward(m: Model, c: decoder.Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    table = c.rope.table("rope", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    # In float32, as llama.cpp has it; Hugging Face's code rounds the factor to the type that a model runs in.
    x = ops.scale(x, factor=c.sizes.width**0.5)
    for w in m.layers():
        h = ops.rms_norm(x, w("attn_norm"), eps=c.eps)
        x = x + attend(h, w, c.sizes.of(w.index), step, table, "halves")
        x = x + feed_forward(ops.rms_norm(x, w("ffn_norm"), eps=c.eps), w, "gelu_tanh")
    return logits(m, x, step, c.eps)
