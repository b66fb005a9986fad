"""BitNet b1.58 (Ma et al. 2024, arXiv 2402.17764): numbers that are -1, 0 or 1, and one factor for the matrix.

Layout: transformers' BitNetQuantConfig and bitnet.py. `weight` [N / 4, K] is U8, and byte i of a column has the codes
of outputs i, i + N / 4, i + N / 2, …, the first in the lowest bits; a number is its code less 1. `weight_scale` is
what that is multiplied by where linear_class is "autobitlinear", and else what it is divided by. Activations become
int8 in groups, as for all whole numbers, and not row by row.
"""

import numpy as np

from sotol.formats.quantised.grids import width_of
from sotol.formats.quantised.settings import Settings
from sotol.formats.quantised.tensors import FACTOR_KINDS, Tensors, failure, numbers
from sotol.quant import FACTORS, BlockParts, Layout, UInt8Array

__all__ = ["join_bitnet"]

EACH = 4  # codes of a byte
BITS = 2


def join_bitnet(settings: Settings, tensors: Tensors) -> None:
    """The weights of a checkpoint whose quant_method is "bitnet"."""
    times = settings.expect("linear_class", "bitlinear", "autobitlinear") == "autobitlinear"
    settings.expect("quantization_mode", "offline")
    settings.expect("use_rms_norm", False)
    settings.ignore("modules_to_not_convert", "rms_norm_eps")
    settings.finish()
    for name in tensors.ending(".weight_scale"):
        put_ternary(tensors, name, times=times)


def put_ternary(tensors: Tensors, name: str, *, times: bool) -> None:
    """One weight. times: whether numbers are multiplied by the factor."""
    codes, scale = tensors.take(f"{name}.weight", "U8"), tensors.take(f"{name}.weight_scale", *FACTOR_KINDS)
    if len(codes.shape) != 2 or scale.shape not in ((1,), (1, 1)):
        raise tensors.fail(codes.name, f"has shape {list(codes.shape)}, and factors {list(scale.shape)}")
    (high, width), path = codes.shape, tensors.path
    size = width_of(tensors, codes.name, width, width)
    factor = FACTORS[FACTOR_KINDS[scale.encoding.name]].decode(numbers(scale)[0])
    if not np.isfinite(factor).all() or not factor.all():
        raise tensors.fail(scale.name, "is 0, or not finite")
    factor = factor if times else np.float32(1) / factor

    def read(first: int, end: int) -> BlockParts:
        parts = list[UInt8Array]()
        while first < end:  # outputs side by side are in one place of the bytes, up to the last row
            place, begin = divmod(first, high)
            stop = min(high, begin + end - first)
            parts.append(numbers(codes, begin, stop) >> np.uint8(BITS * place) & np.uint8(3))
            first += stop - begin
        q = np.concatenate(parts)
        if (q == 3).any():
            raise failure(path, codes.name, "has a code of 3, and numbers are -1, 0 or 1")
        q = q.reshape(len(q), -1, 1, size)
        return BlockParts(q, np.broadcast_to(factor, q.shape[:2]))

    tensors.put(f"{name}.weight", (EACH * high, width), Layout(BITS, size, numbers=1, factor="f32"), (codes,), read)
