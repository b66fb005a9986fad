"""GPT-OSS (20b, 120b): attention with sinks and alternate windows, experts with biases and a clamped SwiGLU.

Paper: OpenAI 2025 (arXiv 2508.10925); facts that it leaves out are from Hugging Face's modeling_gpt_oss.py. YaRN's ramp
begins and ends between pairs, as OpenAI's own code has it; llama.cpp rounds it to whole pairs, and GGUF has no key.
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, V vocabulary, E experts, f their
width.
"""

from typing import NamedTuple

from sotol.formats.weights import Checkpoint
from sotol.models.binding.bind import Name, Table
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.binding.sizes import Sizes
from sotol.models.model import Layer, Model, StepSymbols
from sotol.models.parts import decoder, experts, mixtures
from sotol.models.parts.decoder import KINDS, heads, logits, project
from sotol.models.parts.experts import Experts, mixture, read_experts
from sotol.models.parts.rope import Rope
from sotol.program import ops
from sotol.program.memory import Paged
from sotol.program.program import Constant, Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS: Table = {
    **decoder.OUTER,
    "blk.{}.attn_norm": Name("model.layers.{}.input_layernorm", "D"),
    **decoder.ATTENTION,
    **experts.WEIGHTS,
    "blk.{}.attn_sinks": Name("model.layers.{}.self_attn.sinks", "H"),
    "blk.{}.post_attention_norm": Name("model.layers.{}.post_attention_layernorm", "D"),
    "blk.{}.ffn_gate_inp": Name("model.layers.{}.mlp.router", "E D"),
    "blk.{}.ffn_gate_inp.bias": Name("model.layers.{}.mlp.router.bias", "E"),
    "blk.{}.ffn_gate_exps.bias": Name("model.layers.{}.mlp.experts.gate_proj.bias", "E f"),
    "blk.{}.ffn_up_exps.bias": Name("model.layers.{}.mlp.experts.up_proj.bias", "E f"),
    "blk.{}.ffn_down_exps.bias": Name("model.layers.{}.mlp.experts.down_proj.bias", "E D"),
}

KEYS: Keys = {
    **mixtures.KEYS,
    "expert_feed_forward_length": ("intermediate_size",),
    "attention.sliding_window": ("sliding_window",),
    "attention.sliding_window_pattern": ("layer_types",),  # GGUF has no such key
}


class Config(NamedTuple):
    """What the metadata says of a GPT-OSS."""

    sizes: Sizes
    eps: float
    rope: Rope
    windows: tuple[int, ...]  # of each layer: keys that a token sees, itself included; 0: all
    experts: Experts

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        metadata.expect("swiglu_alpha", 1.702)
        metadata.expect("swiglu_limit", 7.0)
        sizes, eps, rope = decoder.Config.read(metadata, checkpoint)
        window = metadata.integer("attention.sliding_window")
        local = metadata.layer_flags("attention.sliding_window_pattern", sizes.layers, 2, KINDS)
        width = None if metadata.keys is not None else sizes.ffn_width[0]
        return cls(
            sizes,
            eps,
            rope if metadata.has("rope.scaling.truncate") else rope._replace(rounded=False),
            tuple(window if flag else 0 for flag in local),
            read_experts(metadata, scores="chosen", normalised=False, width=width),
        )


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    table = c.rope.table("rope", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        x = x + attend(ops.rms_norm(x, w("attn_norm"), eps=c.eps), w, c, step, table)
        x = x + mixture(ops.rms_norm(x, w("post_attention_norm"), eps=c.eps), w, c.experts, "clamped_swiglu")
    return logits(m, x, step, c.eps)


def attend(h: Tensor, w: Layer, c: Config, step: StepSymbols, table: Constant) -> Tensor:
    """Self-attention of a layer over its input's norm, h [T, D]."""
    s = c.sizes.of(w.index)
    q, k, v = heads(h, w, "attn_q", s.heads), heads(h, w, "attn_k", s.kv_heads), heads(h, w, "attn_v", s.kv_heads)
    q, k = (ops.rope(x, step.positions, table, style="halves") for x in (q, k))
    cache = w.cache(Paged(s.kv_heads, s.head_width, s.head_width, c.windows[w.index]))
    ops.remember(k, v, cache, step.step)
    sinks = w("attn_sinks")
    out = ops.attention_with_sinks(q, cache, step.step, sinks, scale=s.head_width**-0.5)  # [T, H, d]
    return project(out.reshape("T", s.heads * s.head_width), w, "attn_output")
