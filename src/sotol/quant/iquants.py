"""GGML's IQ encodings of two and three bits: runs of magnitudes from a grid (`grids.py`), and signs.

Layouts: ggml's `block_iq2_xxs` … `block_iq3_s` (ggml-common.h). 256 weights have one float16, groups of 16 or 32 a
scale of 4 bits, s, which stands for 2 s + 1. A run's index in the grid has 8 to 10 bits; each weight has a sign. Some
encodings store 7 signs for 8 weights: the eighth makes the number of negative ones even.

A code is a weight's magnitude, as a digit of the grid, and its sign in the bit above.
"""

from collections.abc import Callable
from functools import cache, partial

import numpy as np
import numpy.typing as npt

from sotol.quant.encoding import Encoding, as_blocks, halves, integer_encoding, pack_neighbours
from sotol.quant.grid_search import GridFit, encode_runs
from sotol.quant.grids import digits_of
from sotol.quant.layout import BlockParts, Float16Array, Float32Array, Int8Array, Layout, UInt8Array, UInt16Array

__all__ = ["IQUANTS", "IQUANT_FITS"]

Index = npt.NDArray[np.integer]

TWO_BITS = (8, 25, 43)
THREE_BITS = (4, 12, 20, 28, 36, 44, 52, 62)  # of IQ3_XXS
ODD = (1, 3, 5, 7, 9, 11, 13, 15)  # of IQ3_S


def table_of(magnitudes: tuple[int, ...]) -> tuple[int, ...]:
    """The numbers of all codes: magnitudes, filled up with zeros to a power of two, and their opposites."""
    filled = magnitudes + (0,) * (-len(magnitudes) % 4)
    return filled + tuple(-number for number in filled)


@cache
def runs_of(grid: str) -> npt.NDArray[np.generic]:
    """A grid's runs, each as one item of as many bytes as it has digits: [runs]."""
    digits = digits_of(grid)
    return digits.view(f"u{digits.shape[1]}")[:, 0]


@cache
def signs_at(bit: int) -> npt.NDArray[np.uint64]:
    """Eight bytes for each byte: bit i of it is bit `bit` of byte i. [256]"""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    return (bits << np.uint8(bit)).view(np.uint64)[:, 0]


@cache
def even_signs() -> UInt8Array:
    """Seven signs and the eighth, which makes the number of negative ones even: [128]."""
    seven = np.arange(128, dtype=np.uint8)
    return seven | (np.bitwise_count(seven) & np.uint8(1)) << np.uint8(7)


def codes(grid: str, index: Index, signs: UInt8Array, width: int) -> UInt8Array:
    """The codes of blocks: index [..., B, runs] in a grid, signs [..., B, 32] for 8 weights each -> [..., B, groups,
    width]."""
    digits = runs_of(grid)[index].view(np.uint64)  # [..., B, 32]
    negative = signs_at(2 if grid.startswith("iq2") else 3)[signs]
    return (digits | negative).view(np.uint8).reshape(*signs.shape[:-1], -1, width)


def odd_scales(scales: npt.NDArray[np.unsignedinteger]) -> Int8Array:
    """s -> 2 s + 1."""
    return (2 * scales + 1).astype(np.int8)


def nibble_scales(packed: UInt8Array) -> Int8Array:
    """Scales that share bytes, the first in the low half: [..., n] -> [..., 2 n]."""
    both = np.stack([packed & np.uint8(15), packed >> np.uint8(4)], axis=-1)
    return odd_scales(both.reshape(*packed.shape[:-1], -1))


def part_of(factor: Float16Array, part: float) -> Float32Array:
    """The factor times a power of two, in float32, since float16 may not reach that far down."""
    with np.errstate(invalid="ignore"):  # a broken file may hold a NaN
        return factor.astype(np.float32) * np.float32(part)


def words_of(packed: UInt8Array, dtype: str) -> npt.NDArray[np.unsignedinteger]:
    """Bytes as little-endian numbers: [..., size * n] -> [..., n]."""
    return np.ascontiguousarray(packed).view(dtype)


def signs_and_scales(words: npt.NDArray[np.unsignedinteger]) -> tuple[UInt8Array, Int8Array]:
    """Of 32 weights each [..., B, 8]: four times 7 bits of signs from bit 0 on, and a scale above them.

    Gives [..., B, 32] and [..., B, 8].
    """
    sevens = (words[..., None] >> np.array([0, 7, 14, 21], np.uint32)) & np.uint32(127)
    return even_signs()[sevens].reshape(*words.shape[:-1], 32), odd_scales(words >> np.uint32(28))


def split_iq2_xxs(data: UInt8Array) -> BlockParts:
    """d; for each 32 weights 4 bytes of indices, and a word of `signs_and_scales`."""
    blocks = as_blocks(data, 66)
    pairs = blocks[..., 2:].reshape(*blocks.shape[:-1], 8, 8)
    signs, scales = signs_and_scales(words_of(pairs[..., 4:], "<u4")[..., 0])
    index = pairs[..., :4].reshape(*blocks.shape[:-1], 32)
    return BlockParts(codes("iq2_xxs", index, signs, 32), part_of(halves(blocks, 0), 1 / 8), scales=scales)


def split_iq2_xs(data: UInt8Array) -> BlockParts:
    """d; for each 8 weights 2 bytes, an index of 9 bits and 7 signs; 8 bytes of 16 scales."""
    blocks = as_blocks(data, 74)
    both = words_of(blocks[..., 2:66], "<u2")  # [..., 32]
    q = codes("iq2_xs", both & np.uint16(511), even_signs()[both >> np.uint16(9)], 16)
    return BlockParts(q, part_of(halves(blocks, 0), 1 / 8), scales=nibble_scales(blocks[..., 66:]))


def split_iq2_s(data: UInt8Array) -> BlockParts:
    """d; 32 bytes of indices, 32 of signs, 8 with the bit pairs above the indices, 8 of 16 scales."""
    blocks = as_blocks(data, 82)
    pairs = (blocks[..., 66:74, None] >> np.array([0, 2, 4, 6], np.uint8)) & np.uint8(3)
    index = blocks[..., 2:34] | pairs.reshape(*blocks.shape[:-1], 32).astype(np.uint16) << np.uint16(8)
    q = codes("iq2_s", index, blocks[..., 34:66], 16)
    return BlockParts(q, part_of(halves(blocks, 0), 1 / 8), scales=nibble_scales(blocks[..., 74:]))


def split_iq3_xxs(data: UInt8Array) -> BlockParts:
    """d; 64 bytes of indices, of 4 weights each; for each 32 weights a word of `signs_and_scales`."""
    blocks = as_blocks(data, 98)
    signs, scales = signs_and_scales(words_of(blocks[..., 66:], "<u4"))
    return BlockParts(codes("iq3_xxs", blocks[..., 2:66], signs, 32), part_of(halves(blocks, 0), 1 / 4), scales=scales)


def split_iq3_s(data: UInt8Array) -> BlockParts:
    """d; 64 bytes of indices, of 4 weights each, 8 with the bits above them, 32 of signs, 4 of 8 scales."""
    blocks = as_blocks(data, 110)
    upper = np.unpackbits(blocks[..., 66:74], axis=-1, bitorder="little")
    q = codes("iq3_s", blocks[..., 2:66] | upper.astype(np.uint16) << np.uint16(8), blocks[..., 74:106], 32)
    return BlockParts(q, part_of(halves(blocks, 0), 1), scales=nibble_scales(blocks[..., 106:]))


# ---- encoding


def as_bytes(numbers: npt.NDArray[np.integer], dtype: str) -> UInt8Array:
    """[B, n] -> [B, size * n] bytes."""
    return np.ascontiguousarray(numbers, dtype).view(np.uint8)


def joined(scales: UInt8Array) -> UInt8Array:
    """The inverse of `nibble_scales`, of s: [B, 2 n] -> [B, n]."""
    return scales[:, ::2] | scales[:, 1::2] << np.uint8(4)


def sevens_and_scales(signs: UInt8Array, scales: UInt8Array) -> npt.NDArray[np.uint32]:
    """The words of `signs_and_scales`: [B, 32], [B, 8] -> [B, 8]."""
    sevens = (signs & np.uint8(127)).astype(np.uint32).reshape(-1, 8, 4) << np.array([0, 7, 14, 21], np.uint32)
    words: npt.NDArray[np.uint32] = np.bitwise_or.reduce(sevens, axis=-1) | scales.astype(np.uint32) << np.uint32(28)
    return words


def join_iq2_xxs(d: UInt8Array, scales: UInt8Array, index: UInt16Array, signs: UInt8Array) -> UInt8Array:
    """The inverse of `split_iq2_xxs`, see `GridFit.join`."""
    words = as_bytes(sevens_and_scales(signs, scales), "<u4").reshape(-1, 8, 4)
    pairs = np.concatenate([index.astype(np.uint8).reshape(-1, 8, 4), words], axis=-1)
    return np.concatenate([d, pairs.reshape(-1, 64)], axis=-1)


def join_iq2_xs(d: UInt8Array, scales: UInt8Array, index: UInt16Array, signs: UInt8Array) -> UInt8Array:
    """The inverse of `split_iq2_xs`."""
    both = index | (signs & np.uint8(127)).astype(np.uint16) << np.uint16(9)
    return np.concatenate([d, as_bytes(both, "<u2"), joined(scales)], axis=-1)


def join_iq2_s(d: UInt8Array, scales: UInt8Array, index: UInt16Array, signs: UInt8Array) -> UInt8Array:
    """The inverse of `split_iq2_s`."""
    pairs = pack_neighbours((index >> np.uint16(8)).astype(np.uint8))
    return np.concatenate([d, index.astype(np.uint8), signs, pairs, joined(scales)], axis=-1)


def join_iq3_xxs(d: UInt8Array, scales: UInt8Array, index: UInt16Array, signs: UInt8Array) -> UInt8Array:
    """The inverse of `split_iq3_xxs`."""
    return np.concatenate([d, index.astype(np.uint8), as_bytes(sevens_and_scales(signs, scales), "<u4")], axis=-1)


def join_iq3_s(d: UInt8Array, scales: UInt8Array, index: UInt16Array, signs: UInt8Array) -> UInt8Array:
    """The inverse of `split_iq3_s`."""
    upper = np.packbits((index >> np.uint16(8)).astype(np.uint8), axis=-1, bitorder="little")
    return np.concatenate([d, index.astype(np.uint8), upper, signs, joined(scales)], axis=-1)


NEAR = (0.8, 0.9, 1.0, 1.1, 1.2)
IQUANT_FITS = {
    "IQ2_XXS": GridFit("iq2_xxs", (TWO_BITS,), 32, 1 / 8, 4, NEAR, join_iq2_xxs, "even"),
    "IQ2_XS": GridFit("iq2_xs", (TWO_BITS,), 16, 1 / 8, 4, NEAR, join_iq2_xs, "even"),
    "IQ2_S": GridFit("iq2_s", (TWO_BITS,), 16, 1 / 8, 4, NEAR, join_iq2_s, "free"),
    "IQ3_XXS": GridFit("iq3_xxs", (THREE_BITS,), 32, 1 / 4, 4, NEAR, join_iq3_xxs, "even"),
    "IQ3_S": GridFit("iq3_s", (ODD,), 32, 1.0, 4, NEAR, join_iq3_s, "free"),
}


def iquant(name: str, ggml_type: int, size: int, split: Callable[[UInt8Array], BlockParts]) -> Encoding:
    """A row of the table: groups whose factor is float32, since d counts in parts of it."""
    fit = IQUANT_FITS[name]
    table = table_of(fit.tables[0])
    bits = len(table).bit_length() - 1
    layout = Layout(bits, fit.width, fit.groups, numbers=table, factor="f32", scales=True)
    return integer_encoding(
        name,
        ggml_type=ggml_type,
        size=size,
        layout=layout,
        split=split,
        encode=partial(encode_runs, fit),
        recoded=True,
    )


IQUANTS: tuple[Encoding, ...] = (
    iquant("IQ2_XXS", 16, 66, split_iq2_xxs),
    iquant("IQ2_XS", 17, 74, split_iq2_xs),
    iquant("IQ2_S", 22, 82, split_iq2_s),
    iquant("IQ3_XXS", 18, 98, split_iq3_xxs),
    iquant("IQ3_S", 21, 110, split_iq3_s),
)
