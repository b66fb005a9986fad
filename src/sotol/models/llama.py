"""Llama: a pre-norm decoder with grouped-query attention, RoPE and SwiGLU. Llama 2 and 3, SmolLM2, Mistral.

Papers: Touvron et al. 2023 (arXiv 2307.09288); Llama team 2024 (arXiv 2407.21783).
T tokens, D width, H query heads, K key-value heads, d head width, F feed-forward width, V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sotol.formats.weights import Checkpoint
from sotol.models.metadata import Fields
from sotol.models.model import Layer, Model, StepSymbols, Table
from sotol.models.rope import Rope, read_rope
from sotol.models.shape import Sizes, read_sizes
from sotol.program import ops
from sotol.program.trace import Constant, Tensor

WEIGHTS: Table = {
    "token_embd": ("model.embed_tokens", "V D"),
    "output_norm": ("model.norm", "D"),
    "output": ("lm_head", "V D"),
    "rope_freqs": ("", "r"),  # Llama 3's divisors of the frequencies, computed when the file was made
    "blk.{}.attn_norm": ("model.layers.{}.input_layernorm", "D"),
    "blk.{}.attn_q": ("model.layers.{}.self_attn.q_proj", "H*d D"),
    "blk.{}.attn_k": ("model.layers.{}.self_attn.k_proj", "K*d D"),
    "blk.{}.attn_v": ("model.layers.{}.self_attn.v_proj", "K*d D"),
    "blk.{}.attn_output": ("model.layers.{}.self_attn.o_proj", "D H*d"),
    "blk.{}.ffn_norm": ("model.layers.{}.post_attention_layernorm", "D"),
    "blk.{}.ffn_gate": ("model.layers.{}.mlp.gate_proj", "F D"),
    "blk.{}.ffn_up": ("model.layers.{}.mlp.up_proj", "F D"),
    "blk.{}.ffn_down": ("model.layers.{}.mlp.down_proj", "D F"),
}


@dataclass(frozen=True, slots=True)
class Config:
    """What the metadata says of a Llama."""

    sizes: Sizes
    eps: float
    rope: Rope

    @classmethod
    def read(cls, fields: Fields, checkpoint: Checkpoint) -> "Config":
        sizes = read_sizes(fields, checkpoint)
        return cls(sizes, fields.number("attention.layer_norm_rms_epsilon"), read_rope(fields, sizes.head_width))

    @property
    def layers(self) -> int:
        return self.sizes.layers

    @property
    def dims(self) -> Mapping[str, int]:
        return {**self.sizes.letters, "r": self.rope.pairs}


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    table = c.rope.table("rope", m.context, m.divisors("rope_freqs"))
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for i in range(c.layers):
        w = m.layer(i)
        x = x + attend(m, c, w, table, ops.rms_norm(x, w("attn_norm"), eps=c.eps), step)
        h = ops.rms_norm(x, w("ffn_norm"), eps=c.eps)
        gated = ops.glu(ops.linear(h, w("ffn_gate")), ops.linear(h, w("ffn_up")), act="silu")  # [T, F]
        x = x + ops.linear(gated, w("ffn_down"))
    x = ops.rms_norm(ops.rows(x, step.logit_rows), m.w("output_norm"), eps=c.eps)  # [R, D]
    return ops.linear(x, m.w("output", otherwise="token_embd"))


def attend(m: Model, c: Config, w: Layer, table: Constant, h: Tensor, step: StepSymbols) -> Tensor:
    """Self-attention of a layer over its input's norm, h [T, D]."""
    s = c.sizes
    q = ops.linear(h, w("attn_q")).reshape("T", s.heads, s.head_width)
    k = ops.linear(h, w("attn_k")).reshape("T", s.kv_heads, s.head_width)
    v = ops.linear(h, w("attn_v")).reshape("T", s.kv_heads, s.head_width)
    # GGUF stores Llama's q and k with the channels of a pair side by side, as Meta's own checkpoints do.
    q, k = (ops.rope(x, step.positions, table, style="pairs") for x in (q, k))
    cache = m.cache(w.index, s.kv_heads, s.head_width)
    out = ops.attention(q, k, v, cache, step.step, scale=s.head_width**-0.5)  # [T, H, d]
    return ops.linear(out.reshape("T", s.heads * s.head_width), w("attn_output"))
