"""Mamba-2: the recurrent layers of Nemotron-H, Granite 4 and Falcon-H1.

Paper: Dao & Gu 2024 (arXiv 2405.21060); where norms and gates are, is from the authors' code and Hugging Face's
modeling_nemotron_h.py.
T tokens, D width, N heads of p channels, G groups of heads, n numbers of a state for each channel, C = N p + 2 G n
channels of the convolution, t its taps, P = N p + C + N rows of the first projection.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple, cast

import numpy as np

from sotol.arrays import Float32Array
from sotol.errors import ModelError
from sotol.models.binding.bind import Name, Table
from sotol.models.binding.changes import decay_rates
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.model import Layer, StepSymbols
from sotol.models.parts.recurrent import convolve, read_head_width, scaled
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["KEYS", "Factors", "Mamba2", "mix", "read_mamba2", "weights_of"]

KEYS: Keys = {
    "ssm.conv_kernel": ("conv_kernel", "mamba_d_conv"),
    "ssm.state_size": ("ssm_state_size", "mamba_d_state"),
    "ssm.group_count": ("n_groups", "mamba_n_groups"),
    "ssm.time_step_rank": ("mamba_num_heads", "mamba_n_heads"),
    "ssm.value_size": ("mamba_head_dim", "mamba_d_head"),  # GGUF has ssm.inner_size instead, that of all heads
}


def weights_of(layer: str) -> Table:
    """The names of a layer's weights, by what Hugging Face's checkpoints call it: "model.layers.{}.mixer"."""
    return {
        "blk.{}.ssm_in": Name(f"{layer}.in_proj", "P D"),
        "blk.{}.ssm_conv1d": Name(f"{layer}.conv1d", "C t"),
        "blk.{}.ssm_conv1d.bias": Name(f"{layer}.conv1d.bias", "C"),
        "blk.{}.ssm_dt.bias": Name(f"{layer}.dt_bias", "N"),
        "blk.{}.ssm_a": Name(f"{layer}.A_log", "N", decay_rates),
        "blk.{}.ssm_d": Name(f"{layer}.D", "N"),
        "blk.{}.ssm_norm": Name(f"{layer}.norm", "N*p"),
        "blk.{}.ssm_out": Name(f"{layer}.out_proj", "D N*p"),
    }


class Factors(NamedTuple):
    """What parts of the first projection are multiplied with (Falcon-H1)."""

    gate: float = 1.0
    inputs: float = 1.0
    b: float = 1.0
    c: float = 1.0
    steps: float = 1.0


class Mamba2(NamedTuple):
    """The sizes of such a layer, and what not all models have."""

    heads: int
    width: int  # channels of a head
    groups: int
    state: int  # numbers for each channel
    taps: int
    normalised: bool = True  # whether there is a norm
    norm_first: bool = False  # whether it comes before the gate
    factors: Factors = Factors()

    @property
    def inner(self) -> int:
        """Channels of all heads."""
        return self.heads * self.width

    @property
    def channels(self) -> int:
        """Of the convolution."""
        return self.inner + 2 * self.groups * self.state

    def of_channels(self) -> Float32Array | None:
        """The factors of the convolution's channels, [C]; None where all are 1."""
        _, inputs, b, c, _ = self.factors
        if inputs == b == c == 1:
            return None
        size = self.groups * self.state
        return np.repeat(np.array([inputs, b, c], np.float32), (self.inner, size, size))

    def letters(self, _layer: int | None) -> Mapping[str, int]:
        """By the letters of the table of weights."""
        rows = self.inner + self.channels + self.heads
        return {"N": self.heads, "p": self.width, "C": self.channels, "t": self.taps, "P": rows}


def read_mamba2(metadata: Metadata) -> Mamba2:
    """The sizes, by the metadata; ModelError names what is missing or can't be."""
    heads, groups = metadata.integer("ssm.time_step_rank"), metadata.integer("ssm.group_count")
    if heads % groups:
        raise ModelError(f"ssm.time_step_rank is {heads}: so many heads can't be {groups} equal groups")
    width, taps = read_head_width(metadata, heads), metadata.integer("ssm.conv_kernel", least=2)
    return Mamba2(heads, width, groups, metadata.integer("ssm.state_size"), taps)


def mix(h: Tensor, w: Layer, c: Mamba2, step: StepSymbols, eps: float) -> Tensor:
    """A layer over its input's norm, h [T, D]: [T, D]. There is a norm for each group."""
    whole, ends = w("ssm_in"), (0, c.inner, c.inner + c.channels, c.inner + c.channels + c.heads)
    gate, inputs, sizes = (ops.linear(h, whole.part(begin, end)) for begin, end in pairwise(ends))
    gate, sizes = scaled(gate, c.factors.gate), scaled(sizes, c.factors.steps)
    mixed = convolve(inputs, w, "ssm_conv1d", step, act="silu", factors=c.of_channels())  # [T, C]
    steps, decay = cast("tuple[Tensor, Tensor]", ops.time_steps(sizes, w("ssm_dt.bias"), w("ssm_a")))  # [T, N]
    state = w.state("state", c.heads, c.state, c.width)
    read = ops.selective_scan(mixed, steps, decay, w("ssm_d"), state, step.step)  # [T, N, p]
    x = read.reshape("T", c.inner)
    if c.normalised and c.norm_first:
        x = ops.grouped_rms_norm(x, w("ssm_norm"), groups=c.groups, eps=eps)
    x = ops.glu(gate, x, act="silu")
    if c.normalised and not c.norm_first:
        x = ops.grouped_rms_norm(x, w("ssm_norm"), groups=c.groups, eps=eps)
    return ops.linear(x, w("ssm_out"))
