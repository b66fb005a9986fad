"""The op vocabulary: every op once, as its meaning in NumPy. Kernels of every backend are tested against it.

Here are those of all models; what only attention, experts or recurrent layers have is in files of their own.

T tokens, N and M widths, V vocabulary, R rows with logits. Activations are float32 (the reference backend may use
float64); weights are already decoded. `program.py` explains the rules.
"""

from typing import Any

import numpy as np

from sotol.arrays import Array
from sotol.program.activations import ACTIVATIONS, GATED, gelu_tanh, relu2, sigmoid, silu
from sotol.program.attention_ops import (
    attention,
    attention_with_sinks,
    cached,
    head_linear,
    remember,
    remember_latent,
    rope,
    scale_by_position,
)
from sotol.program.expert_ops import (
    add_expert_bias,
    choose_experts,
    combine,
    expert_linear,
    reorder_choices,
    scale_choices,
    spread,
)
from sotol.program.program import OPS, op
from sotol.program.recurrent_ops import convolve, delta_rule, moving_average, selective_scan, time_steps

__all__ = [
    "GROUP",
    "OPS",
    "activate",
    "add",
    "add_bias",
    "add_expert_bias",
    "attention",
    "attention_with_sinks",
    "cached",
    "choose_experts",
    "combine",
    "convolve",
    "delta_rule",
    "embed",
    "expert_linear",
    "gate_rows",
    "gelu_tanh",
    "glu",
    "grouped_rms_norm",
    "head_linear",
    "join",
    "layer_norm",
    "linear",
    "moving_average",
    "part",
    "quantize",
    "relu2",
    "remember",
    "remember_latent",
    "reorder",
    "reorder_choices",
    "reshape",
    "rms_norm",
    "rope",
    "rows",
    "scale",
    "scale_by_position",
    "scale_choices",
    "selective_scan",
    "sigmoid",
    "silu",
    "soft_cap",
    "spread",
    "time_steps",
]

GROUP = 32  # consecutive activations that share one int8 scale


@op("V N, T:i32 -> T N")
def embed(weight: Array, tokens: Array) -> Array:
    """The row of the embedding matrix for each token."""
    return weight[tokens]


@op("... N, N -> ... N")
def rms_norm(x: Array, weight: Array, *, eps: float) -> Array:
    """x / rms(x) * weight (Zhang & Sennrich 2019, arXiv 1910.07467)."""
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


@op("T N, N -> T N")
def grouped_rms_norm(x: Array, weight: Array, *, groups: int, eps: float) -> Array:
    """x / rms(x) * weight, where each of so many equal parts of a row has an rms of its own (Mamba-2's code)."""
    parts = x.reshape(len(x), groups, -1)
    return (parts / np.sqrt(np.mean(parts * parts, axis=-1, keepdims=True) + eps)).reshape(x.shape) * weight


@op("... N, N -> ... N")
def layer_norm(x: Array, weight: Array, *, eps: float) -> Array:
    """(x - mean) / standard deviation * weight (Ba et al. 2016, arXiv 1607.06450); eps is added to the variance."""
    centred = x - np.mean(x, axis=-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred * centred, axis=-1, keepdims=True) + eps) * weight


@op("... N -> ... N:int8")
def quantize(x: Array) -> Array:
    """x rounded to int8 with one scale per 32 numbers: the input of a linear with integer weights.

    scale = max |x| / 127; the integers are x / scale rounded to nearest, ties to even. The meaning is their product;
    backends store integers and scales separately.
    """
    groups = x.reshape(len(x), -1, GROUP)
    most = np.abs(groups).max(axis=-1, keepdims=True)
    inverse = np.divide(127, most, out=np.zeros_like(most), where=most > 0)
    return (np.rint(groups * inverse) * (most / 127)).reshape(x.shape)


@op("T N:any, M N -> T M")
def linear(x: Array, weight: Array) -> Array:
    """x times the transpose of the weight."""
    return x @ weight.T


@op("T M, M -> T M")
def add_bias(x: Array, bias: Array) -> Array:
    """x + bias."""
    return x + bias


@op("... N, ... N -> ... N")
def add(x: Array, y: Array) -> Array:
    """x + y."""
    return x + y


@op("... N -> ... N")
def scale(x: Array, *, factor: float) -> Array:
    """x * factor."""
    return x * np.float32(factor)


@op("T H n, T H m -> T H n+m")
def join(x: Array, y: Array) -> Array:
    """Each head's channels of x, then those of y."""
    return np.concatenate([x, y], axis=-1)


@op("T N -> T n")
def part(x: Array, *, begin: int, n: int) -> Array:
    """n numbers of each row, from number `begin` on."""
    return x[:, begin : begin + n]


@op("... N -> ... N")
def soft_cap(x: Array, *, cap: float) -> Array:
    """cap * tanh(x / cap) (Gemma 2, arXiv 2408.00118, section 2)."""
    return cap * np.tanh(x / cap)


@op("... N -> ... N")
def activate(x: Array, *, act: str) -> Array:
    """act(x)."""
    return ACTIVATIONS[act](x)


@op("... N, ... N -> ... N")
def glu(gate: Array, up: Array, *, act: str) -> Array:
    """act(gate) * up (Shazeer 2020, arXiv 2002.05202), or another function of the two (`GATED`)."""
    return GATED[act](gate, up)


@op("T N, T 1 -> T N")
def gate_rows(x: Array, gate: Array) -> Array:
    """x * sigmoid(gate): one gate for each row."""
    return x * sigmoid(gate)


@op("T N, R:i32 -> R N")
def rows(x: Array, index: Array) -> Array:
    """x[index]: the rows whose results are wanted."""
    return x[index]


@op("T N, N:i32 -> T N")
def reorder(x: Array, order: Array) -> Array:
    """x[:, order]: the numbers of each row in another order."""
    return x[:, order]


@op("... -> shape")
def reshape(x: Array, *, shape: tuple[Any, ...]) -> Array:
    """The same numbers, with rows of another shape."""
    return x.reshape(len(x), *shape[1:])
