"""Nemotron and Minitron: layer norms that multiply by 1 + w, squared ReLUs without a gate, half of a head rotates.

Papers: Parmar et al. 2024 (arXiv 2402.16819); Muralidharan et al. 2024 (arXiv 2407.14679); facts that they leave out
are from Hugging Face's modeling_nemotron.py.
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, F feed-forward width,
V vocabulary.
"""

from sotol.formats.weights import Checkpoint
from sotol.models import layer_norms
from sotol.models.bind import Name, Table
from sotol.models.changes import plus_one
from sotol.models.layer_norms import weights
from sotol.models.metadata import Keys, Metadata
from sotol.models.model import Model, StepSymbols
from sotol.models.rope import PARTIAL
from sotol.program.program import Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

# GGUF stores 1 + w.
WEIGHTS: Table = {
    **{key: name for key, name in weights(plus_one).items() if key != "blk.{}.ffn_gate"},
    "blk.{}.ffn_up.bias": Name("model.layers.{}.mlp.up_proj.bias", "F"),  # `mlp_bias` of transformers' config
    "blk.{}.ffn_down.bias": Name("model.layers.{}.mlp.down_proj.bias", "D"),
}
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
