"""Qwen 3.5, the dense ones, and 3.6's: three layers of gated DeltaNet, then one with attention whose output is gated.

No paper; all is from Hugging Face's modeling_qwen3_5.py. A token's three positions are one in a text, so M-RoPE is a
plain rotation of a part of each head. Norms multiply by 1 + w in Hugging Face's checkpoints, but for DeltaNet's own;
GGUF has the sum.
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, Q = 2 H d, F feed-forward
width, V vocabulary; `delta_net.py` has its own letters.
"""

from collections.abc import Mapping
from typing import NamedTuple

from sotol.formats.weights import Checkpoint, Weight
from sotol.models.binding.bind import Name, Table
from sotol.models.binding.changes import by_part, plus_one
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.binding.sizes import LayerSizes, Sizes, read_sizes
from sotol.models.model import Layer, Model, StepSymbols
from sotol.models.parts import decoder, delta_net
from sotol.models.parts.decoder import feed_forward, heads, logits, project, rotated
from sotol.models.parts.delta_net import DeltaNet, read_delta_net
from sotol.models.parts.recurrent import INTERVAL_KEYS, read_recurrent_layers
from sotol.models.parts.rope import PARTIAL, Rope, read_rope
from sotol.program import ops
from sotol.program.memory import Paged
from sotol.program.program import Constant, Tensor

__all__ = ["ATTENTION", "KEYS", "WEIGHTS", "Config", "attend", "forward", "mix"]

ATTENTION: Table = {
    **decoder.OUTER,
    **decoder.ATTENTION,
    "output_norm": Name("model.norm", "D", plus_one),
    "blk.{}.attn_norm": Name("model.layers.{}.input_layernorm", "D", plus_one),
    "blk.{}.attn_q": Name("model.layers.{}.self_attn.q_proj", "Q D"),
    "blk.{}.attn_q.bias": Name("model.layers.{}.self_attn.q_proj.bias", "Q"),
    "blk.{}.attn_q_norm": Name("model.layers.{}.self_attn.q_norm", "d", plus_one),
    "blk.{}.attn_k_norm": Name("model.layers.{}.self_attn.k_norm", "d", plus_one),
    "blk.{}.post_attention_norm": Name("model.layers.{}.post_attention_layernorm", "D", plus_one),
}

WEIGHTS: Table = {**ATTENTION, **delta_net.WEIGHTS, **decoder.NETWORK}

KEYS: Keys = {**decoder.KEYS, "rope.partial_rotary_factor": PARTIAL, **INTERVAL_KEYS, **delta_net.KEYS}


class Config(NamedTuple):
    """What the metadata says of a Qwen 3.5."""

    sizes: Sizes
    eps: float
    rope: Rope
    recurrent: tuple[bool, ...]  # of each layer: whether it is a DeltaNet; else it has attention
    delta: DeltaNet

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        return cls.with_experts(metadata, checkpoint)

    @classmethod
    def with_experts(cls, metadata: Metadata, checkpoint: Checkpoint, ffn_width: int | None = None) -> "Config":
        """The same. ffn_width: where the file has none, since all layers have experts."""
        metadata.expect("hidden_act", "silu")
        sizes = read_sizes(metadata, checkpoint, ffn_width=ffn_width)
        eps, rope = metadata.number("attention.layer_norm_rms_epsilon"), read_rope(metadata, sizes.head_width)
        return cls(sizes, eps, rope, read_recurrent_layers(metadata, sizes.layers), read_delta_net(metadata))

    def letters(self, layer: int | None) -> Mapping[str, int]:
        if layer is None:
            return self.sizes.letters(layer)
        if self.recurrent[layer]:
            return {**self.sizes.letters(layer, attends=False), **self.delta.letters(layer)}
        letters = self.sizes.letters(layer)
        return {**letters, "Q": 2 * letters["H"] * letters["d"]}


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    table = c.rope.table("rope", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        h = ops.rms_norm(x, w("attn_norm"), eps=c.eps)
        x = x + mix(h, w, c, step, table)
        x = x + feed_forward(ops.rms_norm(x, w("post_attention_norm"), eps=c.eps), w, "silu")
    return logits(m, x, step, c.eps)


def mix(h: Tensor, w: Layer, c: Config, step: StepSymbols, table: Constant) -> Tensor:
    """What the layer's DeltaNet or its attention makes of its input's norm, h [T, D]."""
    return delta_net.mix(h, w, c.delta, step, c.eps) if c.recurrent[w.index] else attend(h, w, c, step, table)


def attend(h: Tensor, w: Layer, c: Config, step: StepSymbols, table: Constant) -> Tensor:
    """Self-attention over h [T, D]; what comes out of a head passes as far as its gates are open."""
    s = c.sizes.of(w.index)
    q, gate = (project_part(h, w, s, part) for part in (0, 1))  # [T, H d]
    q = ops.rms_norm(q.reshape("T", s.heads, s.head_width), w("attn_q_norm"), eps=c.eps)
    k = ops.rms_norm(heads(h, w, "attn_k", s.kv_heads), w("attn_k_norm"), eps=c.eps)  # [T, K, d]
    v = heads(h, w, "attn_v", s.kv_heads)
    q, k = rotated(q, k, step, table, "halves")
    cache = w.cache(Paged(s.kv_heads, s.head_width, s.head_width))
    ops.remember(k, v, cache, step.step)
    out = ops.attention(q, cache, step.step, scale=s.head_width**-0.5)  # [T, H, d]
    return project(ops.glu(gate, out.reshape("T", s.heads * s.head_width), act="sigmoid"), w, "attn_output")


def project_part(h: Tensor, w: Layer, s: LayerSizes, part: int) -> Tensor:
    """h [T, D] times those rows of attn_q that are of queries (part 0), or of their gates (part 1): [T, H d].

    They lie head by head: d rows of one, then d rows of the other.
    """

    def rows(name: str) -> Weight:
        each = s.heads * s.head_width
        return by_part(w(name), s.heads, (s.head_width,) * 2).part(part * each, (part + 1) * each)

    projected = ops.linear(h, rows("attn_q"))
    return ops.add_bias(projected, rows("attn_q.bias")) if w.has("attn_q.bias") else projected
