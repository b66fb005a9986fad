"""dots.llm1: Qwen3's attention, with experts behind the first layers.

Paper: Huo et al. 2025 (arXiv 2506.05767); facts that it leaves out are from Hugging Face's modeling_dots1.py.
T tokens, R rows with logits, D width, V vocabulary, E experts.
"""

from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint
from sotol.models import decoder, experts, qwen3
from sotol.models.bind import Table
from sotol.models.decoder import WINDOW_KEYS, logits, read_windows
from sotol.models.experts import LATER_KEYS, LATER_WEIGHTS, feed_forward, read_experts
from sotol.models.metadata import Keys, Metadata
from sotol.models.model import Model, StepSymbols
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS: Table = {
    **LATER_WEIGHTS,
    **{name: weight for name, weight in qwen3.WEIGHTS.items() if name.endswith(("attn_q_norm", "attn_k_norm"))},
}
KEYS: Keys = {**LATER_KEYS, **WINDOW_KEYS}


class Config(experts.Config):
    """Qwen3's, and that of the experts."""

    __slots__ = ()

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        usual = decoder.Config.read(metadata, checkpoint)
        if metadata.has("attention.sliding_window_pattern") and any(read_windows(metadata, usual.layers, 0)):
            raise ModelError(f"{checkpoint.path}: a dots1 with windows is not a model that sotol runs")
        chosen = read_experts(metadata, scores="sigmoid", normalised=False)
        shared = chosen.width * metadata.integer("expert_shared_count", 0, least=0)
        return cls(usual, chosen, shared, metadata.integer("leading_dense_block_count", 0, least=0))


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    eps, table = c.decoder.eps, c.rope.table("rope", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        x = x + qwen3.attend(c.decoder, w, table, ops.rms_norm(x, w("attn_norm"), eps=eps), step)
        h = ops.rms_norm(x, w("ffn_norm"), eps=eps)
        x = x + feed_forward(h, w, c.experts, dense=w.index < c.dense, shared=c.shared_width > 0)
    return logits(m, x, step, eps)
