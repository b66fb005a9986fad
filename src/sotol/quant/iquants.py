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

from sotol.quant.encoding import Encoding, as_blocks, halves, integer_encoding, to_half
from sotol.quant.grid_search import fit_runs
from sotol.quant.grids import digits_of
from sotol.quant.layout import BlockParts, Float16Array, Float32Array, Int8Array, Layout, UInt8Array
from sotol.quant.search import EncodeBlocks, EncodeWeighted, deviations, encode_chunks, over

__all__ = ["IQUANTS", "WEIGHTED_IQUANTS"]

Index = npt.NDArray[np.integer]
CHUNK = 256  # blocks encoded at once

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


def fit(
    blocks: Float32Array,
    grid: str,
    magnitudes: tuple[int, ...],
    width: int,
    part: float,
    *,
    even: bool,
    importance: Float32Array | None,
) -> tuple[UInt8Array, UInt8Array, Index, UInt8Array]:
    """Blocks [B, 256] as d's bytes [B, 2], scales s [B, groups], indices [B, runs] and signs [B, 32].

    part: what d counts. even: whether each 8 weights need an even number of negative ones: where it
    is odd, that changes its sign which loses least by it. importance: [B, 256], how much weights count, or None.
    """
    weight = None if importance is None else deviations(blocks, importance)
    x = blocks.reshape(-1, 32, 8)
    negative = x < 0
    size = np.abs(x)
    if even:
        odd = negative.sum(-1) % 2 == 1  # [B, 32]
        loss = size if weight is None else weight.reshape(size.shape) * size * size
        changed = odd[..., None] & (np.arange(8) == loss.argmin(-1)[..., None])
        negative ^= changed
        size = np.where(changed, -size, size)  # what the number is, seen from the sign that it gets
    signs = np.packbits(negative, axis=-1, bitorder="little")[..., 0]
    values = np.array(magnitudes, np.float32)[digits_of(grid)]
    groups = size.reshape(len(blocks), -1, width)
    counts = None if weight is None else weight.reshape(groups.shape)
    scale, _ = fit_runs(groups, values, float(magnitudes[-1]), weight=counts)  # [B, groups]
    d = to_half(scale.max(-1, keepdims=True) / np.float32(31 * part))
    step = d.astype(np.float32) * np.float32(part)
    scales = np.clip(np.rint((over(scale, step) - 1) / 2), 0, 15)
    _, index = fit_runs(groups, values, float(magnitudes[-1]), step * (2 * scales + 1), counts)
    return d.view(np.uint8), scales.astype(np.uint8), index.reshape(len(blocks), -1), signs


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


def encode_iq2_xxs(blocks: Float32Array, importance: Float32Array | None = None) -> UInt8Array:
    """[B, 256] -> [B, 66]."""
    d, scales, index, signs = fit(blocks, "iq2_xxs", TWO_BITS, 32, 1 / 8, even=True, importance=importance)
    words = as_bytes(sevens_and_scales(signs, scales), "<u4").reshape(-1, 8, 4)
    pairs = np.concatenate([index.astype(np.uint8).reshape(-1, 8, 4), words], axis=-1)
    return np.concatenate([d, pairs.reshape(-1, 64)], axis=-1)


def encode_iq2_xs(blocks: Float32Array, importance: Float32Array | None = None) -> UInt8Array:
    """[B, 256] -> [B, 74]."""
    d, scales, index, signs = fit(blocks, "iq2_xs", TWO_BITS, 16, 1 / 8, even=True, importance=importance)
    both = index | (signs & np.uint8(127)).astype(np.int64) << 9
    return np.concatenate([d, as_bytes(both, "<u2"), joined(scales)], axis=-1)


def encode_iq2_s(blocks: Float32Array, importance: Float32Array | None = None) -> UInt8Array:
    """[B, 256] -> [B, 82]."""
    d, scales, index, signs = fit(blocks, "iq2_s", TWO_BITS, 16, 1 / 8, even=False, importance=importance)
    pairs = np.bitwise_or.reduce((index >> 8).reshape(-1, 8, 4) << np.array([0, 2, 4, 6]), axis=-1)
    parts = [d, (index & 255).astype(np.uint8), signs, pairs.astype(np.uint8), joined(scales)]
    return np.concatenate(parts, axis=-1)


def encode_iq3_xxs(blocks: Float32Array, importance: Float32Array | None = None) -> UInt8Array:
    """[B, 256] -> [B, 98]."""
    d, scales, index, signs = fit(blocks, "iq3_xxs", THREE_BITS, 32, 1 / 4, even=True, importance=importance)
    return np.concatenate([d, index.astype(np.uint8), as_bytes(sevens_and_scales(signs, scales), "<u4")], axis=-1)


def encode_iq3_s(blocks: Float32Array, importance: Float32Array | None = None) -> UInt8Array:
    """[B, 256] -> [B, 110]."""
    d, scales, index, signs = fit(blocks, "iq3_s", ODD, 32, 1, even=False, importance=importance)
    upper = np.packbits((index >> 8).astype(np.uint8), axis=-1, bitorder="little")
    return np.concatenate([d, (index & 255).astype(np.uint8), upper, signs, joined(scales)], axis=-1)


ENCODERS: dict[str, EncodeBlocks] = {
    "IQ2_XXS": encode_iq2_xxs,
    "IQ2_XS": encode_iq2_xs,
    "IQ2_S": encode_iq2_s,
    "IQ3_XXS": encode_iq3_xxs,
    "IQ3_S": encode_iq3_s,
}


def iquant(
    name: str,
    ggml_type: int,
    size: int,
    width: int,
    magnitudes: tuple[int, ...],
    split: Callable[[UInt8Array], BlockParts],
) -> Encoding:
    """A row of the table: groups of `width` weights, whose factor is float32 since d counts in parts of it."""
    table = table_of(magnitudes)
    bits = len(table).bit_length() - 1
    layout = Layout(bits, width, 256 // width, numbers=table, factor="f32", scales=True)
    return integer_encoding(
        name,
        ggml_type=ggml_type,
        size=size,
        layout=layout,
        split=split,
        encode=partial(encode_chunks, encode=ENCODERS[name], chunk=CHUNK),
        recoded=True,
    )


IQUANTS: tuple[Encoding, ...] = (
    iquant("IQ2_XXS", 16, 66, 32, TWO_BITS, split_iq2_xxs),
    iquant("IQ2_XS", 17, 74, 16, TWO_BITS, split_iq2_xs),
    iquant("IQ2_S", 22, 82, 16, TWO_BITS, split_iq2_s),
    iquant("IQ3_XXS", 18, 98, 32, THREE_BITS, split_iq3_xxs),
    iquant("IQ3_S", 21, 110, 32, ODD, split_iq3_s),
)

WEIGHTED_IQUANTS: dict[str, EncodeWeighted] = {
    name: partial(encode_chunks, encode=encode, chunk=CHUNK) for name, encode in ENCODERS.items()
}
