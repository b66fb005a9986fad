"""Gemma 4, text: wide heads where all is seen, keys that are values, layers that read another's cache, a second stream.

Source: Hugging Face's modeling_gemma4.py (Gemma team 2026). What not all models have: experts beside the feed-forward
network (26B-A4B); values that are the keys before their norm and rotation (31B); an embedding of the token for each
layer, and last layers that keep nothing and read the cache of the last one of their kind that does (E2B, E4B).
llama.cpp takes the last two layers that keep something for one of each kind, and caps logits at 30 where a file has no
cap.
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, F feed-forward width,
V vocabulary, N layers, p width of a layer's own embedding, E experts, f their width, r half of the widest head.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint
from sotol.models.binding.bind import Name, Table
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.binding.sizes import Sizes, read_sizes
from sotol.models.model import Layer, Model, StepSymbols
from sotol.models.parts import decoder, mixtures
from sotol.models.parts.decoder import WINDOW_KEYS, feed_forward, heads, logits, project, read_windows
from sotol.models.parts.experts import Experts, choose, expert_names, networks, read_experts
from sotol.models.parts.rope import Rope
from sotol.program import ops
from sotol.program.memory import Paged
from sotol.program.program import Constant, Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS: Table = {
    **decoder.WEIGHTS,
    **decoder.HEAD_NORMS,
    "rope_freqs": Name("", "r"),  # divisors of the wide heads' frequencies: 1, and huge for pairs that do not rotate
    "per_layer_token_embd": Name("model.embed_tokens_per_layer", "V N*p"),
    "per_layer_model_proj": Name("model.per_layer_model_projection", "N*p D"),
    "per_layer_proj_norm": Name("model.per_layer_projection_norm", "p"),
    "blk.{}.post_attention_norm": Name("model.layers.{}.post_attention_layernorm", "D"),
    "blk.{}.ffn_norm": Name("model.layers.{}.pre_feedforward_layernorm", "D"),
    "blk.{}.post_ffw_norm": Name("model.layers.{}.post_feedforward_layernorm", "D"),
    "blk.{}.post_ffw_norm_1": Name("model.layers.{}.post_feedforward_layernorm_1", "D"),
    "blk.{}.pre_ffw_norm_2": Name("model.layers.{}.pre_feedforward_layernorm_2", "D"),
    "blk.{}.post_ffw_norm_2": Name("model.layers.{}.post_feedforward_layernorm_2", "D"),
    "blk.{}.ffn_gate_inp": Name("model.layers.{}.router.proj", "E D"),
    "blk.{}.ffn_gate_inp.scale": Name("model.layers.{}.router.scale", "D"),
    **expert_names("model.layers.{}.experts"),
    "blk.{}.ffn_down_exps.scale": Name("model.layers.{}.router.per_expert_scale", "E"),
    "blk.{}.inp_gate": Name("model.layers.{}.per_layer_input_gate", "p D"),
    "blk.{}.proj": Name("model.layers.{}.per_layer_projection", "D p"),
    "blk.{}.post_norm": Name("model.layers.{}.post_per_layer_input_norm", "D"),
    "blk.{}.layer_output_scale": Name("model.layers.{}.layer_scalar", "1"),
}

KEYS: Keys = {
    **mixtures.KEYS,
    **WINDOW_KEYS,
    "expert_used_count": ("top_k_experts",),
    "attention.key_length": ("global_head_dim",),
    "attention.value_length": (),
    "attention.key_length_swa": ("head_dim",),
    "attention.shared_kv_layers": ("num_kv_shared_layers",),
    "embedding_length_per_layer_input": ("hidden_size_per_layer_input",),
    "final_logit_softcapping": ("final_logit_softcapping",),
    "rope.freq_base": ("rope_parameters.full_attention.rope_theta",),
    "rope.freq_base_swa": ("rope_parameters.sliding_attention.rope_theta",),
    "rope.partial_rotary_factor": ("rope_parameters.full_attention.partial_rotary_factor",),  # no key of GGUF from here
    "global_kv_heads": ("num_global_key_value_heads",),
    "layer_sizes": ("per_layer_config",),
    "keys_are_values": ("attention_k_eq_v",),
    "double_width": ("use_double_wide_mlp",),
    "has_experts": ("enable_moe_block",),
}
GLOBAL_WIDTH, ROTATING = 512, 0.25  # of wide heads: channels, and the share that rotates; where config.json is silent
TURNED = 1e20  # of the divisors of pairs that rotate, none is as large


class Config(NamedTuple):
    """What the metadata says of a Gemma 4."""

    sizes: Sizes  # head_width: of windowed layers
    global_width: int  # of the heads of the others
    eps: float
    windows: tuple[int, ...]  # of each layer: keys that a token sees, itself included; 0: all
    rope: Rope  # of layers that see everything
    local_rope: Rope  # of windowed layers
    donors: tuple[int, ...]  # of each layer: whose cache it reads; its own, unless it is one of the last
    own_width: int  # of each layer's own embedding; 0: there are none
    logit_cap: float  # 0: none
    experts: Experts | None

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        metadata.expect("hidden_activation", "gelu_pytorch_tanh")
        metadata.expect("use_bidirectional_attention", "vision")  # of images alone
        metadata.expect("rope_parameters.full_attention.rope_type", "proportional")
        metadata.expect("rope_parameters.full_attention.factor", 1.0)
        metadata.expect("rope_parameters.sliding_attention.rope_type", "default")
        local = metadata.integer("attention.key_length_swa", least=2)
        sizes = read_sizes(metadata, checkpoint, head_width=local)
        windows, said = read_windows(metadata, sizes.layers, 6), _full_layer(metadata, sizes.layers)
        width = metadata.integer("attention.key_length", said.get("head_dim", GLOBAL_WIDTH), least=2)
        shared = metadata.integer("attention.shared_kv_layers", 0, least=0)
        share = metadata.number("rope.partial_rotary_factor", 1.0 if metadata.has("rope.freq_base") else ROTATING)
        turning = int(share * width) // 2
        if local % 2 or width % 2 or not 1 <= turning <= width // 2:
            raise ModelError(
                f"{checkpoint.path}: heads of {local} and of {width} channels can't rotate, {turning} pairs of these"
            )
        has_experts = metadata.integer("expert_count", 0, least=0) > 0 and metadata.find("has_experts") is not False
        return cls(
            _sizes_of_layers(metadata, sizes, windows, shared, said),
            width,
            metadata.number("attention.layer_norm_rms_epsilon"),
            windows,
            Rope(turning, metadata.number("rope.freq_base", 1e6), whole=width // 2),
            Rope(local // 2, metadata.number("rope.freq_base_swa", 1e4)),
            _donors(windows, shared),
            metadata.integer("embedding_length_per_layer_input", 0, least=0),
            metadata.number("final_logit_softcapping", 0.0, zero=True),
            read_experts(metadata, normalised=True) if has_experts else None,
        )

    def width(self, layer: int) -> int:
        """Of a layer's heads."""
        return self.sizes.head_width if self.windows[layer] else self.global_width

    def letters(self, layer: int | None) -> Mapping[str, int]:
        letters = {**self.sizes.letters(layer), "r": self.global_width // 2}
        letters |= {"1": 1, "N": self.sizes.layers, "p": self.own_width}
        letters |= self.experts.letters(layer) if self.experts else {"E": 0, "f": 0}
        return letters if layer is None else {**letters, "d": self.width(layer)}


def _full_layer(metadata: Metadata, layers: int) -> Mapping[str, int]:
    """What config.json says of the last layer, which sees everything, apart from others: transformers 5 writes so."""
    said = metadata.find("layer_sizes")
    own = {str(key): value for key, value in said.items()} if isinstance(said, Mapping) else {}
    last = own.get(str(layers - 1), {})
    return {key: value for key, value in last.items() if isinstance(value, int)} if isinstance(last, Mapping) else {}


def _sizes_of_layers(
    metadata: Metadata, sizes: Sizes, windows: tuple[int, ...], shared: int, said: Mapping[str, int]
) -> Sizes:
    """The sizes with what config.json says of some kinds of layers: GGUF has a list, which is read already."""
    kv_heads, ffn_width = sizes.kv_heads, sizes.ffn_width
    count = said.get("num_key_value_heads", kv_heads[-1])
    if metadata.find("keys_are_values"):
        count = metadata.integer("global_kv_heads", count)
    if metadata.keys is not None:
        kv_heads = tuple(own if window else count for own, window in zip(kv_heads, windows, strict=True))
    if metadata.find("double_width"):
        ffn_width = tuple(width * (1 if i < sizes.layers - shared else 2) for i, width in enumerate(ffn_width))
    for of_queries, of_keys in zip(sizes.heads, kv_heads, strict=True):
        if of_queries % of_keys:
            raise ModelError(f"a gemma4's {of_queries} query heads can't share {of_keys} key-value heads evenly")
    return sizes._replace(kv_heads=kv_heads, ffn_width=ffn_width)


def _donors(windows: tuple[int, ...], shared: int) -> tuple[int, ...]:
    own = len(windows) - shared
    donors = list(range(max(own, 0)))
    for layer in range(max(own, 0), len(windows)):
        alike = [i for i in range(own) if bool(windows[i]) == bool(windows[layer])]
        if not alike:
            raise ModelError(f"layer {layer} reads the cache of one of its kind: there is none among the first {own}")
        donors.append(alike[-1])
    return tuple(donors)


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    full, local = full_rope(m, c).table("rope", m.context), c.local_rope.table("rope_local", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    # In float32, as llama.cpp has it; Hugging Face's code rounds the factor to the type that a model runs in.
    x = ops.scale(x, factor=c.sizes.width**0.5)
    own = own_embeddings(m, c, x, step) if c.own_width else None
    for w in m.layers():
        table = local if c.windows[w.index] else full
        h = attend(ops.rms_norm(x, w("attn_norm"), eps=c.eps), w, c, step, table)
        x = x + ops.rms_norm(h, w("post_attention_norm"), eps=c.eps)
        h = feed_forward(ops.rms_norm(x, w("ffn_norm"), eps=c.eps), w, "gelu_tanh")
        if c.experts is not None:
            h = ops.rms_norm(h, w("post_ffw_norm_1"), eps=c.eps)
            h = h + ops.rms_norm(mixture(m, c, c.experts, w, x), w("post_ffw_norm_2"), eps=c.eps)
        x = x + ops.rms_norm(h, w("post_ffw_norm"), eps=c.eps)
        if own is not None:
            this = ops.part(own, begin=w.index * c.own_width, n=c.own_width)  # [T, p]
            gated = ops.glu(project(x, w, "inp_gate"), this, act="gelu_tanh")
            x = x + ops.rms_norm(project(gated, w, "proj"), w("post_norm"), eps=c.eps)
        if w.has("layer_output_scale"):
            x = ops.scale(x, factor=float(m.numbers(f"blk.{w.index}.layer_output_scale")[0]))
    x = logits(m, x, step, c.eps)
    return ops.soft_cap(x, cap=c.logit_cap) if c.logit_cap else x


def full_rope(m: Model, c: Config) -> Rope:
    """The rotation of layers that see everything; how many pairs rotate, GGUF files say by divisors."""
    if (divisors := m.divisors("rope_freqs")) is None:
        return c.rope
    turning = int((divisors < TURNED).sum())
    if not turning or (divisors[:turning] != 1).any():
        raise ModelError("weight rope_freqs must have ones, and behind them huge numbers")
    return c.rope._replace(pairs=turning)


def own_embeddings(m: Model, c: Config, x: Tensor, step: StepSymbols) -> Tensor:
    """All layers' own embeddings of the tokens, from a table and from x [T, D]: [T, N p]."""
    layers, width = c.sizes.layers, c.own_width
    rows = ops.scale(ops.embed(m.w("per_layer_token_embd"), step.tokens), factor=width**0.5)  # [T, N p]
    projected = ops.scale(ops.linear(x, m.w("per_layer_model_proj")), factor=c.sizes.width**-0.5)
    projected = ops.rms_norm(projected.reshape("T", layers, width), m.w("per_layer_proj_norm"), eps=c.eps)
    return ops.scale(projected.reshape("T", layers * width) + rows, factor=2**-0.5)


def attend(h: Tensor, w: Layer, c: Config, step: StepSymbols, table: Constant) -> Tensor:
    """Self-attention of a layer over its input's norm, h [T, D]."""
    donor, window, width = c.donors[w.index], c.windows[w.index], c.width(w.index)
    of_queries, of_keys = c.sizes.heads[w.index], c.sizes.kv_heads[donor]
    q = ops.rms_norm(heads(h, w, "attn_q", of_queries), w("attn_q_norm"), eps=c.eps)
    q = ops.rope(q, step.positions, table, style="middle")
    cache = w.cache(Paged(of_keys, width, width, window), of=donor)
    if donor == w.index:
        k = heads(h, w, "attn_k", of_keys)
        v = heads(h, w, "attn_v", of_keys) if window or w.has("attn_v") else k
        k = ops.rope(ops.rms_norm(k, w("attn_k_norm"), eps=c.eps), step.positions, table, style="middle")
        v = ops.rms_norm(v, Constant("ones", np.ones(width, np.float32)), eps=c.eps)
        ops.remember(k, v, cache, step.step)
    else:
        w.leave("attn_k", "attn_v", "attn_k_norm", "attn_k.bias", "attn_v.bias")
    out = ops.attention(q, cache, step.step, scale=1.0)  # [T, H, d]
    return project(out.reshape("T", of_queries * width), w, "attn_output")


def mixture(m: Model, c: Config, of: Experts, w: Layer, x: Tensor) -> Tensor:
    """The experts' networks, chosen by the stream x [T, D] itself: [T, D]."""
    scale = m.numbers(f"blk.{w.index}.ffn_gate_inp.scale") * c.sizes.width**-0.5
    chooser = ops.rms_norm(x, Constant("router_scale", scale.astype(np.float32)), eps=c.eps)
    choice, weights = choose(project(chooser, w, "ffn_gate_inp"), w, of)  # both [T, k]
    weights = ops.scale_choices(weights, choice, w("ffn_down_exps.scale"))
    h = ops.rms_norm(x, w("pre_ffw_norm_2"), eps=c.eps)
    return ops.combine(networks(h, choice, w, "gelu_tanh"), weights)
