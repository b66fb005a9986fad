"""The tables of all native code: name -> the factory that makes it for a target and parameters.

Importing this imports Numba, which only processes that compile do.
"""

from collections.abc import Callable
from typing import Any

from sotol.backends.cpu.kernels import (
    attention,
    elementwise,
    embed,
    linear,
    norm,
    pack,
    quantize,
    recurrent,
    rope,
    walk,
)

KERNELS: dict[str, Callable[..., Any]] = {
    "add": elementwise.add,
    "add_bias": elementwise.add_bias,
    "attend": attention.attend,
    "embed": embed.embed,
    "glu": elementwise.glu,
    "glu_quantize": elementwise.glu_quantize,
    "linear": linear.linear,
    "moving_average": recurrent.moving_average,
    "quantize": quantize.quantize,
    "rms_norm": norm.rms_norm,
    "rms_norm_quantize": norm.rms_norm_quantize,
    "rope": rope.rope,
    "rows": elementwise.rows,
    "scale": elementwise.scale,
    "soft_cap": elementwise.soft_cap,
    "store_cache": attention.store_cache,
}

# What is not an op: native functions of five int64.
NATIVE_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "begin": walk.begin,
    "prepare": walk.prepare,
    "walk": walk.walk,
    "work": walk.work,
}

# Factories of more native functions, for a target and parameters, like those of kernels.
NATIVE_FACTORIES: dict[str, Callable[..., Any]] = {"pack": pack.pack}
