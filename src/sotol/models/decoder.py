"""What the decoders here have in common: sizes, the usual config, names of weights, a few lines of their forwards.

T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, F feed-forward width,
V vocabulary.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint
from sotol.models.bind import GGUF_DRAFTS, Name, Table
from sotol.models.metadata import Keys, Metadata
from sotol.models.model import Layer, Model, StepSymbols
from sotol.models.rope import ROPE_KEYS, Rope, read_rope
from sotol.program import ops
from sotol.program.memory import Paged
from sotol.program.program import Constant, Tensor

__all__ = [
    "KEYS", "KINDS", "WEIGHTS", "WINDOW_KEYS", "Config", "LayerSizes", "Sizes", "attend", "attention", "feed_forward",
    "heads", "logits", "plain_feed_forward", "project", "queries_keys_values", "read_sizes", "read_windows", "rotated",
]  # fmt: skip

WIDEST_HEAD = 4096  # far beyond any model's

# Every projection of attention may have a bias, as `attention_bias` of transformers' configs gives them.
WEIGHTS: Table = {
    "token_embd": Name("model.embed_tokens", "V D"),
    "output_norm": Name("model.norm", "D"),
    "output": Name("lm_head", "V D"),
    "blk.{}.attn_norm": Name("model.layers.{}.input_layernorm", "D"),
    "blk.{}.attn_q": Name("model.layers.{}.self_attn.q_proj", "H*d D"),
    "blk.{}.attn_k": Name("model.layers.{}.self_attn.k_proj", "K*d D"),
    "blk.{}.attn_v": Name("model.layers.{}.self_attn.v_proj", "K*d D"),
    "blk.{}.attn_output": Name("model.layers.{}.self_attn.o_proj", "D H*d"),
    "blk.{}.attn_q.bias": Name("model.layers.{}.self_attn.q_proj.bias", "H*d"),
    "blk.{}.attn_k.bias": Name("model.layers.{}.self_attn.k_proj.bias", "K*d"),
    "blk.{}.attn_v.bias": Name("model.layers.{}.self_attn.v_proj.bias", "K*d"),
    "blk.{}.attn_output.bias": Name("model.layers.{}.self_attn.o_proj.bias", "D"),
    "blk.{}.ffn_norm": Name("model.layers.{}.post_attention_layernorm", "D"),
    "blk.{}.ffn_gate": Name("model.layers.{}.mlp.gate_proj", "F D"),
    "blk.{}.ffn_up": Name("model.layers.{}.mlp.up_proj", "F D"),
    "blk.{}.ffn_down": Name("model.layers.{}.mlp.down_proj", "D F"),
}


KEYS: Keys = {
    "block_count": ("num_hidden_layers",),
    "context_length": ("max_position_embeddings",),
    "embedding_length": ("hidden_size",),
    "feed_forward_length": ("intermediate_size",),
    "attention.head_count": ("num_attention_heads",),
    "attention.head_count_kv": ("num_key_value_heads",),
    "attention.key_length": ("head_dim",),
    "attention.value_length": ("head_dim",),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps",),
    **ROPE_KEYS,
}

# Of architectures some of whose layers have a window.
WINDOW_KEYS: Keys = {
    "attention.sliding_window": ("sliding_window",),
    "attention.sliding_window_pattern": ("layer_types", "sliding_window_pattern"),
}
KINDS = ("sliding_attention", "full_attention")  # of layers, by config.json


class LayerSizes(NamedTuple):
    """Counts and widths of one layer."""

    heads: int
    kv_heads: int
    head_width: int
    ffn_width: int


class Sizes(NamedTuple):
    """Counts and widths of a decoder; a tuple has a number for each layer."""

    layers: int
    width: int
    vocabulary: int
    heads: tuple[int, ...]
    kv_heads: tuple[int, ...]
    head_width: int
    ffn_width: tuple[int, ...]

    def of(self, layer: int) -> LayerSizes:
        """The sizes of a layer."""
        return LayerSizes(self.heads[layer], self.kv_heads[layer], self.head_width, self.ffn_width[layer])

    def letters(self, layer: int | None) -> Mapping[str, int]:
        """By the letters that tables of weights use: those of a layer too, if one is given."""
        whole = {"D": self.width, "V": self.vocabulary, "d": self.head_width}
        if layer is None:
            return whole
        s = self.of(layer)
        return {**whole, "H": s.heads, "K": s.kv_heads, "F": s.ffn_width}


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
        sizes = read_sizes(metadata, checkpoint)
        return cls(sizes, metadata.number("attention.layer_norm_rms_epsilon"), read_rope(metadata, sizes.head_width))

    @property
    def layers(self) -> int:
        return self.sizes.layers

    def dims(self, layer: int | None) -> Mapping[str, int]:
        return {**self.sizes.letters(layer), "r": self.rope.pairs}


def read_sizes(
    metadata: Metadata,
    checkpoint: Checkpoint,
    *,
    head_width: int | None = None,
    ffn_width: int | None = None,
    least: int = 1,
) -> Sizes:
    """The sizes, from the metadata; the vocabulary from the embedding matrix. ModelError where they disagree.

    The checkpoint's weights have the table's names. head_width: of architectures that have other keys for it.
    ffn_width: where the metadata has none; None: it must have one. least: 0 where layers may be without attention,
    which then have no key-value heads, or without a feed-forward network. Layers that draft tokens do not count: `bind`
    leaves them out.
    """
    path, embedding = checkpoint.path, checkpoint.weights.get("token_embd")
    if embedding is None or len(embedding.shape) < 2:
        raise ModelError(f"{path}: weight token_embd.weight is missing or no matrix")
    layers, drafts = metadata.integer("block_count"), metadata.integer(GGUF_DRAFTS, 0, least=0)
    if drafts >= layers:
        raise ModelError(f"{path}: block_count is {layers}: more than the {drafts} of {GGUF_DRAFTS} are needed")
    layers -= drafts
    if layers > len(checkpoint.weights):
        raise ModelError(f"{path}: {len(checkpoint.weights)} weights can't be block_count = {layers} layers")
    width, heads = metadata.integer("embedding_length"), metadata.integers("attention.head_count", layers)
    kv_heads = heads
    if metadata.has("attention.head_count_kv"):
        kv_heads = metadata.integers("attention.head_count_kv", layers, least=least)
    for of_queries, of_keys in zip(heads, kv_heads, strict=True):
        if of_keys and of_queries % of_keys:
            raise ModelError(f"{path}: {of_queries} query heads can't share {of_keys} key-value heads evenly")
    if head_width is None:
        head_width = _head_width(metadata, path, width, heads)
    ffn_widths = metadata.integers("feed_forward_length", layers, ffn_width, least=least)
    return Sizes(layers, width, embedding.shape[-2], heads, kv_heads, head_width, ffn_widths)


def _head_width(metadata: Metadata, path: Path, width: int, heads: Sequence[int]) -> int:
    if not metadata.has("attention.key_length") and (width % heads[0] or len(set(heads)) > 1):
        raise ModelError(f"{path}: width {width} is no multiple of {' and '.join(map(str, sorted(set(heads))))} heads")
    head_width = metadata.integer("attention.key_length", width // heads[0])
    if head_width > WIDEST_HEAD:
        raise ModelError(f"{path}: heads of width {head_width} are wider than the {WIDEST_HEAD} of sotol")
    if metadata.integer("attention.value_length", head_width) != head_width:
        raise ModelError(f"{path}: keys and values of different widths are not supported")
    return head_width


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
