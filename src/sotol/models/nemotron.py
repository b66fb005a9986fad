"""Nemotron and Minitron: layer norms that multiply by 1 + w, squared ReLUs without a gate, half of a head rotates.

Papers: Parmar et al. 2024 (arXiv 2402.16819); Muralidharan et al. 2024 (arXiv 2407.14679); facts that they leave out
are from Hugging Face's modeling_nemotron.py.
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, F feed-forward width,
V vocabulary.
"""

from sotol.formats.weights import Checkpoint
from sotol.models.binding.bind import Table
from sotol.models.binding.changes import plus_one
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.model import Model, StepSymbols
from sotol.models.parts import decoder, layer_norms
from sotol.models.parts.layer_norms import weights
from sotol.models.parts.rope import PARTIAL
from sotol.program.program import Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS: Table = {**weights(plus_one), **decoder.PLAIN_NETWORK, **decoder.PLAIN_BIASES}  # GGUF stores 1 + w
KEYS: Keys = {**layer_norms.KEYS, "rope.partial_rotary_factor": PARTIAL}


class Config(layer_norms.Config):
    """The usual config of a decoder with layer norms."""

    __slots__ = ()

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> layer_norms.Config:
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        metadata.expect("hidden_act", "relu2")
        return super().read(metadata, checkpoint)


def forward(m: Model, c: layer_norms.Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    return layer_norms.forward(m, c, step, "relu2")
