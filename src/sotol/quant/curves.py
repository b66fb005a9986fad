"""Four bits that say which number of a table: IQ4_NL, IQ4_XS, MXFP4, NVFP4.

Layouts: ggml's `block_iq4_nl`, `block_iq4_xs`, `block_mxfp4`, `block_nvfp4` (ggml-common.h). The first two have a table
whose numbers lie denser around zero, as weights do. The others have E2M1 (OCP Microscaling Formats v1.0, 5.3.3): floats
of four bits, here doubled so that they are whole, with a power of two for 32 numbers (MXFP4), or an E4M3 for 16.
"""

from functools import partial

import numpy as np

from sotol.quant.encoding import (
    Encoding,
    as_blocks,
    half_bytes,
    halves,
    integer_encoding,
    pack_nibbles,
    require_range,
    unpack_nibbles,
)
from sotol.quant.layout import (
    BlockParts,
    Float32Array,
    Layout,
    UInt8Array,
    decode_e4m3_half,
    decode_e8m0_half,
)
from sotol.quant.search import Fit, Guesses, encode_fitted

__all__ = ["CURVES", "CURVE_FITS", "DOUBLED_E2M1", "LARGEST_E2M1"]

CURVE = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)  # kvalues_iq4nl, ggml-common.h
DOUBLED_E2M1 = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)
LARGEST_E2M1 = 6.0


def split_iq4_nl(data: UInt8Array) -> BlockParts:
    """d, 16 bytes of halves."""
    blocks = as_blocks(data, 18)
    return BlockParts(unpack_nibbles(blocks[..., 2:], 16).reshape(*blocks.shape[:-1], 1, 32), halves(blocks, 0))


def split_iq4_xs(data: UInt8Array) -> BlockParts:
    """d, 2 bytes with the upper bit pairs of 8 scales, 4 with their lower halves, 8 times 16 bytes of halves.

    A scale is stored with 32 added.
    """
    blocks = as_blocks(data, 136)
    lead = blocks.shape[:-1]
    upper = (blocks[..., 2:4, None] >> np.array([0, 2, 4, 6], np.uint8)) & np.uint8(3)  # [..., 2, 4]
    lower = np.stack([blocks[..., 4:8] & np.uint8(15), blocks[..., 4:8] >> np.uint8(4)], axis=-1)  # [..., 4, 2]
    scales = (lower.reshape(*lead, 8) | upper.reshape(*lead, 8) << np.uint8(4)) - np.uint8(32)
    q = unpack_nibbles(blocks[..., 8:], 16).reshape(*lead, 8, 32)
    return BlockParts(q, halves(blocks, 0), scales=scales.view(np.int8))


def split_mxfp4(data: UInt8Array) -> BlockParts:
    """A power of two, 16 bytes of halves."""
    blocks = as_blocks(data, 17)
    return BlockParts(unpack_nibbles(blocks[..., 1:], 16).reshape(*blocks.shape[:-1], 1, 32), blocks[..., 0])


def split_nvfp4(data: UInt8Array) -> BlockParts:
    """4 factors, 4 times 8 bytes of halves."""
    blocks = as_blocks(data, 36)
    return BlockParts(unpack_nibbles(blocks[..., 4:], 8).reshape(*blocks.shape[:-1], 4, 16), blocks[..., :4])


def join_iq4_nl(parts: BlockParts) -> UInt8Array:
    """The inverse of `split_iq4_nl`: parts of B blocks -> [B, 18]."""
    return np.concatenate([half_bytes(parts.d), pack_nibbles(parts.q.reshape(-1, 2, 16))], axis=-1)


def join_iq4_xs(parts: BlockParts) -> UInt8Array:
    """The inverse of `split_iq4_xs`: parts of B blocks -> [B, 136]."""
    assert parts.scales is not None
    stored = parts.scales.view(np.uint8) + np.uint8(32)
    upper = np.bitwise_or.reduce((stored >> np.uint8(4)).reshape(-1, 2, 4) << np.array([0, 2, 4, 6], np.uint8), axis=-1)
    lower = (stored & np.uint8(15)).reshape(-1, 4, 2)
    first = [half_bytes(parts.d), upper, lower[..., 0] | lower[..., 1] << np.uint8(4)]
    return np.concatenate([*first, pack_nibbles(parts.q.reshape(-1, 8, 2, 16)).reshape(-1, 128)], axis=-1)


def nearest_e2m1(x: Float32Array, step: Float32Array) -> UInt8Array:
    """The code of the nearest step * number of the doubled table, the first one of two: as GGML rounds to E2M1."""
    best = np.zeros(x.shape, np.uint8)
    least = np.abs(x)  # the error of code 0
    for code, number in enumerate(DOUBLED_E2M1[1:], 1):
        error = np.abs(np.float32(number) * step - x)
        best[error < least] = code
        least = np.minimum(error, least)
    return best


def encode_mxfp4(x: Float32Array) -> UInt8Array:
    """[..., B * 32] -> [..., B * 17] bytes: the largest magnitude gets E2M1's largest exponent, 2, or is cut off."""
    blocks = as_blocks(np.asarray(x, np.float32), 32)
    require_range(blocks)
    _, exponent = np.frexp(np.abs(blocks).max(-1, keepdims=True))  # of 2^e <= x < 2^(e + 1): e + 1
    stored = np.clip(np.where((blocks != 0).any(-1, keepdims=True), exponent - 1 - 2 + 127, 0), 0, 254).astype(np.uint8)
    q = nearest_e2m1(blocks, decode_e8m0_half(stored))
    packed = np.concatenate([stored, pack_nibbles(q.reshape(*blocks.shape[:-1], 2, 16))], axis=-1)
    return packed.reshape(*packed.shape[:-2], -1)


def to_e4m3(x: Float32Array) -> UInt8Array:
    """Numbers >= 0 as the nearest E4M3, halves away from zero, at most 448: GGML's rounding."""
    x = np.clip(x, 0, 448).astype(np.float32)
    bits = x.view(np.uint32).astype(np.int64)
    rounded = (bits + (1 << 19)) >> 20  # exponent and three bits of mantissa
    normal = np.clip(rounded - ((127 - 7) << 3), 0, 0x7E)
    subnormal = np.clip(np.trunc(x * np.float32(512) + np.float32(0.5)), 0, 7)
    stored: UInt8Array = np.where(x < 2.0**-6, subnormal, normal).astype(np.uint8)
    return stored


def encode_nvfp4(x: Float32Array) -> UInt8Array:
    """[..., B * 64] -> [..., B * 36] bytes: the largest magnitude of 16 numbers is E2M1's, 6; ValueError beyond 2688.

    The format counts on a factor of the whole tensor, which GGUF keeps apart; numbers below 2^-9 have few bits left.
    """
    blocks = as_blocks(np.asarray(x, np.float32), 64)
    require_range(blocks)
    groups = blocks.reshape(*blocks.shape[:-1], 4, 16)
    largest = np.abs(groups).max(-1)  # [..., B, 4]
    if largest.size and largest.max() > 448 * LARGEST_E2M1:
        raise ValueError(f"{largest.max():g} is beyond the range of NVFP4, {448 * LARGEST_E2M1:g}: scale the weights")
    d = to_e4m3(largest / np.float32(LARGEST_E2M1))
    q = nearest_e2m1(groups, decode_e4m3_half(d)[..., None])
    packed = pack_nibbles(q.reshape(*q.shape[:-1], 2, 8))
    result = np.concatenate([d, packed.reshape(*d.shape[:-1], 32)], axis=-1)
    flat: UInt8Array = result.reshape(*result.shape[:-2], -1)
    return flat


CURVE_FITS = {  # the number of largest magnitude starts at, or up to 7 steps of 127 beyond or before, the lowest
    "IQ4_NL": Fit(Layout(4, 32, numbers=CURVE), join_iq4_nl, Guesses(7, 1.0)),
    "IQ4_XS": Fit(Layout(4, 32, 8, numbers=CURVE, scales=True), join_iq4_xs, Guesses(7, 1.0), scale_bits=6),
}

CURVES: tuple[Encoding, ...] = (
    integer_encoding(
        "IQ4_NL",
        ggml_type=20,
        size=18,
        layout=CURVE_FITS["IQ4_NL"].layout,
        split=split_iq4_nl,
        encode=partial(encode_fitted, CURVE_FITS["IQ4_NL"]),
    ),
    integer_encoding(
        "IQ4_XS",
        ggml_type=23,
        size=136,
        layout=CURVE_FITS["IQ4_XS"].layout,
        split=split_iq4_xs,
        encode=partial(encode_fitted, CURVE_FITS["IQ4_XS"]),
    ),
    integer_encoding(
        "MXFP4",
        ggml_type=39,
        size=17,
        layout=Layout(4, 32, numbers=DOUBLED_E2M1, factor="e8m0"),
        split=split_mxfp4,
        encode=encode_mxfp4,
    ),
    integer_encoding(
        "NVFP4",
        ggml_type=40,
        size=36,
        layout=Layout(4, 16, 4, numbers=DOUBLED_E2M1, factor="e4m3"),
        split=split_nvfp4,
        encode=encode_nvfp4,
    ),
)
