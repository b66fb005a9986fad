"""What the decoders here have in common: sizes, the usual config, names of weights, a few lines of their forwards.

T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, F feed-forward width,
V vocabulary.
"""

from collections.abc import Mapping
from typing import NamedTuple

from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint
from sotol.models.metadata import Fields
from sotol.models.model import Layer, Table
from sotol.models.rope import Rope, read_rope
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["WEIGHTS", "Config", "Sizes", "feed_forward", "heads", "project", "read_sizes"]

WIDEST_HEAD = 4096  # far beyond any model's

# Every projection of attention may have a bias, as `attention_bias` of transformers' configs gives them.
WEIGHTS: Table = {
    "token_embd": ("model.embed_tokens", "V D"),
    "output_norm": ("model.norm", "D"),
    "output": ("lm_head", "V D"),
    "blk.{}.attn_norm": ("model.layers.{}.input_layernorm", "D"),
    "blk.{}.attn_q": ("model.layers.{}.self_attn.q_proj", "H*d D"),
    "blk.{}.attn_k": ("model.layers.{}.self_attn.k_proj", "K*d D"),
    "blk.{}.attn_v": ("model.layers.{}.self_attn.v_proj", "K*d D"),
    "blk.{}.attn_output": ("model.layers.{}.self_attn.o_proj", "D H*d"),
    "blk.{}.attn_q.bias": ("model.layers.{}.self_attn.q_proj.bias", "H*d"),
    "blk.{}.attn_k.bias": ("model.layers.{}.self_attn.k_proj.bias", "K*d"),
    "blk.{}.attn_v.bias": ("model.layers.{}.self_attn.v_proj.bias", "K*d"),
    "blk.{}.attn_output.bias": ("model.layers.{}.self_attn.o_proj.bias", "D"),
    "blk.{}.ffn_norm": ("model.layers.{}.post_attention_layernorm", "D"),
    "blk.{}.ffn_gate": ("model.layers.{}.mlp.gate_proj", "F D"),
    "blk.{}.ffn_up": ("model.layers.{}.mlp.up_proj", "F D"),
    "blk.{}.ffn_down": ("model.layers.{}.mlp.down_proj", "D F"),
}


class Sizes(NamedTuple):
    """Counts and widths of a decoder."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    ffn_width: int
    vocabulary: int

    @property
    def letters(self) -> Mapping[str, int]:
        """By the letters that tables of weights use."""
        return {
            "D": self.width,
            "H": self.heads,
            "K": self.kv_heads,
            "d": self.head_width,
            "F": self.ffn_width,
            "V": self.vocabulary,
        }


class Config(NamedTuple):
    """The config of a decoder whose layers are all alike."""

    sizes: Sizes
    eps: float
    rope: Rope

    @classmethod
    def read(cls, fields: Fields, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        sizes = read_sizes(fields, checkpoint)
        return cls(sizes, fields.number("attention.layer_norm_rms_epsilon"), read_rope(fields, sizes.head_width))

    @property
    def layers(self) -> int:
        return self.sizes.layers

    @property
    def dims(self) -> Mapping[str, int]:
        return {**self.sizes.letters, "r": self.rope.pairs}


def read_sizes(fields: Fields, checkpoint: Checkpoint) -> Sizes:
    """The sizes, from the metadata; the vocabulary from the embedding matrix. ModelError where they disagree."""
    embedding = checkpoint.weights.get("token_embd.weight")
    if embedding is None or len(embedding.shape) < 2:
        raise ModelError(f"{checkpoint.path}: weight token_embd.weight is missing or no matrix")
    layers = fields.integer("block_count")
    if layers > len(checkpoint.weights):
        raise ModelError(f"{checkpoint.path}: {len(checkpoint.weights)} weights can't be block_count = {layers} layers")
    width, heads = fields.integer("embedding_length"), fields.integer("attention.head_count")
    kv_heads = fields.integer("attention.head_count_kv", heads)
    if heads % kv_heads:
        raise ModelError(f"{checkpoint.path}: {heads} query heads can't share {kv_heads} key-value heads evenly")
    if not fields.has("attention.key_length") and width % heads:
        raise ModelError(f"{checkpoint.path}: width {width} is no multiple of {heads} heads")
    head_width = fields.integer("attention.key_length", width // heads)
    if head_width > WIDEST_HEAD:
        raise ModelError(f"{checkpoint.path}: heads of width {head_width} are wider than the {WIDEST_HEAD} of sotol")
    if fields.integer("attention.value_length", head_width) != head_width:
        raise ModelError(f"{checkpoint.path}: keys and values of different widths are not supported")
    ffn_width = fields.integer("feed_forward_length")
    return Sizes(layers, width, heads, kv_heads, head_width, ffn_width, embedding.shape[-2])


def project(x: Tensor, w: Layer, name: str, *, biased: bool = False) -> Tensor:
    """x [T, N] times the matrix of this name, plus its bias: [T, M]. biased: the file must have one; else it may."""
    projected = ops.linear(x, w(name))
    return ops.add_bias(projected, w(f"{name}.bias")) if biased or w.has(f"{name}.bias") else projected


def heads(x: Tensor, w: Layer, name: str, count: int, *, biased: bool = False) -> Tensor:
    """A projection of x [T, D] cut into heads: [T, count, d]."""
    projected = project(x, w, name, biased=biased)
    return projected.reshape("T", count, int(projected.shape[1]) // count)


def feed_forward(h: Tensor, w: Layer, act: str) -> Tensor:
    """The gated feed-forward network, act(h G') * (h U') down to [T, D] (Shazeer 2020, arXiv 2002.05202)."""
    gated = ops.glu(project(h, w, "ffn_gate"), project(h, w, "ffn_up"), act=act)  # [T, F]
    return project(gated, w, "ffn_down")
