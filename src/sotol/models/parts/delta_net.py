"""Gated DeltaNet: the recurrent layers of Qwen3-Next and Qwen 3.5.

Paper: Yang, Kautz & Hatamizadeh 2024 (arXiv 2412.06464); where norms and gates are, is from Hugging Face's
modeling_qwen3_next.py and modeling_qwen3_5.py.
T tokens, D width, G heads of queries and keys, N of values, k channels of a key, v of a value, C = 2 G k + N v channels
of the convolution, t its taps.
"""

from collections.abc import Mapping
from typing import NamedTuple, cast

from sotol.errors import ModelError
from sotol.models.binding.bind import Name, Table
from sotol.models.binding.changes import Change, decay_rates, in_turn, tiled_heads, tiled_inputs
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.model import Layer, StepSymbols
from sotol.models.parts.recurrent import convolve, read_head_width
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["KEYS", "WEIGHTS", "DeltaNet", "Projected", "mix", "read_delta_net", "recur"]

OF_HEADS, OF_CHANNELS = tiled_heads("G", "N"), tiled_heads("G", "N", "v")
RATES: Change = in_turn(decay_rates, OF_HEADS)

# In GGUF, heads of values lie so that head h uses the key of head h modulo G: llama.cpp's conversion/qwen.py.
WEIGHTS: Table = {
    "blk.{}.attn_qkv": Name("model.layers.{}.linear_attn.in_proj_qkv", "C D", OF_CHANNELS),
    "blk.{}.attn_gate": Name("model.layers.{}.linear_attn.in_proj_z", "N*v D", OF_CHANNELS),
    "blk.{}.ssm_alpha": Name("model.layers.{}.linear_attn.in_proj_a", "N D", OF_HEADS),
    "blk.{}.ssm_beta": Name("model.layers.{}.linear_attn.in_proj_b", "N D", OF_HEADS),
    "blk.{}.ssm_conv1d": Name("model.layers.{}.linear_attn.conv1d", "C t", OF_CHANNELS),
    "blk.{}.ssm_dt.bias": Name("model.layers.{}.linear_attn.dt_bias", "N", OF_HEADS),
    "blk.{}.ssm_a": Name("model.layers.{}.linear_attn.A_log", "N", RATES),
    "blk.{}.ssm_norm": Name("model.layers.{}.linear_attn.norm", "v"),
    "blk.{}.ssm_out": Name("model.layers.{}.linear_attn.out_proj", "D N*v", tiled_inputs("G", "N", "v")),
}

KEYS: Keys = {
    "ssm.conv_kernel": ("linear_conv_kernel_dim",),
    "ssm.state_size": ("linear_key_head_dim",),
    "ssm.group_count": ("linear_num_key_heads",),
    "ssm.time_step_rank": ("linear_num_value_heads",),
    "ssm.value_size": ("linear_value_head_dim",),  # GGUF has ssm.inner_size instead, that of all heads
}


class DeltaNet(NamedTuple):
    """The sizes of such a layer."""

    key_heads: int
    value_heads: int
    key_width: int
    value_width: int
    taps: int

    @property
    def channels(self) -> int:
        """Of the convolution."""
        return 2 * self.key_heads * self.key_width + self.value_heads * self.value_width

    def letters(self, _layer: int | None) -> Mapping[str, int]:
        """By the letters of the table of weights."""
        groups, heads, key, value, taps = self
        return {"G": groups, "N": heads, "k": key, "v": value, "C": self.channels, "t": taps}


def read_delta_net(metadata: Metadata) -> DeltaNet:
    """The sizes, by the metadata; ModelError names what is missing or can't be."""
    groups, heads = metadata.integer("ssm.group_count"), metadata.integer("ssm.time_step_rank")
    if heads % groups:
        raise ModelError(f"ssm.time_step_rank is {heads}: so many heads of values can't share {groups} of keys evenly")
    width, taps = read_head_width(metadata, heads), metadata.integer("ssm.conv_kernel", least=2)
    return DeltaNet(groups, heads, metadata.integer("ssm.state_size"), width, taps)


class Projected(NamedTuple):
    """What a layer makes of its input before anything recurs."""

    mixed: Tensor  # [T, C] queries, keys and values
    gate: Tensor  # [T, N v]
    alpha: Tensor  # [T, N] what the decay comes from
    beta: Tensor  # [T, N] and the gain


def mix(h: Tensor, w: Layer, c: DeltaNet, step: StepSymbols, eps: float) -> Tensor:
    """A layer over its input's norm, h [T, D]: [T, D]."""
    projected = Projected(*(ops.linear(h, w(name)) for name in ("attn_qkv", "attn_gate", "ssm_alpha", "ssm_beta")))
    return recur(projected, w, c, step, eps, tiled=True)


def recur(x: Projected, w: Layer, c: DeltaNet, step: StepSymbols, eps: float, *, tiled: bool) -> Tensor:
    """From projections to the layer's result, [T, D]. The norm comes before the gate. tiled: as of `ops.delta_rule`."""
    mixed = convolve(x.mixed, w, "ssm_conv1d", step, act="silu")  # [T, C]
    _, decay = cast("tuple[Tensor, Tensor]", ops.time_steps(x.alpha, w("ssm_dt.bias"), w("ssm_a")))
    state = w.state("state", c.value_heads, c.key_width, c.value_width)
    gain = ops.activate(x.beta, act="sigmoid")
    read = ops.delta_rule(mixed, decay, gain, state, step.step, tiled=tiled)  # [T, N, v]
    normed = ops.rms_norm(read, w("ssm_norm"), eps=eps).reshape("T", c.value_heads * c.value_width)
    return ops.linear(ops.glu(x.gate, normed, act="silu"), w("ssm_out"))
