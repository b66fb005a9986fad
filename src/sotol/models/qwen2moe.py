"""Qwen's mixtures of experts before Qwen3 (Qwen1.5-MoE-A2.7B, Qwen2-57B-A14B): one expert more, which all tokens take.

Paper: Yang et al. 2024 (arXiv 2407.10671), section 2.2.2; the gate of the shared expert, one number for each token, is
from Hugging Face's modeling_qwen2_moe.py. The chosen experts' weights are not divided by their sum.
T tokens, R rows with logits, D width, V vocabulary, s width of the shared expert.
"""

from dataclasses import replace

from sotol.formats.weights import Checkpoint
from sotol.models import experts, qwen2
from sotol.models.bind import Name, Table
from sotol.models.decoder import logits
from sotol.models.experts import mixture, read_decoder, read_experts, shared_expert
from sotol.models.metadata import Keys, Metadata
from sotol.models.model import Layer, Model, StepSymbols
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward", "gated_expert"]

WEIGHTS: Table = {
    **experts.WEIGHTS,
    "blk.{}.ffn_gate_inp_shexp": Name("model.layers.{}.mlp.shared_expert_gate", "D"),
    "blk.{}.ffn_gate_shexp": Name("model.layers.{}.mlp.shared_expert.gate_proj", "s D"),
    "blk.{}.ffn_up_shexp": Name("model.layers.{}.mlp.shared_expert.up_proj", "s D"),
    "blk.{}.ffn_down_shexp": Name("model.layers.{}.mlp.shared_expert.down_proj", "D s"),
}

KEYS: Keys = {**experts.KEYS, "expert_shared_feed_forward_length": ("shared_expert_intermediate_size",)}


class Config(experts.Config):
    """Qwen2's, and that of the experts."""

    __slots__ = ()

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        metadata.expect("qkv_bias", True)
        shared = metadata.integer("expert_shared_feed_forward_length")
        return cls(read_decoder(metadata, checkpoint), read_experts(metadata, normalised=False), shared)


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    eps, table = c.decoder.eps, c.rope.table("rope", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        x = x + qwen2.attend(c.decoder, w, table, ops.rms_norm(x, w("attn_norm"), eps=eps), step)
        h = ops.rms_norm(x, w("ffn_norm"), eps=eps)
        x = x + (gated_expert(h, w) + mixture(h, w, c.experts, "silu"))
    return logits(m, x, step, eps)


def gated_expert(h: Tensor, w: Layer) -> Tensor:
    """The network that every token of h [T, D] takes, as far as its gate is open: [T, D]."""
    gate = w("ffn_gate_inp_shexp")
    return ops.gate_rows(shared_expert(h, w, "silu"), ops.linear(h, replace(gate, shape=(1, *gate.shape))))
