"""Qwen 3.5's and 3.6's mixtures of experts: Qwen 3.5 with experts in place of its feed-forward network.

No paper; all is from Hugging Face's modeling_qwen3_5_moe.py. The chosen experts' weights are always divided by their
sum, and one expert more has all tokens, as far as its gate is open.
T tokens, R rows with logits, D width, V vocabulary, s width of the shared expert.
"""

from collections.abc import Mapping
from typing import NamedTuple

from sotol.formats.weights import Checkpoint
from sotol.models import qwen2moe, qwen35
from sotol.models.binding.bind import Table
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.binding.sizes import Sizes
from sotol.models.model import Model, StepSymbols
from sotol.models.parts import decoder, delta_net, experts
from sotol.models.parts.experts import Experts, mixture, read_experts
from sotol.models.parts.rope import Rope
from sotol.models.qwen2moe import gated_expert
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS: Table = {**qwen35.ATTENTION, **delta_net.WEIGHTS, **qwen2moe.EXPERTS}

KEYS: Keys = {
    **experts.KEYS,
    **qwen35.KEYS,
    "feed_forward_length": (),
    "expert_shared_feed_forward_length": ("shared_expert_intermediate_size",),
}


class Config(NamedTuple):
    """Qwen 3.5's, and that of the experts."""

    trunk: qwen35.Config
    experts: Experts
    shared_width: int

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        metadata.expect("mlp_only_layers", [])
        metadata.expect("decoder_sparse_step", 1)
        chosen = read_experts(metadata, normalised=True)
        trunk = qwen35.Config.with_experts(metadata, checkpoint, chosen.width)
        return cls(trunk, chosen, metadata.integer("expert_shared_feed_forward_length"))

    @property
    def sizes(self) -> Sizes:
        return self.trunk.sizes

    @property
    def rope(self) -> Rope:
        return self.trunk.rope

    def letters(self, layer: int | None) -> Mapping[str, int]:
        return {**self.trunk.letters(layer), **self.experts.letters(layer), "s": self.shared_width}


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    eps, table = c.trunk.eps, c.rope.table("rope", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        h = ops.rms_norm(x, w("attn_norm"), eps=eps)
        x = x + qwen35.mix(h, w, c.trunk, step, table)
        h = ops.rms_norm(x, w("post_attention_norm"), eps=eps)
        x = x + (mixture(h, w, c.experts, "silu") + gated_expert(h, w))
    return decoder.logits(m, x, step, eps)
