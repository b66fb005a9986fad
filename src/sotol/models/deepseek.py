"""DeepSeekMoE (16B), the first DeepSeek with experts: Llama's decoder, whose later layers have many small experts.

Paper: Dai et al. 2024 (arXiv 2401.06066); names are those of its authors' modeling_deepseek.py. The chosen experts'
weights are not divided by their sum, unless config.json says so.
T tokens, R rows with logits, D width, V vocabulary, E experts.
"""

from sotol.formats.weights import Checkpoint
from sotol.models import decoder, experts, llama
from sotol.models.bind import Table
from sotol.models.decoder import attend, logits
from sotol.models.experts import LATER_KEYS, LATER_WEIGHTS, feed_forward, read_experts
from sotol.models.metadata import Keys, Metadata
from sotol.models.model import Model, StepSymbols
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS: Table = {
    **{name: weight for name, weight in LATER_WEIGHTS.items() if name != "blk.{}.exp_probs_b.bias"},
    **{name: weight for name, weight in llama.WEIGHTS.items() if ".attn_" in name},
}
KEYS: Keys = LATER_KEYS


class Config(experts.Config):
    """Llama's, and that of the experts."""

    __slots__ = ()

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        metadata.expect("moe_layer_freq", 1)
        metadata.expect("scoring_func", "softmax")
        usual = decoder.Config.read(metadata, checkpoint)
        chosen = read_experts(metadata, normalised=False)
        shared = chosen.width * metadata.integer("expert_shared_count", 0, least=0)
        return cls(usual, chosen, shared, metadata.integer("leading_dense_block_count", 0, least=0))


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    eps, table = c.decoder.eps, c.rope.table("rope", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        x = x + attend(ops.rms_norm(x, w("attn_norm"), eps=eps), w, c.sizes.of(w.index), step, table, "pairs")
        h = ops.rms_norm(x, w("ffn_norm"), eps=eps)
        x = x + feed_forward(h, w, c.experts, dense=w.index < c.dense, shared=c.shared_width > 0)
    return logits(m, x, step, eps)
