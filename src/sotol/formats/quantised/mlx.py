"""MLX's quantised weights: `weight` as a stream of codes, `scales`, and `biases` for the affine mode.

Layout: the documentation of mlx.core.quantize (modes affine, mxfp4, mxfp8, nvfp4). Codes lie one after another in words
of 32 bits, the first in the lowest bits; an affine number is scale * code + bias. config.json's `quantization` has the
bits and the group of all weights, and of single ones by name.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sotol.formats.quantised.grids import bfloat_powers, finite, put_mxfp4, put_nvfp4, width_of
from sotol.formats.quantised.settings import Settings
from sotol.formats.quantised.tensors import FACTOR_KINDS, Tensors, numbers, unpacked
from sotol.formats.weights import Weight
from sotol.quant import BlockParts, Layout

__all__ = ["join_metal", "join_mlx"]

BITS = (1, 2, 3, 4, 5, 6, 8)
GROUPS = (32, 64, 128)
# By mode: the only bits and group that it has.
FLOAT_MODES = {"mxfp4": (4, 32), "nvfp4": (4, 16), "mxfp8": (8, 32)}


class Form(NamedTuple):
    """How a weight's numbers are stored."""

    mode: str
    bits: int
    group: int


def join_mlx(settings: Settings, tensors: Tensors, named: Callable[[str], str] = str) -> None:
    """The weights of a checkpoint of MLX. named: the name of a weight here, from that in the settings."""
    usual = form_of(settings, None)
    settings.ignore("quant_method")
    own = dict[str, Form | None]()
    for key in settings.keys():  # noqa: SIM118  (it is no dict)
        if settings.get(key) is False:
            own[named(key)] = None
        elif settings.get(key) is not True and (inner := settings.inner(key)) is not None:
            own[named(key)] = form_of(inner, usual)
            inner.finish()
    settings.finish()
    for name in tensors.ending(".scales"):
        form = own.get(name, usual)
        if form is None:
            raise tensors.fail(f"{name}.scales", "belongs to a weight that config.json says is not quantised")
        codes = tensors.take(f"{name}.weight", "U32")
        width = codes.shape[-1] * 32 // form.bits
        if codes.shape[-1] * 32 % form.bits or width % form.group:
            raise tensors.fail(codes.name, f"has rows of {codes.shape[-1]} words: no groups of {form}")
        shape, grid = (*codes.shape[:-1], width), (*codes.shape[:-1], width // form.group)
        PUT[form.mode](tensors, name, shape, grid, codes, form)


def join_metal(settings: Settings, tensors: Tensors) -> None:
    """The same of a checkpoint whose quant_method is "metal": transformers' MetalConfig, whose biases are `qbiases`."""
    settings.ignore("modules_to_not_convert")
    settings.expect("dequantize", False)
    for name in tensors.ending(".qbiases"):
        tensors.weights[f"{name}.biases"] = tensors.weights.pop(f"{name}.qbiases")
    join_mlx(settings, tensors)


def form_of(settings: Settings, usual: Form | None) -> Form:
    """The mode, bits and group that settings say; mode and the rest of it are the usual ones where they don't."""
    mode = settings.expect("mode", "affine", *FLOAT_MODES) or (usual.mode if usual else "affine")
    bits, group = settings.integer("bits"), settings.integer("group_size")
    if mode in FLOAT_MODES:
        form = Form(str(mode), *FLOAT_MODES[str(mode)])
        if (bits or form.bits, group or form.group) != (form.bits, form.group):
            raise settings.fail(f"{mode} has {form.bits} bits and groups of {form.group}, not {bits} and {group}")
        return form
    bits, group = bits or (usual.bits if usual else None), group or (usual.group if usual else None)
    if bits not in BITS or group not in GROUPS:
        said = f"bits is {bits} and group_size {group}"
        raise settings.fail(f"{said}; sotol supports bits of {', '.join(map(str, BITS))} and groups of 32, 64 and 128")
    return Form("affine", bits, group)


def put_affine(
    tensors: Tensors, name: str, shape: tuple[int, ...], grid: tuple[int, ...], codes: Weight, form: Form
) -> None:
    """A weight of the affine mode."""
    scale = tensors.take(f"{name}.scales", *FACTOR_KINDS, shape=grid)
    bias = tensors.take(f"{name}.biases", scale.encoding.name, shape=grid)
    layout = Layout(form.bits, form.group, factor=FACTOR_KINDS[scale.encoding.name], minimum=True)

    def read(first: int, end: int) -> BlockParts:
        q = unpacked(numbers(codes, first, end), form.bits).reshape(end - first, -1, 1, form.group)
        return BlockParts(q, numbers(scale, first, end), numbers(bias, first, end))

    tensors.put(f"{name}.weight", shape, layout, (codes, scale, bias), read)


def _put_mxfp4(
    tensors: Tensors, name: str, shape: tuple[int, ...], grid: tuple[int, ...], codes: Weight, _form: Form
) -> None:
    put_mxfp4(tensors, f"{name}.weight", shape, codes, tensors.take(f"{name}.scales", "U8", shape=grid))


def _put_nvfp4(
    tensors: Tensors, name: str, shape: tuple[int, ...], grid: tuple[int, ...], codes: Weight, _form: Form
) -> None:
    scale = tensors.take(f"{name}.scales", "U8", shape=grid)
    put_nvfp4(tensors, f"{name}.weight", shape, codes, scale, None, inverse=False)


def put_mxfp8(
    tensors: Tensors, name: str, shape: tuple[int, ...], grid: tuple[int, ...], codes: Weight, form: Form
) -> None:
    """E4M3, of which 32 share a power of two."""
    scale = tensors.take(f"{name}.scales", "U8", shape=grid)
    size = width_of(tensors, codes.name, shape[-1], form.group)
    layout, path = Layout(8, size, numbers="e4m3", factor="bf16"), tensors.path

    def read(first: int, end: int) -> BlockParts:
        q = finite(path, codes, numbers(codes, first, end).view(np.uint8), "F8_E4M3").reshape(end - first, -1, 1, size)
        return BlockParts(q, bfloat_powers(path, scale.name, numbers(scale, first, end)))

    tensors.put(f"{name}.weight", shape, layout, (codes, scale), read)


PUT = {"affine": put_affine, "mxfp4": _put_mxfp4, "nvfp4": _put_nvfp4, "mxfp8": put_mxfp8}
