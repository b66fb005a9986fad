"""StarCoder2: layer norms, biases everywhere, a feed-forward network without a gate, and windows in all layers.

Paper: Lozhkov et al. 2024 (arXiv 2402.19173); facts that it leaves out are from Hugging Face's modeling_starcoder2.py.
GGUF files do not have the windows; checkpoints of Hugging Face's do.
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, F feed-forward width,
V vocabulary.
"""

from sotol.formats.weights import Checkpoint
from sotol.models.binding.bind import Name, Table
from sotol.models.binding.metadata import Metadata
from sotol.models.model import Model, StepSymbols
from sotol.models.parts import layer_norms
from sotol.models.parts.layer_norms import KEYS, weights
from sotol.program.program import Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS: Table = {
    **weights(),
    "blk.{}.ffn_up": Name("model.layers.{}.mlp.c_fc", "F D"),
    "blk.{}.ffn_up.bias": Name("model.layers.{}.mlp.c_fc.bias", "F"),
    "blk.{}.ffn_down": Name("model.layers.{}.mlp.c_proj", "D F"),
    "blk.{}.ffn_down.bias": Name("model.layers.{}.mlp.c_proj.bias", "U"),
}


class Config(layer_norms.Config):
    """The usual config of a decoder with layer norms."""

    __slots__ = ()

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> layer_norms.Config:
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        metadata.expect("hidden_act", "gelu_pytorch_tanh")
        return super().read(metadata, checkpoint)


def forward(m: Model, c: layer_norms.Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    return layer_norms.forward(m, c, step, "gelu_tanh")
