"""Qwen3's mixtures of experts (30B-A3B, 235B-A22B, Coder): Qwen3 with experts in place of its feed-forward network.

Paper: Qwen team 2025 (arXiv 2505.09388). Every released model divides the chosen experts' weights by their sum;
config.json says so, GGUF has no key, and llama.cpp takes it for granted, as is done here for GGUF.
T tokens, R rows with logits, D width, V vocabulary.
"""

from sotol.formats.weights import Checkpoint
from sotol.models import qwen3
from sotol.models.binding.bind import Table
from sotol.models.binding.metadata import Metadata
from sotol.models.model import Model, StepSymbols
from sotol.models.parts import decoder, mixtures
from sotol.models.parts.decoder import logits
from sotol.models.parts.experts import mixture, read_experts
from sotol.models.parts.mixtures import KEYS, read_decoder
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS: Table = {**mixtures.WEIGHTS, **decoder.HEAD_NORMS}


class Config(mixtures.Config):
    """Qwen3's, and that of the experts."""

    __slots__ = ()

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        in_gguf = metadata.keys is None  # config.json leaves the flag out where it is false
        return cls(*read_decoder(metadata, checkpoint), read_experts(metadata, normalised=in_gguf))


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    table = c.rope.table("rope", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        x = x + qwen3.attend(ops.rms_norm(x, w("attn_norm"), eps=c.eps), w, c, step, table)
        x = x + mixture(ops.rms_norm(x, w("ffn_norm"), eps=c.eps), w, c.experts, "silu")
    return logits(m, x, step, c.eps)
