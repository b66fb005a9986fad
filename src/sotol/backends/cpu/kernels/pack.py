"""Rows of an encoded matrix to panels: what `panels.pack` does, at the speed of memory.

Packing only moves bits (and turns some over), so the kernel is generated from where each bit goes, which is found by
packing blocks that have one bit set. `panels.pack` stays the only place that knows the layout of panels, and an
encoding's `split` the only one that knows its blocks.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sotol.backends.cpu import panels
from sotol.backends.cpu.target import Target
from sotol.backends.cpu.vectors.simd import I64, load_ir, offset, store_ir
from sotol.formats.weights import Weight
from sotol.quant import ENCODINGS, Encoding

ROWS = panels.ROWS
WORD = 4  # bytes of the largest unit that moves at once


@dataclass(frozen=True, slots=True)
class Move:
    """Bits of a unit: of the word at byte `source` of the block, shifted right (left, if negative), those of a mask."""

    source: int
    shift: int
    mask: int


@dataclass(frozen=True, slots=True)
class Unit:
    """Bytes of a panel's block that belong to one row: at `out` + row * size; `turned` bits are the other way round."""

    out: int
    size: int
    turned: int
    moves: tuple[Move, ...]


def pack(_target: Target, encoding: str):
    """pack(rows, out, panels, row_bytes, 0) -> 0: panels of whole sixteens of rows."""
    stored = ENCODINGS[encoding]
    size, packed = stored.size, panels.block_size(stored)
    place = _placer(_units(stored), min(WORD, size))

    def pack_panels(rows, out, count, row_bytes, _5):
        for panel in range(count):
            first = rows + panel * ROWS * row_bytes
            for at in range(0, row_bytes, size):
                for row in range(ROWS):
                    place(first + row * row_bytes + at, out, row)
                out += packed
        return 0

    return pack_panels


def _placer(units: list[Unit], word: int):
    """place(block, out, row): a row's part of a panel's block, from its block of the matrix."""
    kind = ir.IntType(8 * word)

    @intrinsic
    def place(_context, _block, _out, _row):
        def generate(c, b, _s, args):
            block, out, row = args
            at = {size: b.add(out, b.mul(row, ir.Constant(I64, size))) for size in {unit.size for unit in units}}
            for unit in units:
                value = ir.Constant(kind, unit.turned)
                for move in unit.moves:
                    bits = load_ir(b, offset(b, block, move.source), kind)
                    shift = b.lshr if move.shift > 0 else b.shl
                    bits = shift(bits, ir.Constant(kind, abs(move.shift))) if move.shift else bits
                    value = b.xor(value, b.and_(bits, ir.Constant(kind, move.mask)))
                part = value if unit.size == word else b.trunc(value, ir.IntType(8 * unit.size))
                store_ir(b, part, offset(b, at[unit.size], unit.out))
            return c.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64), generate

    return place


def _units(encoding: Encoding) -> list[Unit]:
    """All units of a panel's block, which is looked at through its first row; the other rows' follow it."""
    plain, sources = _bits_of_row(encoding, 0)
    _, beside = _bits_of_row(encoding, 1)
    own = np.flatnonzero((sources >= 0).any(axis=1))  # bytes of row 0
    runs = np.split(own, np.flatnonzero(np.diff(own) != 1) + 1)
    units = []
    for run in runs:
        size = len(run)
        if size not in (1, 2, WORD) or (beside[run + size] < 0).all():
            raise ValueError(f"{encoding.name}: a row's {size} bytes at {run[0]} of a panel's block can't be moved")
        turned = int.from_bytes(plain[run].tobytes(), "little")
        units.append(
            Unit(int(run[0]), size, turned, _moves(sources[run].reshape(-1), min(WORD, encoding.size), encoding.size))
        )
    return units


def _moves(sources: npt.NDArray[np.int64], word: int, size: int) -> tuple[Move, ...]:
    """The moves that fill a unit whose bit i is bit sources[i] of the block (-1: of none)."""
    masks: dict[tuple[int, int], int] = {}
    for i, bit in enumerate(sources.tolist()):
        if bit >= 0:
            source = max(0, min((bit - i) // 8, bit // 8, size - word))
            if bit - 8 * source >= 8 * word:  # beyond the word that the bit's neighbours come from
                source = min(bit // 8, size - word)
            key = source, bit - 8 * source - i
            masks[key] = masks.get(key, 0) | 1 << i
    return tuple(Move(source, shift, mask) for (source, shift), mask in masks.items())


def _bits_of_row(encoding: Encoding, row: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """A block of zeros in a panel, and which bit of the row each bit of it follows: [bytes, 8], -1 for none."""
    count = 8 * encoding.size
    blocks = np.zeros((ROWS, count + 1, encoding.size), np.uint8)
    one = np.eye(count, dtype=np.uint8)
    blocks[row, 1:] = np.packbits(one, axis=1, bitorder="little")
    weight = Weight("", encoding, (ROWS, (count + 1) * encoding.values), blocks.reshape(-1))
    out = np.zeros(panels.packed_shape(weight), np.uint8)
    panels.pack(weight, out)
    parts = out.reshape(count + 1, -1)
    turned = np.unpackbits((parts[1:] ^ parts[0])[..., None], axis=2, bitorder="little")  # [bits, bytes, 8]
    return parts[0], np.where(turned.any(axis=0), turned.argmax(axis=0), -1)
