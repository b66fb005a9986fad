"""The table of CPU kernels: name -> the factory that makes it for a target and parameters.

Importing this imports Numba: only processes that compile do.
"""

from collections.abc import Callable
from typing import Any

from sotol.backends.cpu.kernels import attention, elementwise, embed, linear, norm, pack, rope, walk

KERNELS: dict[str, Callable[..., Any]] = {
    "add": elementwise.add,
    "add_bias": elementwise.add_bias,
    "attend": attention.attend,
    "embed": embed.embed,
    "glu": elementwise.glu,
    "glu_quantize": elementwise.glu_quantize,
    "linear": linear.linear,
    "quantize": norm.quantize,
    "rms_norm": norm.rms_norm,
    "rms_norm_quantize": norm.rms_norm_quantize,
    "rope": rope.rope,
    "rows": elementwise.rows,
    "scale": elementwise.scale,
    "soft_cap": elementwise.soft_cap,
    "store_cache": attention.store_cache,
}

# What is not an op: functions of five int64 (`walk.py`).
PROGRAMS: dict[str, Callable[..., Any]] = {
    "begin": walk.begin,
    "prepare": walk.prepare,
    "walk": walk.walk,
    "work": walk.work,
}

# What makes such functions from parameters, as kernels are made.
TOOLS: dict[str, Callable[..., Any]] = {"pack": pack.pack}
