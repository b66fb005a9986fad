"""GPT-OSS's MXFP4: experts' matrices as blocks of codes and their powers of two.

Layout: OpenAI's checkpoint, and transformers' Mxfp4Config. `gate_up_proj_blocks` [E, 2F, D / 32, 16] has two codes in a
byte, the first in its low half; `gate_up_proj_scales` [E, 2F, D / 32] is E8M0. Gate and up are rows in turns, and so
are the numbers of `gate_up_proj_bias` [E, 2F]. `down_proj` is [E, D, F] likewise.
"""

import numpy as np

from sotol.formats.quantised.grids import put_mxfp4
from sotol.formats.quantised.settings import Settings
from sotol.formats.quantised.tensors import Tensors, numbers
from sotol.formats.rearranged import rows_of
from sotol.formats.weights import Weight

__all__ = ["join_mxfp4"]

FLOATS = ("F32", "F16", "BF16")


def join_mxfp4(settings: Settings, tensors: Tensors) -> None:
    """The weights of a checkpoint whose quant_method is "mxfp4"."""
    settings.ignore("modules_to_not_convert", "swiglu_limit")
    settings.expect("dequantize", False)
    settings.finish()
    for name in tensors.ending("_blocks"):
        codes = tensors.take(f"{name}_blocks", "U8")
        if len(codes.shape) != 4 or codes.shape[3] != 16:
            raise tensors.fail(codes.name, f"has shape {list(codes.shape)}, not [experts, outputs, blocks, 16]")
        experts, outputs, blocks, _ = codes.shape
        if name.endswith("gate_up_proj") and outputs % 2:
            raise tensors.fail(codes.name, f"has {outputs} outputs, which are no gates and as many others")
        flat = Weight.from_bytes(codes.name, codes.encoding, (experts, outputs, blocks * 16), codes.rows().reshape(-1))
        scale = tensors.take(f"{name}_scales", "U8", shape=codes.shape[:3])
        bias = tensors.find(f"{name}_bias", *FLOATS, shape=codes.shape[:2])
        before, parts = name.removesuffix("gate_up_proj"), {name: (0, 1)}
        if before != name:
            parts = {f"{before}gate_proj": (0, 2), f"{before}up_proj": (1, 2)}
        for part, (begin, step) in parts.items():
            put_part(tensors, part, (flat, scale, bias), begin, step)


def put_part(tensors: Tensors, name: str, given: tuple[Weight, Weight, Weight | None], begin: int, step: int) -> None:
    """A projection whose rows, of each expert, are those from `begin` on, each step-th."""
    codes, scale, bias = given
    experts, outputs, half = codes.shape
    count = len(range(begin, outputs, step))
    own = [rows_of(x, x.name, begin, step) for x in (codes, scale)]
    put_mxfp4(tensors, name, (experts, count, half * 2), *own)
    if bias is not None:
        cut = np.ascontiguousarray(numbers(bias)[:, begin::step])
        data = cut.view(np.uint8).reshape(-1)
        tensors.weights[f"{name}.bias"] = Weight.from_bytes(bias.name, bias.encoding, cut.shape, data)
