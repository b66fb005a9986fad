"""The tables of all native code: name -> the factory that makes it for a target and parameters.

Importing this imports Numba, which only processes that compile do.
"""

from collections.abc import Callable
from typing import Any

from sotol.backends.cpu.kernels import (
    attention,
    elementwise,
    embed,
    experts,
    fit,
    grids,
    heads,
    linear,
    norm,
    pack,
    quantize,
    recurrent,
    rope,
    rounding,
    routing,
    walk,
)

KERNELS: dict[str, Callable[..., Any]] = {
    "activate": elementwise.activate,
    "add": elementwise.add,
    "add_bias": elementwise.add_bias,
    "add_expert_bias": experts.add_expert_bias,
    "attend": attention.attend,
    "combine": experts.combine,
    "convolve": recurrent.convolve,
    "delta_rule": recurrent.delta_rule,
    "embed": embed.embed,
    "expert_linear": experts.expert_linear,
    "gate_rows": elementwise.gate_rows,
    "glu": elementwise.glu,
    "glu_quantize": elementwise.glu_quantize,
    "head_linear": heads.head_linear,
    "join": heads.join,
    "layer_norm": norm.layer_norm,
    "linear": linear.linear,
    "moving_average": recurrent.moving_average,
    "part": heads.part,
    "quantize": quantize.quantize,
    "rms_norm": norm.rms_norm,
    "rms_norm_quantize": norm.rms_norm_quantize,
    "rope": rope.rope,
    "choose_experts": routing.choose_experts,
    "reorder": elementwise.reorder,
    "reorder_choices": elementwise.reorder_choices,
    "rows": elementwise.rows,
    "scale": elementwise.scale,
    "scale_by_position": elementwise.scale_by_position,
    "scale_choices": experts.scale_choices,
    "selective_scan": recurrent.selective_scan,
    "soft_cap": elementwise.soft_cap,
    "sort_choices": routing.sort_choices,
    "spread": experts.spread,
    "store_cache": attention.store_cache,
    "time_steps": recurrent.time_steps,
}

# What is not an op: native functions of five int64.
NATIVE_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "begin": walk.begin,
    "prepare": walk.prepare,
    "walk": walk.walk,
    "work": walk.work,
}

# Factories of more native functions, for a target and parameters, like those of kernels.
NATIVE_FACTORIES: dict[str, Callable[..., Any]] = {
    "fit": fit.fit,
    "grid": grids.grid,
    "pack": pack.pack,
    "round": rounding.round_blocks,
}
