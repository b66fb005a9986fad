"""What compressed-tensors writes (llm-compressor, vLLM): whole numbers, packed or as bytes; FP8, NVFP4, MXFP4.

Layout: the package's compressors. Which form a weight has, and its bits and groups, its tensors say: `weight_packed`
[N, K bits / 32] has codes one after another in words, the first in the lowest bits, whole numbers with half their range
added; `weight_shape` is [N, K]; `weight_zero_point` has zero points packed in the same way along N. Without packing,
`weight` is I8 or E4M3. `weight_scale` has a factor for the matrix, for each row, each group, or each block. Of NVFP4,
factors are E4M3 divided by `weight_global_scale`. Factors of activations and caches are not used.
"""

import math

import numpy as np

from sotol.formats.quantised.fp8 import ACTIVATIONS, join_floats
from sotol.formats.quantised.grids import Grid, grid_of, put_mxfp4, put_nvfp4, width_of
from sotol.formats.quantised.settings import Settings
from sotol.formats.quantised.tensors import BYTE, FACTOR_KINDS, Tensors, numbers, order_of, unpacked
from sotol.formats.weights import Weight
from sotol.quant import BlockParts, Layout, UInt8Array

__all__ = ["join_compressed"]

FORMATS = (
    "dense", "pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "nvfp4-pack-quantized",
    "mxfp4-pack-quantized", "mxfp8-quantized", "mixed-precision",
)  # fmt: skip
BITS = (2, 3, 4, 5, 6, 8)


def join_compressed(settings: Settings, tensors: Tensors) -> None:
    """The weights of a checkpoint whose quant_method is "compressed-tensors"."""
    settings.expect("format", *FORMATS)
    settings.expect("quantization_status", "compressed", "frozen")
    for key in ("sparsity_config", "transform_config"):
        if (inner := settings.inner(key)) is not None and (found := inner.keys()) and inner.get("format") != "dense":
            raise settings.fail(f"{key} says {found[0]!r}: sotol has neither sparse nor transformed weights")
    settings.ignore(
        "kv_cache_scheme", "global_compression_ratio", "ignore", "version", "run_compressed", "moe_sparsity_config"
    )
    block = groups_of(settings)
    settings.finish()
    tensors.drop(*ACTIVATIONS, ".input_global_scale", ".input_zero_point", ".output_zero_point")
    for name in tensors.ending(".weight_packed"):
        put_packed(tensors, name)
    for name in [x.removesuffix("_scale") for x in tensors.weights if x.endswith("weight_scale")]:
        if name in tensors.weights and tensors.weights[name].encoding.name == "I8":
            put_bytes(tensors, name, block)
    join_floats(tensors, block)


def groups_of(settings: Settings) -> tuple[int, int] | None:
    """Check the schemes of config_groups: the size of blocks that one of them has; an error if two have others."""
    blocks = set[tuple[int, int]]()
    schemes = settings.inner("config_groups") or Settings(settings.path, {}, "")
    for key in schemes.keys():  # noqa: SIM118  (no dict)
        if isinstance(schemes.get(key), list):
            continue  # the name of a preset, and what it is for
        scheme = schemes.inner(key)
        if scheme is None:
            continue
        scheme.ignore("targets", "input_activations", "output_activations")
        scheme.expect("format", *FORMATS)
        weights = scheme.inner("weights")
        scheme.finish()
        if weights is None:
            continue
        weights.expect("type", "int", "float")
        weights.expect("dynamic", False)
        weights.expect("strategy", "tensor", "channel", "group", "block", "tensor_group")
        if (block := weights.sides("block_structure")) is not None:
            blocks.add(block)
        weights.ignore(
            "num_bits", "group_size", "symmetric", "actorder", "observer", "observer_kwargs", "scale_dtype", "zp_dtype"
        )
        weights.finish()
    if len(blocks) > 1:
        raise settings.fail("config_groups has blocks of several sizes")
    return blocks.pop() if blocks else None


def put_packed(tensors: Tensors, name: str) -> None:
    """A weight of several codes in a word, or of two in a byte."""
    packed = tensors.take(f"{name}.weight_packed", "I32", "U8")
    target, kinds = f"{name}.weight", (*FACTOR_KINDS, "F8_E4M3", "F8_E8M0", "U8")
    scale = tensors.take(f"{name}.weight_scale", *kinds)
    if packed.encoding.name == "U8":
        shape = (*packed.shape[:-1], packed.shape[-1] * 2)
        whole = tensors.find(f"{name}.weight_global_scale", "F32")
        group = 16 if scale.encoding.name == "F8_E4M3" else 32
        if shape[-1] % 32 or scale.shape != (*shape[:-1], shape[-1] // group):
            raise tensors.fail(scale.name, f"has shape {list(scale.shape)}, for a weight {list(shape)}")
        if group == 16 and whole is not None:
            put_nvfp4(tensors, target, shape, packed, scale, whole, inverse=True)
        elif scale.encoding.name in ("U8", "F8_E8M0") and whole is None:
            put_mxfp4(tensors, target, shape, packed, scale)
        else:
            raise tensors.fail(scale.name, "belongs neither to NVFP4 nor to MXFP4")
        return
    if scale.encoding.name not in FACTOR_KINDS:
        raise tensors.fail(scale.name, f"is {scale.encoding.name}, beside codes in words")
    said = tensors.take(f"{name}.weight_shape", "I64", "I32", shape=(len(packed.shape),))
    shape = tuple(int(x) for x in numbers(said)[0])
    width = shape[-1] if min(shape) > 0 else 0
    bits = packed.shape[-1] * 32 // width if width else 0
    if shape[:-1] != packed.shape[:-1] or bits not in BITS or packed.shape[-1] * 32 != width * bits:
        raise tensors.fail(packed.name, f"has shape {list(packed.shape)}, for a weight {list(shape)}")
    put_whole(tensors, target, shape, packed, scale, bits)


def put_bytes(tensors: Tensors, name: str, block: tuple[int, int] | None) -> None:
    """A weight of a whole number in each byte."""
    codes, scale = tensors.take(name, "I8"), tensors.take(f"{name}_scale", *FACTOR_KINDS)
    put_whole(tensors, name, codes.shape, codes, scale, 8, block)


def put_whole(
    tensors: Tensors, name: str, shape: tuple[int, ...], codes: Weight, scale: Weight, bits: int,
    block: tuple[int, int] | None = None,
) -> None:  # fmt: skip
    """A weight of whole numbers, scale * (code - zero), both with half their range added where they are packed."""
    signed, grid = codes.encoding.name == "I8", grid_of(tensors, scale, shape, block)
    size, middle = width_of(tensors, name, shape[-1], grid.wide), 1 << (bits - 1)
    indices = tensors.find(f"{name}_g_idx", "I32", shape=shape[-1:])
    order = None if indices is None or numbers(indices)[0].min() < 0 else order_of(tensors, indices, grid.wide)
    zeros = tensors.find(f"{name}_zero_point", "I8", "I32")
    points = None if zeros is None else grid_of(tensors, unpacked_along(tensors, zeros, scale, bits), shape, block)
    factor = FACTOR_KINDS[scale.encoding.name]
    layout = Layout(bits, size, factor=factor, numbers=middle if points is None else 0, zeros=points is not None)
    sources = (codes, scale) if zeros is None else (codes, scale, zeros)

    def read(first: int, end: int) -> BlockParts:
        q = numbers(codes, first, end)
        q = q.view(np.uint8) ^ np.uint8(0x80) if signed else unpacked(q, bits)
        q = (q if order is None else np.take(q, order, axis=1)).reshape(end - first, -1, 1, size)
        d = grid.read(first, end, size, q.shape[1])
        return BlockParts(
            q, d, zeros=None if points is None else zeros_of(points, first, end, size, q.shape[1], middle)
        )

    tensors.put(name, shape, layout, sources, read, order)


def zeros_of(points: Grid, first: int, end: int, size: int, count: int, middle: int) -> UInt8Array:
    """Zero points with half the range of codes added, as the packed ones have it: [rows, blocks, 1]."""
    found = points.read(first, end, size, count)
    signed = points.tensor.encoding.name == "I8"
    zeros = (found.astype(np.int16) + np.int16(middle)).astype(np.uint8) if signed else found
    return zeros[..., None]


def unpacked_along(tensors: Tensors, zeros: Weight, scale: Weight, bits: int) -> Weight:
    """Zero points in the shape of the factors: I8 as they are; packed along N, as bytes of their own."""
    if zeros.encoding.name == "I8":
        if zeros.shape != scale.shape:
            raise tensors.fail(zeros.name, f"has shape {list(zeros.shape)}, and factors {list(scale.shape)}")
        return zeros
    if len(scale.shape) != 2 or zeros.shape != (-(-scale.shape[0] * bits // 32), scale.shape[1]):
        raise tensors.fail(zeros.name, f"has shape {list(zeros.shape)}, and factors {list(scale.shape)}")
    words = np.ascontiguousarray(numbers(zeros).T)  # [groups, N bits / 32]
    words = np.pad(words, ((0, 0), (0, -words.shape[1] % bits)))
    codes = np.ascontiguousarray(unpacked(words, bits)[:, : scale.shape[0]].T)
    return Weight.from_bytes(zeros.name, BYTE, scale.shape, codes.reshape(math.prod(scale.shape)))
