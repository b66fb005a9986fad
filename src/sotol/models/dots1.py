"""dots.llm1: Qwen3's attention, with experts behind the first layers.

Paper: Huo et al. 2025 (arXiv 2506.05767); facts that it leaves out are from Hugging Face's modeling_dots1.py.
T tokens, R rows with logits, D width, V vocabulary, E experts.
"""

from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint
from sotol.models import qwen3
from sotol.models.binding.bind import Table
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.model import Model, StepSymbols
from sotol.models.parts import decoder, mixtures
from sotol.models.parts.decoder import WINDOW_KEYS, logits, read_windows
from sotol.models.parts.experts import read_experts
from sotol.models.parts.mixtures import feed_forward
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS: Table = {
    **decoder.OUTER,
    **decoder.NORMS,
    **decoder.ATTENTION,
    **decoder.HEAD_NORMS,
    **mixtures.LATER,
    **mixtures.CHOICE_BIAS,
}
KEYS: Keys = {**mixtures.LATER_KEYS, **WINDOW_KEYS}


class Config(mixtures.Config):
    """Qwen3's, and that of the experts."""

    __slots__ = ()

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> mixtures.Config:
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        usual = decoder.Config.read(metadata, checkpoint)
        if metadata.has("attention.sliding_window_pattern") and any(read_windows(metadata, usual.sizes.layers, 0)):
            raise ModelError(f"{checkpoint.path}: a dots1 with windows is not a model that sotol runs")
        chosen = read_experts(metadata, scores="sigmoid", normalised=False)
        return cls.with_later(usual, chosen, metadata)


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    table = c.rope.table("rope", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        x = x + qwen3.attend(ops.rms_norm(x, w("attn_norm"), eps=c.eps), w, c, step, table)
        h = ops.rms_norm(x, w("ffn_norm"), eps=c.eps)
        x = x + feed_forward(h, w, c.experts, mixed=c.mixed[w.index], shared=c.shared_width > 0)
    return logits(m, x, step, c.eps)
