"""LFM2 and LFM2-MoE: gated convolutions over a few tokens, with now and then a layer of attention.

Paper: Liquid AI 2025 (arXiv 2511.23404); facts that it leaves out are from Hugging Face's modeling_lfm2.py and
modeling_lfm2_moe.py. llama.cpp divides the chosen experts' weights by their sum, and does not scale them, whatever the
file says (expert_weights_norm, expert_weights_scale).
T tokens, R rows with logits, D width, C = D and B = 3 D in layers of convolutions, t taps, H query heads, K key-value
heads, d head width, F feed-forward width, V vocabulary, E experts, f their width.
"""

from collections.abc import Mapping
from typing import NamedTuple

from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint
from sotol.models import qwen3
from sotol.models.binding.bind import Name, Table
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.binding.sizes import Sizes, read_sizes
from sotol.models.model import Layer, Model, StepSymbols
from sotol.models.parts import mixtures
from sotol.models.parts.decoder import feed_forward
from sotol.models.parts.experts import Experts, expert_names, mixture, read_experts
from sotol.models.parts.recurrent import convolve
from sotol.models.parts.rope import Rope, read_rope
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

ATTENTION, NETWORK = "model.layers.{}.self_attn", "model.layers.{}.feed_forward"

WEIGHTS: Table = {
    "token_embd": Name("model.embed_tokens", "V D"),
    "token_embd_norm": Name("model.embedding_norm", "D"),  # it is the last norm all the same
    "output": Name("lm_head", "V D"),
    "blk.{}.attn_norm": Name("model.layers.{}.operator_norm", "D"),
    "blk.{}.attn_q": Name(f"{ATTENTION}.q_proj", "H*d D"),
    "blk.{}.attn_k": Name(f"{ATTENTION}.k_proj", "K*d D"),
    "blk.{}.attn_v": Name(f"{ATTENTION}.v_proj", "K*d D"),
    "blk.{}.attn_output": Name(f"{ATTENTION}.out_proj", "D H*d"),
    "blk.{}.attn_q_norm": Name(f"{ATTENTION}.q_layernorm", "d"),
    "blk.{}.attn_k_norm": Name(f"{ATTENTION}.k_layernorm", "d"),
    "blk.{}.shortconv.in_proj": Name("model.layers.{}.conv.in_proj", "B D"),
    "blk.{}.shortconv.conv": Name("model.layers.{}.conv.conv", "C t"),
    "blk.{}.shortconv.out_proj": Name("model.layers.{}.conv.out_proj", "D C"),
    "blk.{}.ffn_norm": Name("model.layers.{}.ffn_norm", "D"),
    "blk.{}.ffn_gate": Name(f"{NETWORK}.w1", "F D"),
    "blk.{}.ffn_up": Name(f"{NETWORK}.w3", "F D"),
    "blk.{}.ffn_down": Name(f"{NETWORK}.w2", "D F"),
    "blk.{}.ffn_gate_inp": Name(f"{NETWORK}.gate", "E D"),
    "blk.{}.exp_probs_b.bias": Name(f"{NETWORK}.expert_bias", "E"),
    **expert_names(f"{NETWORK}.experts"),
}

KEYS: Keys = {
    **mixtures.KEYS,
    "feed_forward_length": ("block_ff_dim", "intermediate_size"),
    "attention.layer_norm_rms_epsilon": ("norm_eps",),
    "shortconv.l_cache": ("conv_L_cache",),
    "leading_dense_block_count": ("num_dense_layers",),
    # GGUF has none of these: a layer of convolutions has no key-value heads, and the width is that of the network.
    "layer_kinds": ("layer_types",),
    "layers_with_attention": ("full_attn_idxs",),
    "width_is_adjusted": ("block_auto_adjust_ff_dim",),
    "width_factor": ("block_ffn_dim_multiplier",),
    "width_multiple": ("block_multiple_of",),
}

KINDS = ("conv", "full_attention")  # of layers, by config.json


class Config(NamedTuple):
    """What the metadata says of an LFM2."""

    sizes: Sizes
    eps: float
    rope: Rope
    convolved: tuple[bool, ...]  # of each layer: whether it is a convolution; else it has attention
    taps: int
    dense: int  # how many layers come first that have no experts
    experts: Experts | None

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        metadata.expect("conv_bias", False)
        sizes = read_sizes(metadata, checkpoint, least=0)
        convolved = read_convolved(metadata, sizes)
        sizes = sizes._replace(
            kv_heads=tuple(0 if one else n for n, one in zip(sizes.kv_heads, convolved, strict=True)),
            ffn_width=tuple(adjusted(width, metadata) for width in sizes.ffn_width),
        )
        with_experts = metadata.has("expert_count")
        return cls(
            sizes,
            metadata.number("attention.layer_norm_rms_epsilon"),
            read_rope(metadata, sizes.head_width),
            convolved,
            metadata.integer("shortconv.l_cache", least=2),
            metadata.integer("leading_dense_block_count", 0, least=0) if with_experts else sizes.layers,
            read_experts(metadata, scores="sigmoid", normalised=True) if with_experts else None,
        )

    def letters(self, layer: int | None) -> Mapping[str, int]:
        convolved = layer is not None and self.convolved[layer]
        chosen = self.experts if layer is not None and layer >= self.dense else None
        letters = dict(self.sizes.letters(layer, attends=not convolved, network=chosen is None))
        if convolved:
            letters |= {"C": letters["D"], "B": 3 * letters["D"], "t": self.taps}
        return letters if chosen is None else {**letters, **chosen.letters(layer)}


def read_convolved(metadata: Metadata, sizes: Sizes) -> tuple[bool, ...]:
    """Of each layer: whether it is a convolution. ModelError for a list that is none of layers."""
    if metadata.has("layer_kinds"):
        return metadata.layer_flags("layer_kinds", sizes.layers, 0, KINDS)
    attending = metadata.find("layers_with_attention")
    if attending is None:
        return tuple(count == 0 for count in sizes.kv_heads)
    if not isinstance(attending, list) or any(type(i) is not int for i in attending):
        raise ModelError(f"config.json's full_attn_idxs is {str(attending)[:40]!r}, not a list of layers")
    return tuple(i not in attending for i in range(sizes.layers))


def adjusted(width: int, metadata: Metadata) -> int:
    """The width of the feed-forward network: config.json may have that of one without a gate, as GGUF never has."""
    if not metadata.flag("width_is_adjusted", False):
        return width
    multiple = metadata.integer("width_multiple", 256)
    width = int(metadata.number("width_factor", 1.0) * int(2 * width / 3))
    return -(-width // multiple) * multiple


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    table = c.rope.table("rope", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        h = ops.rms_norm(x, w("attn_norm"), eps=c.eps)
        x = x + (convolution(h, w, step) if c.convolved[w.index] else qwen3.attend(h, w, c, step, table))
        h = ops.rms_norm(x, w("ffn_norm"), eps=c.eps)
        if c.experts is not None and w.index >= c.dense:
            x = x + mixture(h, w, c.experts, "silu")
        else:
            x = x + feed_forward(h, w, "silu")
    x = ops.rms_norm(ops.rows(x, step.logit_rows), m.w("token_embd_norm"), eps=c.eps)  # [R, D]
    return ops.linear(x, m.w("output", otherwise="token_embd"))


def convolution(h: Tensor, w: Layer, step: StepSymbols) -> Tensor:
    """A gated convolution of h [T, D]: gates before it and behind it are projections of h, too. [T, D]."""
    whole = w("shortconv.in_proj")
    width = whole.shape[0] // 3
    before, behind, x = (ops.linear(h, whole.part(i * width, (i + 1) * width)) for i in range(3))
    mixed = convolve(ops.glu(before, x, act="bilinear"), w, "shortconv.conv", step)
    return ops.linear(ops.glu(behind, mixed, act="bilinear"), w("shortconv.out_proj"))
