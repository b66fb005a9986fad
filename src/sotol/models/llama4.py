"""Llama 4 (Scout, Maverick), its text: chunks of attention, layers without RoPE, and experts that weigh what goes in.

Source: Hugging Face's modeling_llama4.py (Meta 2025); the temperature of layers without RoPE is Nakanishi's (arXiv
2501.19399). Most layers attend within chunks of positions and rotate; each fourth one does neither. A token takes the
experts of the largest logits, and their inputs are multiplied by the sigmoids of these; one more expert reads every
token. GGUF has no keys for the chunks, the temperature, the pattern of layers, nor whether queries and keys are
normalised: all is as released models have it, and so llama.cpp takes it.
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, F feed-forward width,
V vocabulary, E experts, f their width.
"""

from typing import NamedTuple

import numpy as np

from sotol import numerics
from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint
from sotol.models.binding.bind import Name, Table
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.binding.sizes import Sizes
from sotol.models.model import Layer, Model, StepSymbols
from sotol.models.parts import decoder, mixtures
from sotol.models.parts.decoder import attention, feed_forward, logits, project, queries_keys_values, rotated
from sotol.models.parts.experts import Experts, choose, expert_names, networks, read_experts, shared_expert
from sotol.models.parts.rope import Rope
from sotol.program import ops
from sotol.program.program import Constant, Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS: Table = {
    **decoder.WEIGHTS,
    **decoder.DIVISORS,
    "blk.{}.ffn_gate": Name("model.layers.{}.feed_forward.gate_proj", "F D"),
    "blk.{}.ffn_up": Name("model.layers.{}.feed_forward.up_proj", "F D"),
    "blk.{}.ffn_down": Name("model.layers.{}.feed_forward.down_proj", "D F"),
    "blk.{}.ffn_gate_inp": Name("model.layers.{}.feed_forward.router", "E D"),
    **expert_names("model.layers.{}.feed_forward.experts"),
    "blk.{}.ffn_gate_shexp": Name("model.layers.{}.feed_forward.shared_expert.gate_proj", "f D"),
    "blk.{}.ffn_up_shexp": Name("model.layers.{}.feed_forward.shared_expert.up_proj", "f D"),
    "blk.{}.ffn_down_shexp": Name("model.layers.{}.feed_forward.shared_expert.down_proj", "D f"),
}

KEYS: Keys = {
    **mixtures.KEYS,
    "feed_forward_length": ("intermediate_size_mlp",),
    "expert_feed_forward_length": ("intermediate_size",),
    "interleave_moe_layer_step": ("interleave_moe_layer_step",),
    "moe_layers": ("moe_layers",),  # GGUF has no such key, nor the next ones
    "attention.sliding_window": ("attention_chunk_size",),  # of it, only where it says that there are no chunks
    "chunked_layers": ("layer_types",),
    "rope.layers": ("no_rope_layers", "no_rope_layer_interval"),
    "attention.normalised": ("use_qk_norm",),
    "attention.temperature_scale": ("attn_scale",),
    "attention.temperature_length": ("floor_scale",),
    "attention.temperature": ("attn_temperature_tuning",),
}
PERIOD, CHUNK, GROWTH, SPAN = 4, 8192, 0.1, 8192  # of released models
EXPERTS_OF_MAVERICK = 128  # which does not normalise queries and keys


class Config(NamedTuple):
    """What the metadata says of a Llama 4."""

    sizes: Sizes
    eps: float
    rope: Rope
    rotates: tuple[bool, ...]  # each layer
    chunks: tuple[int, ...]  # of each layer: positions that see each other; 0: all do
    mixed: tuple[bool, ...]  # each layer: whether it has experts
    experts: Experts
    normalised: bool  # whether rotated queries and keys are
    growth: float  # of queries that do not rotate, with the logarithm of the spans that came before; 0: none
    span: int  # positions whose queries grow alike

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        sizes, eps, rope = decoder.Config.read(metadata, checkpoint)
        in_gguf, layers = metadata.keys is None, sizes.layers
        chunk = metadata.integer("attention.sliding_window", CHUNK if in_gguf else 0, least=0)
        plain = in_gguf and not chunk  # a model without any chunks rotates in all layers
        rotates = (True,) * layers if plain else metadata.layer_flags("rope.layers", layers, PERIOD, ("rope", "none"))
        chunked = rotates
        if metadata.has("chunked_layers"):
            chunked = metadata.layer_flags("chunked_layers", layers, 0, ("chunked_attention", "full_attention"))
        chosen = read_experts(metadata, scores="chosen_sigmoid", normalised=False)
        grows = not plain and metadata.find("attention.temperature") not in (False, 0)
        return cls(
            sizes,
            eps,
            rope,
            rotates,
            tuple(chunk if flag else 0 for flag in chunked),
            _read_mixed(metadata, layers),
            chosen._replace(scores="chosen_sigmoid"),
            metadata.flag("attention.normalised", chosen.number != EXPERTS_OF_MAVERICK),
            metadata.number("attention.temperature_scale", GROWTH) if grows else 0.0,
            metadata.integer("attention.temperature_length", SPAN),
        )

    def temperature(self, context: int) -> Constant | None:
        """What queries that do not rotate are multiplied with at each position, float32 [context], if they grow."""
        if not self.growth:
            return None
        before = np.floor((np.arange(context) + 1.0) / self.span)
        return Constant("temperature", (1 + self.growth * numerics.log(1.0 + before)).astype(np.float32))


def _read_mixed(metadata: Metadata, layers: int) -> tuple[bool, ...]:
    listed = metadata.find("moe_layers")
    if listed is None:
        step = metadata.integer("interleave_moe_layer_step", 1, least=0)
        return tuple(step > 0 and (i + 1) % step == 0 for i in range(layers))
    if not isinstance(listed, list) or not all(isinstance(i, int) for i in listed):
        raise ModelError(f"config.json's moe_layers is {str(listed)[:40]!r}, not a list of layers")
    return tuple(i in listed for i in range(layers))


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    table, temperature = c.rope.table("rope", m.context, m.divisors("rope_freqs")), c.temperature(m.context)
    ones = Constant("ones", np.ones(c.sizes.head_width, np.float32))
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        h, s = ops.rms_norm(x, w("attn_norm"), eps=c.eps), c.sizes.of(w.index)
        q, k, v = queries_keys_values(h, w, s)
        if c.rotates[w.index]:
            q, k = rotated(q, k, step, table, "pairs")
            if c.normalised:
                q, k = ops.rms_norm(q, ones, eps=c.eps), ops.rms_norm(k, ones, eps=c.eps)
        elif temperature is not None:
            q = ops.scale_by_position(q, step.positions, temperature)
        x = x + attention(q, k, v, w, step, window=c.chunks[w.index], chunked=True)
        h = ops.rms_norm(x, w("ffn_norm"), eps=c.eps)
        x = x + (mixture(h, w, c.experts) if c.mixed[w.index] else feed_forward(h, w, "silu"))
    return logits(m, x, step, c.eps)


def mixture(h: Tensor, w: Layer, c: Experts) -> Tensor:
    """The shared expert's network over h [T, D], and the sum of the chosen ones', which read h times their weights."""
    choice, weights = choose(project(h, w, "ffn_gate_inp"), w, c)  # both [T, k]
    out = networks(ops.spread(h, weights), choice, w, "silu")  # [T, k, D]
    return shared_expert(h, w, "silu") + ops.combine(out, weights, weighted=False)
