"""What decoders with experts have in common: names of weights, the config, which layers have some, the usual forward.

T tokens, R rows with logits, D width, V vocabulary, E experts, s the shared expert's width.
"""

from collections.abc import Mapping
from typing import NamedTuple

from sotol.formats.weights import Checkpoint
from sotol.models.binding.bind import Name, Table
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.binding.sizes import Sizes
from sotol.models.model import Layer, Model, StepSymbols
from sotol.models.parts import decoder, experts
from sotol.models.parts.decoder import attend, logits
from sotol.models.parts.experts import Experts, mixture, shared_expert, shared_names
from sotol.models.parts.rope import Rope
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = [
    "CHOICE_BIAS", "KEYS", "LATER", "LATER_KEYS", "WEIGHTS", "Config", "feed_forward", "forward", "read_decoder",
]  # fmt: skip

# Of decoders all of whose layers have experts.
WEIGHTS: Table = {**decoder.OUTER, **decoder.NORMS, **decoder.ATTENTION, **experts.WEIGHTS}
KEYS: Keys = {**decoder.KEYS, **experts.KEYS}

# Of decoders whose first layers have a feed-forward network, and later ones experts and one that every token takes: the
# networks, to which come `decoder.OUTER`, norms and attention.
LATER: Table = {**decoder.NETWORK, **experts.WEIGHTS, **shared_names("model.layers.{}.mlp.shared_experts")}
CHOICE_BIAS: Table = {"blk.{}.exp_probs_b.bias": Name("model.layers.{}.mlp.gate.e_score_correction_bias", "E")}
LATER_KEYS: Keys = {
    **KEYS,
    "leading_dense_block_count": ("first_k_dense_replace",),
    "expert_shared_count": ("n_shared_experts",),
}


class Config(NamedTuple):
    """The config of a decoder whose layers have experts, all or from one on. Architectures add `read`."""

    sizes: Sizes
    eps: float
    rope: Rope
    experts: Experts
    shared_width: int = 0  # of an expert that every token takes; 0: there is none
    dense: int = 0  # layers before the first one with experts

    @classmethod
    def with_later(cls, usual: decoder.Config, chosen: Experts, metadata: Metadata) -> "Config":
        """Of a decoder whose first layers have none; one network stands for all shared experts."""
        shared = chosen.width * metadata.integer("expert_shared_count", 0, least=0)
        return cls(*usual, chosen, shared, metadata.integer("leading_dense_block_count", 0, least=0))

    @property
    def mixed(self) -> tuple[bool, ...]:
        """Of each layer: whether it has experts; else it has a feed-forward network."""
        return tuple(i >= self.dense for i in range(self.sizes.layers))

    def letters(self, layer: int | None) -> Mapping[str, int]:
        parts = (self.sizes, self.rope, self.experts)
        return {"s": self.shared_width} | {x: size for part in parts for x, size in part.letters(layer).items()}


def read_decoder(metadata: Metadata, checkpoint: Checkpoint) -> decoder.Config:
    """The config of a decoder all of whose layers have experts; ModelError names what is missing, wrong, or not so."""
    metadata.expect("mlp_only_layers", [])  # layers without experts: no released model has any, nor has GGUF a key
    metadata.expect("decoder_sparse_step", 1)
    return decoder.Config.read(metadata, checkpoint)


def feed_forward(h: Tensor, w: Layer, c: Experts, *, mixed: bool, shared: bool) -> Tensor:
    """A layer's network over h [T, D], or (mixed) its experts, with one for every token (shared) or without: [T, D]."""
    if not mixed:
        return decoder.feed_forward(h, w, "silu")
    chosen = mixture(h, w, c, "silu")
    return shared_expert(h, w, "silu") + chosen if shared else chosen


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V] of Llama's decoder with experts: the channels of a pair lie side by side."""
    table = c.rope.table("rope", m.context, m.divisors("rope_freqs"))
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        x = x + attend(ops.rms_norm(x, w("attn_norm"), eps=c.eps), w, c.sizes.of(w.index), step, table, "pairs")
        h = ops.rms_norm(x, w("ffn_norm"), eps=c.eps)
        x = x + feed_forward(h, w, c.experts, mixed=c.mixed[w.index], shared=c.shared_width > 0)
    return logits(m, x, step, c.eps)
