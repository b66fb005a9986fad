"""What the decoders here have in common: names of weights, the usual config, a few lines of their forwards.

T tokens, R rows with logits, D width (O and U the same, of what attention and the feed-forward network give), H query
heads, K key-value heads, d head width, F feed-forward width, V vocabulary.
"""

from typing import NamedTuple, Protocol

from sotol.formats.weights import Checkpoint
from sotol.models.binding.bind import Name, Table
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.binding.sizes import LayerSizes, Sizes, read_sizes
from sotol.models.model import Layer, Model, StepSymbols
from sotol.models.parts.rope import ROPE_KEYS, Rope, read_rope
from sotol.program import ops
from sotol.program.memory import Paged
from sotol.program.program import Constant, Tensor

__all__ = [
    "ATTENTION", "DIVISORS", "HEAD_NORMS", "KEYS", "KINDS", "NETWORK", "NETWORK_BIASES", "NORMS", "OUTER",
    "PLAIN_BIASES", "PLAIN_NETWORK", "SIZE_KEYS", "WEIGHTS", "WINDOW_KEYS", "Config", "Usual", "attend", "attention",
    "feed_forward", "heads", "logits", "plain_feed_forward", "project", "queries_keys_values", "read_usual",
    "read_windows", "rotated",
]  # fmt: skip

# The usual names, by what they belong to: outside of all layers, and in each layer the norms before its two blocks,
# attention, and the feed-forward network.
OUTER: Table = {
    "token_embd": Name("model.embed_tokens", "V D"),
    "output_norm": Name("model.norm", "D"),
    "output": Name("lm_head", "V D"),
}
NORMS: Table = {
    "blk.{}.attn_norm": Name("model.layers.{}.input_layernorm", "D"),
    "blk.{}.ffn_norm": Name("model.layers.{}.post_attention_layernorm", "D"),
}
# Every projection of attention may have a bias, as `attention_bias` of transformers' configs gives them.
ATTENTION: Table = {
    "blk.{}.attn_q": Name("model.layers.{}.self_attn.q_proj", "H*d D"),
    "blk.{}.attn_k": Name("model.layers.{}.self_attn.k_proj", "K*d D"),
    "blk.{}.attn_v": Name("model.layers.{}.self_attn.v_proj", "K*d D"),
    "blk.{}.attn_output": Name("model.layers.{}.self_attn.o_proj", "D H*d"),
    "blk.{}.attn_q.bias": Name("model.layers.{}.self_attn.q_proj.bias", "H*d"),
    "blk.{}.attn_k.bias": Name("model.layers.{}.self_attn.k_proj.bias", "K*d"),
    "blk.{}.attn_v.bias": Name("model.layers.{}.self_attn.v_proj.bias", "K*d"),
    "blk.{}.attn_output.bias": Name("model.layers.{}.self_attn.o_proj.bias", "O"),
}
# Of architectures that normalise each head of queries and keys.
HEAD_NORMS: Table = {
    "blk.{}.attn_q_norm": Name("model.layers.{}.self_attn.q_norm", "d"),
    "blk.{}.attn_k_norm": Name("model.layers.{}.self_attn.k_norm", "d"),
}
# The feed-forward network, without a gate and with one, and its biases: `mlp_bias` of transformers' configs.
PLAIN_NETWORK: Table = {
    "blk.{}.ffn_up": Name("model.layers.{}.mlp.up_proj", "F D"),
    "blk.{}.ffn_down": Name("model.layers.{}.mlp.down_proj", "D F"),
}
PLAIN_BIASES: Table = {
    "blk.{}.ffn_up.bias": Name("model.layers.{}.mlp.up_proj.bias", "F"),
    "blk.{}.ffn_down.bias": Name("model.layers.{}.mlp.down_proj.bias", "U"),
}
NETWORK: Table = {"blk.{}.ffn_gate": Name("model.layers.{}.mlp.gate_proj", "F D"), **PLAIN_NETWORK}
NETWORK_BIASES: Table = {"blk.{}.ffn_gate.bias": Name("model.layers.{}.mlp.gate_proj.bias", "F"), **PLAIN_BIASES}
DIVISORS: Table = {"rope_freqs": Name("", "r")}  # Llama 3's, of RoPE's frequencies: computed when a GGUF file was made
WEIGHTS: Table = {**OUTER, **NORMS, **ATTENTION, **NETWORK}

SIZE_KEYS: Keys = {
    "block_count": ("num_hidden_layers",),
    "context_length": ("max_position_embeddings",),
    "embedding_length": ("hidden_size",),
    "feed_forward_length": ("intermediate_size",),
    "attention.head_count": ("num_attention_heads",),
    "attention.head_count_kv": ("num_key_value_heads",),
    "attention.key_length": ("head_dim",),
    "attention.value_length": ("head_dim",),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps",),
}
KEYS: Keys = {**SIZE_KEYS, **ROPE_KEYS}

# Of architectures some of whose layers have a window.
WINDOW_KEYS: Keys = {
    "attention.sliding_window": ("sliding_window",),
    "attention.sliding_window_pattern": ("layer_types", "sliding_window_pattern"),
}
KINDS = ("sliding_attention", "full_attention")  # of layers, by config.json


class Usual(Protocol):
    """What attention of most decoders reads of their configs."""

    @property
    def sizes(self) -> Sizes: ...
    @property
    def eps(self) -> float: ...


class Config(NamedTuple):
    """The config of a decoder whose layers do the same."""

    sizes: Sizes
    eps: float
    rope: Rope

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        metadata.expect("hidden_act", "silu")
        metadata.expect("use_sliding_window", False)
        return cls(*read_usual(metadata, checkpoint))


def read_usual(metadata: Metadata, checkpoint: Checkpoint) -> Config:
    """What nearly all decoders have, whatever else they are; ModelError names what is missing or wrong."""
    sizes = read_sizes(metadata, checkpoint)
    return Config(sizes, metadata.number("attention.layer_norm_rms_epsilon"), read_rope(metadata, sizes.head_width))


def read_windows(metadata: Metadata, layers: int, period: int, window: int | None = 0) -> tuple[int, ...]:
    """Of each layer: how many keys a token sees, itself included; 0: all.

    period, window: where the file says nothing, each `period`-th layer sees all (0: none does), and windows are so
    large; None: the file must say it.
    """
    size = metadata.integer("attention.sliding_window", window, least=0)
    local = metadata.layer_flags("attention.sliding_window_pattern", layers, period, KINDS)
    return tuple(size if flag else 0 for flag in local)


def project(x: Tensor, w: Layer, name: str, *, biased: bool = False) -> Tensor:
    """x [T, N] times the matrix of this name, plus its bias: [T, M]. biased: the file must have one; else it may."""
    projected = ops.linear(x, w(name))
    return ops.add_bias(projected, w(f"{name}.bias")) if biased or w.has(f"{name}.bias") else projected


def heads(x: Tensor, w: Layer, name: str, count: int, *, biased: bool = False) -> Tensor:
    """A projection of x [T, D] cut into heads: [T, count, d]."""
    projected = project(x, w, name, biased=biased)
    return projected.reshape("T", count, int(projected.shape[1]) // count)


def queries_keys_values(h: Tensor, w: Layer, s: LayerSizes, *, biased: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """A layer's projections of its input h [T, D], cut into heads: q [T, H, d], k and v [T, K, d]."""
    q, k = heads(h, w, "attn_q", s.heads, biased=biased), heads(h, w, "attn_k", s.kv_heads, biased=biased)
    return q, k, heads(h, w, "attn_v", s.kv_heads, biased=biased)


def rotated(q: Tensor, k: Tensor, step: StepSymbols, table: Constant, style: str) -> tuple[Tensor, Tensor]:
    """q and k, turned to their positions (`ops.rope`)."""
    return ops.rope(q, step.positions, table, style=style), ops.rope(k, step.positions, table, style=style)


def attention(
    q: Tensor, k: Tensor, v: Tensor, w: Layer, step: StepSymbols, *, scale: float = 0.0, window: int = 0,
    cap: float = 0.0, chunked: bool = False,
) -> Tensor:  # fmt: skip
    """q [T, H, d] over the layer's keys and values so far, with k and v [T, K, d] among them, projected to [T, D].

    scale: of scores; 0: d**-0.5. window, cap, chunked: as of `Paged` and `ops.attention`.
    """
    _, of_queries, width = q.shape
    cache = w.cache(Paged(int(k.shape[1]), int(width), int(width), window, chunked=chunked and window > 0))
    ops.remember(k, v, cache, step.step)
    out = ops.attention(q, cache, step.step, scale=scale or int(width) ** -0.5, cap=cap)  # [T, H, d]
    return project(out.reshape("T", int(of_queries) * int(width)), w, "attn_output")


def attend(
    h: Tensor, w: Layer, s: LayerSizes, step: StepSymbols, table: Constant | None, style: str, *, scale: float = 0.0,
    window: int = 0, cap: float = 0.0,
) -> Tensor:  # fmt: skip
    """Self-attention of a layer over its input h [T, D], with nothing between projections and rotation.

    table, style: as of `ops.rope`; None where nothing rotates. scale, window, cap: as of `attention`.
    """
    q, k, v = queries_keys_values(h, w, s)
    if table is not None:
        q, k = rotated(q, k, step, table, style)
    return attention(q, k, v, w, step, scale=scale, window=window, cap=cap)


def logits(m: Model, x: Tensor, step: StepSymbols, eps: float) -> Tensor:
    """The norm of the rows that are wanted of x [T, D], times the head, which may be the embedding: [R, V]."""
    x = ops.rms_norm(ops.rows(x, step.logit_rows), m.w("output_norm"), eps=eps)  # [R, D]
    return ops.linear(x, m.w("output", otherwise="token_embd"))


def feed_forward(h: Tensor, w: Layer, act: str) -> Tensor:
    """The gated feed-forward network, act(h G') * (h U') down to [T, D] (Shazeer 2020, arXiv 2002.05202)."""
    gated = ops.glu(project(h, w, "ffn_gate"), project(h, w, "ffn_up"), act=act)  # [T, F]
    return project(gated, w, "ffn_down")


def plain_feed_forward(h: Tensor, w: Layer, act: str) -> Tensor:
    """The feed-forward network without a gate, act(h U') down to [T, D]."""
    return project(ops.activate(project(h, w, "ffn_up"), act=act), w, "ffn_down")
