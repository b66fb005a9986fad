"""What models with recurrent layers have in common: which layers are so, and convolutions over a few tokens.

T tokens, C channels, t taps of a convolution.
"""

import numpy as np

from sotol.models.metadata import Keys, Metadata
from sotol.models.model import Layer, StepSymbols
from sotol.program import ops
from sotol.program.program import Constant, Tensor

__all__ = ["INTERVAL_KEYS", "convolve", "read_recurrent_layers"]

# Of architectures where each n-th layer has attention.
INTERVAL_KEYS: Keys = {
    "attention.recurrent_layers": ("layer_types",),
    "full_attention_interval": ("full_attention_interval",),
}
KINDS = ("linear_attention", "full_attention")  # of layers, by config.json


def read_recurrent_layers(metadata: Metadata, layers: int) -> tuple[bool, ...]:
    """Of each layer: whether it is recurrent; else it has attention, as each 4th has where the file says nothing."""
    interval = metadata.integer("full_attention_interval", 4)
    return metadata.layer_flags("attention.recurrent_layers", layers, interval, KINDS)


def convolve(x: Tensor, w: Layer, name: str, step: StepSymbols, *, act: str = "none") -> Tensor:
    """x [T, C], each channel over its last t tokens by the weights of this name [C, t], plus a bias if there is one."""
    weight = w(name)
    channels, taps = weight.shape
    bias = w(f"{name}.bias") if w.has(f"{name}.bias") else Constant("no_bias", np.zeros(channels, np.float32))
    return ops.convolve(x, weight, bias, w.state("convolved", taps - 1, channels), step.step, act=act)
