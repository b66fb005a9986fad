"""Matrices whose rows have their codes one after another, and factors in a grid: each for a rectangle of the matrix.

So most formats have it: a factor for all of a matrix, for a row, for a group of a row's inputs, or for a block of rows
and inputs. Of experts [E, N, K], each matrix has a grid of its own.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sotol.formats.quantised.tensors import FACTOR_KINDS, Numbers, Tensors, block_width, failure, numbers, unpacked
from sotol.formats.weights import Weight
from sotol.quant import BlockParts, Layout, UInt8Array
from sotol.quant.curves import DOUBLED_E2M1

__all__ = [
    "FLOATS", "POWERS", "Grid", "bfloat_powers", "finite", "grid_of", "put_floats", "put_mxfp4", "put_nvfp4",
    "width_of",
]  # fmt: skip

FLOATS = {"F8_E4M3": "e4m3", "F8_E5M2": "e5m2"}  # a tensor's type -> the key of quant.NUMBERS
FINITE = {"F8_E4M3": 0x7F, "F8_E5M2": 0x7C}  # the least code, without its sign, of no finite number
POWERS = ("F8_E8M0", "U8")  # types of tensors of powers of two
Shape = tuple[int, ...]


class Grid(NamedTuple):
    """Numbers of a tensor, each for `high` rows and `wide` inputs of a matrix [N, K]."""

    tensor: Weight  # [matrices * rows of the grid, columns of the grid]
    rows: int  # N
    high: int
    wide: int

    def read(self, first: int, end: int, step: int, count: int) -> Numbers:
        """Those of rows first … end - 1, at inputs 0, step, … : [end - first, count]."""
        row, tall = np.arange(first, end), -(-self.rows // self.high)
        at = row // self.rows * tall + row % self.rows // self.high
        found = numbers(self.tensor, int(at[0]), int(at[-1]) + 1)
        wanted: Numbers = found[(at - at[0])[:, None], np.arange(count) * step // self.wide]
        return wanted


def grid_of(tensors: Tensors, tensor: Weight, shape: Shape, block: tuple[int, int] | None = None) -> Grid:
    """The grid of a matrix or of matrices of experts. block: the rows and inputs of a rectangle, where it has both.

    An error for a tensor of another shape than [1], [N], [N, 1], [N, groups] or that of blocks, for each matrix.
    """
    if len(shape) < 2:
        raise tensors.fail(tensor.name, f"belongs to a weight of shape {list(shape)}, which is no matrix")
    *lead, rows, width = shape
    matrices = math.prod(lead)
    own, count = list(tensor.shape), math.prod(tensor.shape)
    sides = own[len(lead) :] if own[: len(lead)] == lead else own
    if count == 1:
        grid, high, wide = (1, 1), rows * matrices, width
    elif own[: len(lead)] != lead:
        raise tensors.fail(tensor.name, f"has shape {own}, which are no factors of a weight {list(shape)}")
    elif math.prod(sides) == 1:
        grid, high, wide = (matrices, 1), rows, width
    elif sides in ([rows], [rows, 1]):
        grid, high, wide = (matrices * rows, 1), 1, width
    elif len(sides) == 2 and sides[0] == rows and width % sides[1] == 0:
        grid, high, wide = (matrices * rows, sides[1]), 1, width // sides[1]
    elif block is not None and sides == [-(-rows // block[0]), -(-width // block[1])]:
        grid, (high, wide) = (matrices * sides[0], sides[1]), block
    else:
        said = "no size of blocks is said" if block is None else f"blocks are {block[0]} x {block[1]}"
        raise tensors.fail(tensor.name, f"has shape {own}, which are no factors of a weight {list(shape)}; {said}")
    flat = Weight.from_bytes(tensor.name, tensor.encoding, grid, tensor.rows().reshape(-1))
    return Grid(flat, rows * matrices if count == 1 else rows, high, wide)


def width_of(tensors: Tensors, name: str, width: int, group: int) -> int:
    """`block_width`, or an error."""
    if found := block_width(width, group):
        return found
    raise tensors.fail(name, f"has rows of {width} numbers in groups of {group}: sotol runs multiples of 32")


def put_floats(tensors: Tensors, name: str, codes: Weight, scale: Weight, block: tuple[int, int] | None = None) -> None:
    """A weight of 8-bit floats times factors: OCP 8-bit Floating Point v1.0, E4M3 or E5M2."""
    grid = grid_of(tensors, scale, codes.shape, block)
    size = width_of(tensors, codes.name, codes.shape[-1], grid.wide)
    powers = scale.encoding.name in POWERS
    factor = "bf16" if powers else FACTOR_KINDS[scale.encoding.name]
    layout, path = Layout(8, size, numbers=FLOATS[codes.encoding.name], factor=factor), tensors.path

    def read(first: int, end: int) -> BlockParts:
        q = finite(path, codes, numbers(codes, first, end)).reshape(end - first, -1, 1, size)
        d = grid.read(first, end, size, q.shape[1])
        return BlockParts(q, bfloat_powers(path, scale.name, d) if powers else d)

    tensors.put(name, codes.shape, layout, (codes, scale), read)


def finite(path: Path, tensor: Weight, codes: UInt8Array, kind: str = "") -> UInt8Array:
    """Codes of 8-bit floats; FormatError for an infinity or NaN among them. kind: their type, if not the tensor's."""
    if ((codes & np.uint8(127)) >= FINITE[kind or tensor.encoding.name]).any():
        raise failure(path, tensor.name, "has a number that is not finite")
    return codes


def bfloat_powers(path: Path, name: str, x: UInt8Array) -> Numbers:
    """E8M0 as the bits of bfloat16: 2^(x - 127), which is subnormal for 0; an error for 255, a NaN."""
    check_powers(path, name, x)
    return np.where(x == 0, np.uint16(0x40), x.astype(np.uint16) << np.uint16(7)).astype("<u2")


def check_powers(path: Path, name: str, x: UInt8Array) -> None:
    """FormatError for an E8M0 that is NaN."""
    if (x == 255).any():
        raise failure(path, name, "has a scale that is not a number")


def pairs(codes: Weight, first: int, end: int) -> UInt8Array:
    """4-bit codes of rows, the first of each byte in its low half: [rows, K]."""
    return unpacked(numbers(codes, first, end), 4)


def put_mxfp4(tensors: Tensors, name: str, shape: Shape, codes: Weight, scale: Weight) -> None:
    """A weight of MXFP4 (OCP Microscaling Formats v1.0): E2M1, of which 32 share a power of two.

    codes: rows of bytes or words with codes, the first in the lowest bits. scale: E8M0, [..., N, K / 32].
    """
    layout, blocks, path = Layout(4, 32, numbers=DOUBLED_E2M1, factor="e8m0"), shape[-1] // 32, tensors.path

    def read(first: int, end: int) -> BlockParts:
        d = numbers(scale, first, end).view(np.uint8).reshape(end - first, blocks)
        check_powers(path, scale.name, d)
        return BlockParts(pairs(codes, first, end).reshape(end - first, blocks, 1, 32), d)

    tensors.put(name, shape, layout, (codes, scale), read)


def put_nvfp4(
    tensors: Tensors, name: str, shape: Shape, codes: Weight, scale: Weight, whole: Weight | None, *, inverse: bool
) -> None:
    """A weight of NVFP4: E2M1, of which 16 share an E4M3, and all a factor of the whole matrix.

    codes: as of `put_mxfp4`. scale: [..., N, K / 16]. whole: that factor in F32, or what factors are divided by
    (inverse); None: there is none.
    """
    size = width_of(tensors, name, shape[-1], shape[-1])
    groups, blocks, path, whole_name = size // 16, shape[-1] // size, tensors.path, whole.name if whole else ""
    if whole is None:
        layout, grid = Layout(4, 16, groups, numbers=DOUBLED_E2M1, factor="e4m3"), None
    else:
        layout = Layout(4, 16, groups, numbers=DOUBLED_E2M1, factor="f32", scales=True, floating=True)
        grid = grid_of(tensors, whole, shape)

    def read(first: int, end: int) -> BlockParts:
        scales = numbers(scale, first, end).view(np.uint8).reshape(end - first, blocks, groups)
        if (scales >= 0x7F).any():
            raise failure(path, scale.name, "has a scale that is negative or not a number")
        q = pairs(codes, first, end).reshape(end - first, blocks, groups, 16)
        if grid is None:
            return BlockParts(q, scales)
        d = grid.read(first, end, size, blocks)
        if inverse and not d.all():
            raise failure(path, whole_name, "is 0, by which factors are divided")
        return BlockParts(q, np.float32(1) / d if inverse else d, scales=scales)

    tensors.put(name, shape, layout, (codes, scale) if whole is None else (codes, scale, whole), read)
