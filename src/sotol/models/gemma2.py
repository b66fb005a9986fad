"""Gemma 2: norms before and after each block, caps on scores and logits, and a window in every other layer.

Paper: Gemma team 2024 (arXiv 2408.00118); facts that it leaves out are from Hugging Face's modeling_gemma2.py and
llama.cpp's models/gemma2.cpp.
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, F feed-forward width,
V vocabulary.
"""

from typing import NamedTuple

from sotol.formats.weights import Checkpoint
from sotol.models.binding.bind import Name, Table
from sotol.models.binding.changes import plus_one
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.binding.sizes import Sizes
from sotol.models.model import Model, StepSymbols
from sotol.models.parts import decoder
from sotol.models.parts.decoder import WINDOW_KEYS, attend, feed_forward, logits, read_usual, read_windows
from sotol.models.parts.rope import Rope
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

# Norms multiply by 1 + w in Hugging Face's checkpoints; GGUF stores the sum.
WEIGHTS: Table = {
    **decoder.WEIGHTS,
    "output_norm": Name("model.norm", "D", plus_one),
    "blk.{}.attn_norm": Name("model.layers.{}.input_layernorm", "D", plus_one),
    "blk.{}.post_attention_norm": Name("model.layers.{}.post_attention_layernorm", "D", plus_one),
    "blk.{}.ffn_norm": Name("model.layers.{}.pre_feedforward_layernorm", "D", plus_one),
    "blk.{}.post_ffw_norm": Name("model.layers.{}.post_feedforward_layernorm", "D", plus_one),
}

KEYS: Keys = {
    **decoder.KEYS,
    **WINDOW_KEYS,
    "attention.query_scale": ("query_pre_attn_scalar",),  # GGUF has no such key
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
}

LAYERS_OF_27B = 46
WINDOW, ATTENTION_CAP, LOGIT_CAP = 4096, 50.0, 30.0  # of every released model: what GGUF files that lack a key mean


class Config(NamedTuple):
    """What the metadata says of a Gemma 2."""

    sizes: Sizes
    eps: float
    scale: float  # of queries
    windows: tuple[int, ...]  # of each layer: keys that a token sees, itself included; 0: all
    rope: Rope
    attention_cap: float  # of attention's scores; 0: none
    logit_cap: float

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        metadata.expect("hidden_activation", "gelu_pytorch_tanh")
        metadata.expect("use_bidirectional_attention", False)
        s, eps, rope = read_usual(metadata, checkpoint)
        config = metadata.keys is not None  # config.json's null is none
        # No key of GGUF tells the 27B model from the others; it alone scales by its width per head (llama.cpp's rule).
        width = s.width // s.heads[0] if s.layers == LAYERS_OF_27B else s.head_width
        return cls(
            s,
            eps,
            metadata.number("attention.query_scale", width) ** -0.5,
            read_windows(metadata, s.layers, 2, 0 if config else WINDOW),
            rope,
            metadata.number("attn_logit_softcapping", 0.0 if config else ATTENTION_CAP, zero=True),
            metadata.number("final_logit_softcapping", 0.0 if config else LOGIT_CAP, zero=True),
        )


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    table = c.rope.table("rope", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    # In float32, as llama.cpp has it; Hugging Face's code rounds the factor to the type that a model runs in.
    x = ops.scale(x, factor=c.sizes.width**0.5)
    for w in m.layers():
        s, window = c.sizes.of(w.index), c.windows[w.index]
        h = ops.rms_norm(x, w("attn_norm"), eps=c.eps)
        h = attend(h, w, s, step, table, "halves", scale=c.scale, window=window, cap=c.attention_cap)
        x = x + ops.rms_norm(h, w("post_attention_norm"), eps=c.eps)
        h = feed_forward(ops.rms_norm(x, w("ffn_norm"), eps=c.eps), w, "gelu_tanh")
        x = x + ops.rms_norm(h, w("post_ffw_norm"), eps=c.eps)
    x = logits(m, x, step, c.eps)
    return ops.soft_cap(x, cap=c.logit_cap) if c.logit_cap else x
