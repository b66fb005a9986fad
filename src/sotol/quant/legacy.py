"""The first generation of GGML's integer encodings: 32 weights with one float16 scale (Q4_0, Q5_0, Q8_0), or with a
scale and an additive minimum (Q4_1, Q5_1).

Layouts and rounding rules: ggml's `block_q4_0` … `block_q8_0` and `quantize_row_*_ref` (ggml-common.h, ggml-quants.c).
A block is its scale d, its minimum m if it has one, the fifth bits of its numbers if they have one (bit j of a 32-bit
word is weight j's), and then the numbers: byte j holds weight j in its low half and weight j + 16 in its high half.
"""

from functools import partial

import numpy as np

from sotol.quant.encoding import (
    BELOW_HALF,
    Encoding,
    as_blocks,
    halves,
    integer_encoding,
    require_range,
    to_half,
    unpack_nibbles,
)
from sotol.quant.layout import BlockParts, Float16Array, Float32Array, Layout, UInt8Array
from sotol.quant.search import Fit, Guesses

__all__ = ["LEGACY", "LEGACY_FITS"]

WIDTH = 32


# A byte's eight bits as eight bytes, each bit where a fifth bit goes, bit 0 first.
FIFTHS = (np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little") << np.uint8(4)).view(
    np.uint64
)


def nibbles(packed: UInt8Array) -> UInt8Array:
    """[..., B, 16] bytes -> [..., B, 1, 32] numbers of 4 bits: all low halves, then all high halves."""
    return unpack_nibbles(packed, 16).reshape(*packed.shape[:-1], 1, WIDTH)


def with_fifth_bits(q: UInt8Array, packed: UInt8Array) -> UInt8Array:
    """q [..., B, 1, 32] with bit j of each [..., B, 4] bytes as weight j's fifth bit, in place."""
    q.view(np.uint64)[..., 0, :] |= FIFTHS[packed, 0]
    return q


def split_q4_0(data: UInt8Array) -> BlockParts:
    """d, 16 bytes of halves."""
    blocks = as_blocks(data, 18)
    return BlockParts(nibbles(blocks[..., 2:]), halves(blocks, 0))


def split_q4_1(data: UInt8Array) -> BlockParts:
    """d, m, 16 bytes of halves."""
    blocks = as_blocks(data, 20)
    return BlockParts(nibbles(blocks[..., 4:]), halves(blocks, 0), halves(blocks, 2))


def split_q5_0(data: UInt8Array) -> BlockParts:
    """d, 4 bytes of fifth bits, 16 bytes of halves."""
    blocks = as_blocks(data, 22)
    return BlockParts(with_fifth_bits(nibbles(blocks[..., 6:]), blocks[..., 2:6]), halves(blocks, 0))


def split_q5_1(data: UInt8Array) -> BlockParts:
    """d, m, 4 bytes of fifth bits, 16 bytes of halves."""
    blocks = as_blocks(data, 24)
    q = with_fifth_bits(nibbles(blocks[..., 8:]), blocks[..., 4:8])
    return BlockParts(q, halves(blocks, 0), halves(blocks, 2))


def split_q8_0(data: UInt8Array) -> BlockParts:
    """d, 32 signed bytes; flipping the sign bit adds 128."""
    blocks = as_blocks(data, 34)
    return BlockParts((blocks[..., 2:] ^ np.uint8(0x80))[..., None, :], halves(blocks, 0))


def inverse(d: Float32Array) -> Float32Array:
    """1 / d, and 0 where d is 0 or so small that 1 / d is infinite."""
    with np.errstate(divide="ignore", over="ignore"):
        result = np.float32(1) / d
    return np.where(np.isfinite(result), result, np.float32(0))


def pack(q: UInt8Array, bits: int, *factors: Float16Array) -> UInt8Array:
    """Blocks of numbers q [..., B, 32] of 4 or 5 bits, led by factors [..., B, 1] each: [..., B, size] bytes."""
    parts = [np.ascontiguousarray(factor).view(np.uint8) for factor in factors]
    if bits == 5:
        parts.append(np.packbits(q >> np.uint8(4), axis=-1, bitorder="little"))
    parts.append((q[..., :16] & np.uint8(15)) | (q[..., 16:] << np.uint8(4)))
    return np.concatenate(parts, axis=-1)


def flat(blocks: UInt8Array) -> UInt8Array:
    """[..., B, size] -> [..., B * size]."""
    return blocks.reshape(*blocks.shape[:-2], -1)


def encode_symmetric(x: Float32Array, bits: int) -> UInt8Array:
    """[..., B * 32] -> blocks around zero: the weight of largest magnitude gets the number 0, -2^(bits-1) steps.

    Its opposite, if there is one, would need one number more than there is, and loses up to a whole step.
    """
    blocks = as_blocks(np.asarray(x, np.float32), WIDTH)  # [..., B, 32]
    require_range(blocks)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1, keepdims=True), -1)
    middle = 1 << (bits - 1)
    d = largest / np.float32(-middle)
    q = np.clip(np.trunc(blocks * inverse(d) + np.float32(middle + 0.5)), 0, 2 * middle - 1)
    return flat(pack(q.astype(np.uint8), bits, to_half(d)))


def encode_ranged(x: Float32Array, bits: int) -> UInt8Array:
    """[..., B * 32] -> blocks whose numbers divide the range between their least and largest weight evenly."""
    blocks = as_blocks(np.asarray(x, np.float32), WIDTH)
    require_range(blocks)
    low = blocks.min(-1, keepdims=True) + np.float32(0)  # of zeros the one without a sign
    top = (1 << bits) - 1
    d = (blocks.max(-1, keepdims=True) - low) / np.float32(top)
    q = np.clip(np.trunc((blocks - low) * inverse(d) + np.float32(0.5)), 0, top)
    return flat(pack(q.astype(np.uint8), bits, to_half(d), to_half(low)))


def encode_q4_0(x: Float32Array) -> UInt8Array:
    """[..., B * 32] -> [..., B * 18] bytes."""
    return encode_symmetric(x, 4)


def encode_q4_1(x: Float32Array) -> UInt8Array:
    """[..., B * 32] -> [..., B * 20] bytes."""
    return encode_ranged(x, 4)


def encode_q5_0(x: Float32Array) -> UInt8Array:
    """[..., B * 32] -> [..., B * 22] bytes."""
    return encode_symmetric(x, 5)


def encode_q5_1(x: Float32Array) -> UInt8Array:
    """[..., B * 32] -> [..., B * 24] bytes."""
    return encode_ranged(x, 5)


def encode_q8_0(x: Float32Array) -> UInt8Array:
    """[..., B * 32] -> [..., B * 34] bytes: numbers in -127 … 127, halves rounded away from zero."""
    blocks = as_blocks(np.asarray(x, np.float32), WIDTH)
    require_range(blocks)
    d = np.abs(blocks).max(-1, keepdims=True) / np.float32(127)
    scaled = blocks * inverse(d)
    q = np.copysign(np.floor(np.abs(scaled) + BELOW_HALF), scaled).astype(np.int8)
    return flat(np.concatenate([to_half(d).view(np.uint8), q.view(np.uint8)], axis=-1))


def join(parts: BlockParts, bits: int) -> UInt8Array:
    """The inverse of the `split` functions for 4 and 5 bits: parts of B blocks -> [B, size]."""
    factors = [np.asarray(x, np.float16)[:, None] for x in (parts.d, parts.m) if x is not None]
    return pack(parts.q[:, 0], bits, *factors)


LAYOUTS = {
    "Q4_0": Layout(4, WIDTH, numbers=8),
    "Q4_1": Layout(4, WIDTH, minimum=True),
    "Q5_0": Layout(5, WIDTH, numbers=16),
    "Q5_1": Layout(5, WIDTH, minimum=True),
}
# Without importance these are rounded as above, which is what llama.cpp's users know them to be.
LEGACY_FITS = {
    name: Fit(layout, partial(join, bits=layout.bits), Guesses(10 if layout.minimum else 9, 0.1), plain=False)
    for name, layout in LAYOUTS.items()
}

LEGACY: tuple[Encoding, ...] = (
    integer_encoding("Q4_0", ggml_type=2, size=18, layout=LAYOUTS["Q4_0"], split=split_q4_0, encode=encode_q4_0),
    integer_encoding("Q4_1", ggml_type=3, size=20, layout=LAYOUTS["Q4_1"], split=split_q4_1, encode=encode_q4_1),
    integer_encoding("Q5_0", ggml_type=6, size=22, layout=LAYOUTS["Q5_0"], split=split_q5_0, encode=encode_q5_0),
    integer_encoding("Q5_1", ggml_type=7, size=24, layout=LAYOUTS["Q5_1"], split=split_q5_1, encode=encode_q5_1),
    integer_encoding(
        "Q8_0", ggml_type=8, size=34, layout=Layout(8, WIDTH, numbers=128), split=split_q8_0, encode=encode_q8_0
    ),
)
