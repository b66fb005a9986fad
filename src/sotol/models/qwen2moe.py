"""Qwen's mixtures of experts before Qwen3 (Qwen1.5-MoE-A2.7B, Qwen2-57B-A14B): one expert more, which all tokens take.

Paper: Yang et al. 2024 (arXiv 2407.10671), section 2.2.2; the gate of the shared expert, one number for each token, is
from Hugging Face's modeling_qwen2_moe.py. The chosen experts' weights are not divided by their sum.
T tokens, R rows with logits, D width, V vocabulary, s width of the shared expert.
"""

from dataclasses import replace

from sotol.formats.weights import Checkpoint
from sotol.models import qwen2
from sotol.models.binding.bind import Name, Table
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.model import Layer, Model, StepSymbols
from sotol.models.parts import experts, mixtures
from sotol.models.parts.decoder import logits
from sotol.models.parts.experts import mixture, read_experts, shared_expert, shared_names
from sotol.models.parts.mixtures import read_decoder
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["EXPERTS", "KEYS", "WEIGHTS", "Config", "forward", "gated_expert"]

EXPERTS: Table = {
    **experts.WEIGHTS,
    "blk.{}.ffn_gate_inp_shexp": Name("model.layers.{}.mlp.shared_expert_gate", "D"),
    **shared_names("model.layers.{}.mlp.shared_expert"),
}
WEIGHTS: Table = {**mixtures.WEIGHTS, **EXPERTS}
KEYS: Keys = {**mixtures.KEYS, "expert_shared_feed_forward_length": ("shared_expert_intermediate_size",)}


class Config(mixtures.Config):
    """Qwen2's, and that of the experts."""

    __slots__ = ()

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        metadata.expect("qkv_bias", True)
        shared = metadata.integer("expert_shared_feed_forward_length")
        return cls(*read_decoder(metadata, checkpoint), read_experts(metadata, normalised=False), shared)


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    table = c.rope.table("rope", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        x = x + qwen2.attend(ops.rms_norm(x, w("attn_norm"), eps=c.eps), w, c, step, table)
        h = ops.rms_norm(x, w("ffn_norm"), eps=c.eps)
        x = x + (gated_expert(h, w) + mixture(h, w, c.experts, "silu"))
    return logits(m, x, step, c.eps)


def gated_expert(h: Tensor, w: Layer) -> Tensor:
    """The network that every token of h [T, D] takes, as far as its gate is open: [T, D]."""
    gate = w("ffn_gate_inp_shexp")
    return ops.gate_rows(shared_expert(h, w, "silu"), ops.linear(h, replace(gate, shape=(1, *gate.shape))))
