"""Gemma 3, text: norms before and after each block, and windowed layers with now and then one that sees everything.

Paper: Gemma team 2025 (arXiv 2503.19786); facts that it leaves out are from Hugging Face's modeling_gemma3.py and
llama.cpp's models/gemma3.cpp.
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, F feed-forward width,
V vocabulary.
"""

from collections.abc import Mapping
from typing import NamedTuple

from sotol.formats.weights import Checkpoint
from sotol.models import decoder
from sotol.models.decoder import Sizes, feed_forward, heads, project, read_sizes
from sotol.models.metadata import Fields
from sotol.models.model import Layer, Model, StepSymbols, Table
from sotol.models.rope import Rope, read_rope
from sotol.program import ops
from sotol.program.program import Constant, Tensor

__all__ = ["WEIGHTS", "Config", "forward"]

# Norms multiply by 1 + w in Hugging Face's checkpoints; GGUF stores the sum.
WEIGHTS: Table = {
    **decoder.WEIGHTS,
    "blk.{}.attn_q_norm": ("model.layers.{}.self_attn.q_norm", "d"),
    "blk.{}.attn_k_norm": ("model.layers.{}.self_attn.k_norm", "d"),
    "blk.{}.post_attention_norm": ("model.layers.{}.post_attention_layernorm", "D"),
    "blk.{}.ffn_norm": ("model.layers.{}.pre_feedforward_layernorm", "D"),
    "blk.{}.post_ffw_norm": ("model.layers.{}.post_feedforward_layernorm", "D"),
}

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
    def read(cls, fields: Fields, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        s = read_sizes(fields, checkpoint)
        rope = read_rope(fields, s.head_width)
        window = fields.integer("attention.sliding_window", 0, least=0)
        local = fields.layer_flags("attention.sliding_window_pattern", s.layers, 6)
        # No key tells the 27B model from the others, and it alone scales by its width per head (llama.cpp's rule).
        scaled_width = s.width // s.heads if s.layers == LAYERS_OF_27B else s.head_width
        return cls(
            s,
            fields.number("attention.layer_norm_rms_epsilon"),
            scaled_width**-0.5,
            tuple(window if flag else 0 for flag in local),
            rope,
            Rope(rope.pairs, fields.number("rope.freq_base_swa", 10000.0)),
            fields.number("attn_logit_softcapping", 0.0, zero=True),
            fields.number("final_logit_softcapping", 0.0, zero=True),
        )

    @property
    def layers(self) -> int:
        return self.sizes.layers

    @property
    def dims(self) -> Mapping[str, int]:
        return self.sizes.letters


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    full, local = c.rope.table("rope", m.context), c.local_rope.table("rope_local", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    # In float32, as llama.cpp has it; Hugging Face's code rounds the factor to the type that a model runs in.
    x = ops.scale(x, factor=c.sizes.width**0.5)
    for i in range(c.layers):
        w = m.layer(i)
        h = attend(m, c, w, local if c.windows[i] else full, ops.rms_norm(x, w("attn_norm"), eps=c.eps), step)
        x = x + ops.rms_norm(h, w("post_attention_norm"), eps=c.eps)
        h = feed_forward(ops.rms_norm(x, w("ffn_norm"), eps=c.eps), w, "gelu_tanh")
        x = x + ops.rms_norm(h, w("post_ffw_norm"), eps=c.eps)
    x = ops.rms_norm(ops.rows(x, step.logit_rows), m.w("output_norm"), eps=c.eps)  # [R, D]
    logits = ops.linear(x, m.w("output", otherwise="token_embd"))
    return ops.soft_cap(logits, cap=c.logit_cap) if c.logit_cap else logits


def attend(m: Model, c: Config, w: Layer, table: Constant, h: Tensor, step: StepSymbols) -> Tensor:
    """Self-attention of a layer over its input's norm, h [T, D]."""
    s, window = c.sizes, c.windows[w.index]
    q, k, v = heads(h, w, "attn_q", s.heads), heads(h, w, "attn_k", s.kv_heads), heads(h, w, "attn_v", s.kv_heads)
    q, k = ops.rms_norm(q, w("attn_q_norm"), eps=c.eps), ops.rms_norm(k, w("attn_k_norm"), eps=c.eps)
    q, k = (ops.rope(x, step.positions, table, style="halves") for x in (q, k))
    cache = m.cache(w.index, s.kv_heads, s.head_width)
    out = ops.attention(q, k, v, cache, step.step, scale=c.scale, window=window, cap=c.attention_cap)  # [T, H, d]
    return project(out.reshape("T", s.heads * s.head_width), w, "attn_output")
