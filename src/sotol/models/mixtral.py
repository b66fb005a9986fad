"""Mixtral: Llama's decoder with experts in place of its feed-forward network. In GGUF it is a `llama` with experts.

Paper: Jiang et al. 2024 (arXiv 2401.04088): a softmax over the chosen experts' logits, which is that over all of them,
divided by the sum of the chosen ones.
T tokens, R rows with logits, D width, V vocabulary.
"""

from sotol.formats.weights import Checkpoint
from sotol.models import experts, llama
from sotol.models.bind import Table
from sotol.models.decoder import attend, logits
from sotol.models.experts import DENSE, mixture, read_decoder, read_experts
from sotol.models.metadata import Keys, Metadata
from sotol.models.model import Model, StepSymbols
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS: Table = {
    **experts.WEIGHTS,
    **{name: weight for name, weight in llama.WEIGHTS.items() if name.removesuffix(".bias") not in DENSE},
}

# config.json has the experts' width where others have that of the feed-forward network, and so have most GGUF files.
KEYS: Keys = {**experts.KEYS, "expert_feed_forward_length": ("intermediate_size",)}


class Config(experts.Config):
    """Llama's, and that of the experts."""

    __slots__ = ()

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        metadata.expect("sliding_window", None)
        decoder = read_decoder(metadata, checkpoint)
        return cls(decoder, read_experts(metadata, normalised=True, width=decoder.sizes.ffn_width[0]))


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    eps, table = c.decoder.eps, c.rope.table("rope", m.context, m.divisors("rope_freqs"))
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        x = x + attend(ops.rms_norm(x, w("attn_norm"), eps=eps), w, c.sizes.of(w.index), step, table, "pairs")
        x = x + mixture(ops.rms_norm(x, w("ffn_norm"), eps=eps), w, c.experts, "silu")
    return logits(m, x, step, eps)
