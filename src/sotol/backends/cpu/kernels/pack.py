"""Native code that packs rows of an encoded matrix into panels: the same as `panels.pack`, at the speed of memory.

Packing only moves bits, and inverts some: encodings that need more were recoded before. So the code is generated from a
map of where each bit goes, and the map is found by packing blocks with a single bit set. So only `panels.pack` knows
the layout of panels, and only an encoding's `split` knows the layout of its blocks.
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
from sotol.quant import Encoding, encoding_named

ROWS = panels.ROWS
WORD = 4  # bytes that are moved at once, at most


@dataclass(frozen=True, slots=True)
class Move:
    """Some bits of a destination: the word at byte `source` of the block, shifted right (left if negative), masked."""

    source: int
    shift: int
    mask: int


@dataclass(frozen=True, slots=True)
class Destination:
    """Neighbouring bytes of a panel's block that belong to one row: `size` bytes at `out` + row * size."""

    out: int
    size: int
    inverted: int  # bits that are inverted
    moves: tuple[Move, ...]


def pack(_target: Target, encoding: str):
    """pack(rows, out, panels, row_bytes, 0) -> 0: rows, 16 for each of the panels, to panels at out."""
    stored = encoding_named(encoding)
    size, packed = stored.size, panels.block_size(stored)
    place = _placer(_destinations(stored), min(WORD, size))

    def pack_panels(rows, out, count, row_bytes, _5):
        for panel in range(count):
            first = rows + panel * ROWS * row_bytes
            for at in range(0, row_bytes, size):
                for row in range(ROWS):
                    place(first + row * row_bytes + at, out, row)
                out += packed
        return 0

    return pack_panels


def _placer(destinations: list[Destination], word: int):
    """place(block, out, row): a block of one row, moved to its bytes in the panel's block at out."""
    kind = ir.IntType(8 * word)

    @intrinsic
    def place(_context, _block, _out, _row):
        def generate(c, b, _s, args):
            block, out, row = args
            sizes = {destination.size for destination in destinations}
            at = {size: b.add(out, b.mul(row, ir.Constant(I64, size))) for size in sizes}
            for to in destinations:
                value = ir.Constant(kind, to.inverted)
                for move in to.moves:
                    bits = load_ir(b, offset(b, block, move.source), kind)
                    shift = b.lshr if move.shift > 0 else b.shl
                    bits = shift(bits, ir.Constant(kind, abs(move.shift))) if move.shift else bits
                    value = b.xor(value, b.and_(bits, ir.Constant(kind, move.mask)))
                value = value if to.size == word else b.trunc(value, ir.IntType(8 * to.size))
                store_ir(b, value, offset(b, at[to.size], to.out))
            return c.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64), generate

    return place


def _destinations(encoding: Encoding) -> list[Destination]:
    """All destinations of a panel's block, found by its first row: those of the other rows follow them."""
    inverted, sources = _bits_of_row(encoding, 0)
    _, next_row = _bits_of_row(encoding, 1)
    own = np.flatnonzero((sources >= 0).any(axis=1))  # bytes of row 0
    runs = np.split(own, np.flatnonzero(np.diff(own) != 1) + 1)
    destinations = []
    for run in runs:
        size = len(run)
        if size not in (1, 2, WORD) or (next_row[run + size] < 0).all():
            raise ValueError(f"{encoding.name}: a row's {size} bytes at {run[0]} of a panel's block can't be moved")
        moves = _moves(sources[run].reshape(-1), min(WORD, encoding.size), encoding.size)
        destinations.append(Destination(int(run[0]), size, int.from_bytes(inverted[run].tobytes(), "little"), moves))
    return destinations


def _moves(sources: npt.NDArray[np.int64], word: int, size: int) -> tuple[Move, ...]:
    """The moves that fill a destination whose bit i is bit sources[i] of the block (-1: none)."""
    masks: dict[tuple[int, int], int] = {}
    for i, bit in enumerate(sources.tolist()):
        if bit >= 0:
            source = max(0, min((bit - i) // 8, bit // 8, size - word))
            if bit - 8 * source >= 8 * word:  # the word of the neighbouring bits does not have it
                source = min(bit // 8, size - word)
            key = source, bit - 8 * source - i
            masks[key] = masks.get(key, 0) | 1 << i
    return tuple(Move(source, shift, mask) for (source, shift), mask in masks.items())


def _bits_of_row(encoding: Encoding, row: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """What a block of zeros becomes in a panel; and the bit of the row's block that each bit there depends on.

    [bytes], and [bytes, 8] with -1 for none.
    """
    count = 8 * encoding.size
    blocks = np.zeros((ROWS, count + 1, encoding.size), np.uint8)
    one = np.eye(count, dtype=np.uint8)
    blocks[row, 1:] = np.packbits(one, axis=1, bitorder="little")
    weight = Weight.from_bytes("", encoding, (ROWS, (count + 1) * encoding.values), blocks.reshape(-1))
    out = np.zeros(panels.packed_shape(weight), np.uint8)
    panels.pack(weight, out)
    packed = out.reshape(count + 1, -1)
    changed = np.unpackbits((packed[1:] ^ packed[0])[..., None], axis=2, bitorder="little")  # [bits, bytes, 8]
    return packed[0], np.where(changed.any(axis=0), changed.argmax(axis=0), -1)
