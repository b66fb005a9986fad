"""Granite 3 and 4, the dense ones: Llama's decoder with factors on embeddings, scores, residuals and logits.

Paper: IBM Granite team 2024 (Granite 3.0 Language Models); facts that it leaves out are from Hugging Face's
modeling_granite.py. The factors come from Yang et al. 2022 (arXiv 2203.03466).
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, F feed-forward width,
V vocabulary.
"""

from typing import NamedTuple

from sotol.formats.weights import Checkpoint
from sotol.models import llama
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.binding.sizes import Sizes, read_sizes
from sotol.models.model import Model, StepSymbols
from sotol.models.parts import decoder
from sotol.models.parts.decoder import attend, feed_forward, logits
from sotol.models.parts.rope import Rope, read_rope
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS = llama.WEIGHTS
KEYS: Keys = {
    **decoder.KEYS,
    "attention.scale": ("attention_multiplier",),
    "embedding_scale": ("embedding_multiplier",),
    "residual_scale": ("residual_multiplier",),
    "logit_scale": ("logits_scaling",),
}


class Config(NamedTuple):
    """What the metadata says of a Granite."""

    sizes: Sizes
    eps: float
    rope: Rope
    rotates: bool  # whether there is any RoPE
    embedding_scale: float
    attention_scale: float  # of scores; 0: d**-0.5
    residual_scale: float  # of what each block adds
    logit_scale: float  # that logits are divided by

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        return cls.with_sizes(metadata, read_sizes(metadata, checkpoint))

    @classmethod
    def with_sizes(cls, metadata: Metadata, sizes: Sizes) -> "Config":
        """The same, of these sizes."""
        metadata.expect("hidden_act", "silu")
        return cls(
            sizes,
            metadata.number("attention.layer_norm_rms_epsilon"),
            read_rope(metadata, sizes.head_width),
            metadata.find("rope.scaling.finetuned") is not False,  # what it says in GGUF files of Granites
            metadata.number("embedding_scale", 1.0),
            metadata.number("attention.scale", 0.0, zero=True),
            metadata.number("residual_scale", 1.0),
            metadata.number("logit_scale", 1.0),
        )


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    divisors = m.divisors("rope_freqs")
    table = c.rope.table("rope", m.context, divisors) if c.rotates else None
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    x = ops.scale(x, factor=c.embedding_scale)
    for w in m.layers():
        h = ops.rms_norm(x, w("attn_norm"), eps=c.eps)
        h = attend(h, w, c.sizes.of(w.index), step, table, "pairs", scale=c.attention_scale)
        x = x + ops.scale(h, factor=c.residual_scale)
        h = feed_forward(ops.rms_norm(x, w("ffn_norm"), eps=c.eps), w, "silu")
        x = x + ops.scale(h, factor=c.residual_scale)
    return ops.scale(logits(m, x, step, c.eps), factor=1 / c.logit_scale)
