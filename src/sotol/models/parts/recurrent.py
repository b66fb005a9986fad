"""What models with recurrent layers have in common: which layers are so, and convolutions over a few tokens.

T tokens, C channels, t taps of a convolution.
"""

import numpy as np

from sotol.arrays import Float32Array
from sotol.errors import ModelError
from sotol.formats.files import in_memory
from sotol.formats.weights import Weight
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.model import Layer, StepSymbols
from sotol.program import ops
from sotol.program.program import Constant, Tensor

__all__ = ["INTERVAL_KEYS", "convolve", "read_head_width", "read_recurrent_layers", "scaled"]

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


def read_head_width(metadata: Metadata, heads: int) -> int:
    """Channels of each of so many heads: GGUF has those of all together. ModelError if they can't be equal."""
    if metadata.has("ssm.value_size"):
        return metadata.integer("ssm.value_size")
    inner = metadata.integer("ssm.inner_size")
    if inner % heads:
        raise ModelError(f"ssm.inner_size is {inner}: it is no multiple of {heads} heads, ssm.time_step_rank")
    return inner // heads


def scaled(x: Tensor, factor: float) -> Tensor:
    """x * factor, without an op where that changes nothing."""
    return x if factor == 1 else ops.scale(x, factor=factor)


def convolve(
    x: Tensor, w: Layer, name: str, step: StepSymbols, *, act: str = "none", factors: Float32Array | None = None
) -> Tensor:
    """x [T, C], each channel over its last t tokens by the weights of this name [C, t], plus a bias if there is one.

    factors: [C] to multiply x with; the weights are multiplied instead.
    """
    weight = w(name)
    if factors is not None:
        weight = Weight.from_values(weight.name, in_memory(weight).decode() * factors[:, None], "F32")
    channels, taps = weight.shape
    bias = w(f"{name}.bias") if w.has(f"{name}.bias") else Constant("no_bias", np.zeros(channels, np.float32))
    return ops.convolve(x, weight, bias, w.state("convolved", taps - 1, channels), step.step, act=act)
