"""Gemma 3, text: norms before and after each block, and windowed layers with now and then one that sees everything.

Paper: Gemma team 2025 (arXiv 2503.19786); facts that it leaves out are from Hugging Face's modeling_gemma3.py and
llama.cpp's models/gemma3.cpp.
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, F feed-forward width,
V vocabulary.
"""

from typing import NamedTuple

from sotol.formats.weights import Checkpoint
from sotol.models.binding.bind import Name, Table
from sotol.models.binding.changes import plus_one
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.binding.sizes import Sizes
from sotol.models.model import Layer, Model, StepSymbols
from sotol.models.parts import decoder
from sotol.models.parts.decoder import (
    WINDOW_KEYS,
    attention,
    feed_forward,
    logits,
    queries_keys_values,
    read_usual,
    read_windows,
    rotated,
)
from sotol.models.parts.rope import ROPE_KEYS, Rope
from sotol.program import ops
from sotol.program.program import Constant, Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

# Norms multiply by 1 + w in Hugging Face's checkpoints; GGUF stores the sum.
WEIGHTS: Table = {
    **decoder.WEIGHTS,
    "output_norm": Name("model.norm", "D", plus_one),
    "blk.{}.attn_norm": Name("model.layers.{}.input_layernorm", "D", plus_one),
    "blk.{}.attn_q_norm": Name("model.layers.{}.self_attn.q_norm", "d", plus_one),
    "blk.{}.attn_k_norm": Name("model.layers.{}.self_attn.k_norm", "d", plus_one),
    "blk.{}.post_attention_norm": Name("model.layers.{}.post_attention_layernorm", "D", plus_one),
    "blk.{}.ffn_norm": Name("model.layers.{}.pre_feedforward_layernorm", "D", plus_one),
    "blk.{}.post_ffw_norm": Name("model.layers.{}.post_feedforward_layernorm", "D", plus_one),
}

# transformers 5 has a rotation for each kind of layers, transformers 4 one, and the base of the windowed ones.
KEYS: Keys = {
    **decoder.KEYS,
    **{key: tuple(place.replace("rope_parameters.", "rope_parameters.full_attention.") for place in places)
       for key, places in ROPE_KEYS.items()},
    "rope.freq_base_swa": ("rope_parameters.sliding_attention.rope_theta", "rope_local_base_freq"),
    "attention.query_scale": ("query_pre_attn_scalar",),  # GGUF has no such key
    **WINDOW_KEYS,
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
}  # fmt: skip

LAYERS_OF_27B = 62


class Config(NamedTuple):
    """What the metadata says of a Gemma 3."""

    sizes: Sizes
    eps: float
    scale: float  # of queries
    windows: tuple[int, ...]  # of each layer: keys that a token sees, itself included; 0: all
    rope: Rope  # of layers that see everything
    local_rope: Rope  # of windowed layers
    attention_cap: float  # of attention's scores; 0: none
    logit_cap: float

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        metadata.expect("hidden_activation", "gelu_pytorch_tanh")
        metadata.expect("use_bidirectional_attention", False)
        s, eps, rope = read_usual(metadata, checkpoint)
        # No key of GGUF tells the 27B model from the others; it alone scales by its width per head (llama.cpp's rule).
        width = s.width // s.heads[0] if s.layers == LAYERS_OF_27B else s.head_width
        return cls(
            s,
            eps,
            metadata.number("attention.query_scale", width) ** -0.5,
            read_windows(metadata, s.layers, 6),
            rope,
            Rope(rope.pairs, metadata.number("rope.freq_base_swa", 10000.0)),
            metadata.number("attn_logit_softcapping", 0.0, zero=True),
            metadata.number("final_logit_softcapping", 0.0, zero=True),
        )


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    full, local = c.rope.table("rope", m.context), c.local_rope.table("rope_local", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    # In float32, as llama.cpp has it; Hugging Face's code rounds the factor to the type that a model runs in.
    x = ops.scale(x, factor=c.sizes.width**0.5)
    for w in m.layers():
        table = local if c.windows[w.index] else full
        h = attend(ops.rms_norm(x, w("attn_norm"), eps=c.eps), w, c, step, table)
        x = x + ops.rms_norm(h, w("post_attention_norm"), eps=c.eps)
        h = feed_forward(ops.rms_norm(x, w("ffn_norm"), eps=c.eps), w, "gelu_tanh")
        x = x + ops.rms_norm(h, w("post_ffw_norm"), eps=c.eps)
    x = logits(m, x, step, c.eps)
    return ops.soft_cap(x, cap=c.logit_cap) if c.logit_cap else x


def attend(h: Tensor, w: Layer, c: Config, step: StepSymbols, table: Constant) -> Tensor:
    """Self-attention of a layer over its input's norm, h [T, D]."""
    q, k, v = queries_keys_values(h, w, c.sizes.of(w.index))
    q, k = ops.rms_norm(q, w("attn_q_norm"), eps=c.eps), ops.rms_norm(k, w("attn_k_norm"), eps=c.eps)
    q, k = rotated(q, k, step, table, "halves")
    return attention(q, k, v, w, step, scale=c.scale, window=c.windows[w.index], cap=c.attention_cap)
