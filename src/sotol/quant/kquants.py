"""GGML's K-quants: 256 weights in groups, whose scales are themselves small integers times one float16 of the block.

Layouts: ggml's `block_q2_K` … `block_q6_K` (ggml-common.h). The encoders look for each group's scale (and minimum)
by `search.py`.
"""

from functools import partial

import numpy as np

from sotol.quant.encoding import (
    Encoding,
    as_blocks,
    halves,
    integer_encoding,
    pack_nibbles,
    pack_shared,
    to_half,
    unpack_nibbles,
    unpack_upper,
)
from sotol.quant.layout import BlockParts, Float32Array, Int8Array, Layout, UInt8Array
from sotol.quant.search import encode_chunks, fit_line, fit_scale, over

__all__ = ["KQUANTS"]


def split_scales(packed: UInt8Array) -> tuple[UInt8Array, UInt8Array]:
    """The 6-bit scales and minimums of 8 groups, packed in 12 bytes: [..., 12] -> two of [..., 8].

    Bytes 0-3 and 4-7 hold scales and minimums of groups 0-3 in their low 6 bits; the upper two bits of each are the
    upper bits of groups 4-7, whose lower 4 bits share bytes 8-11 (scale low, minimum high).
    """
    a, b, c = packed[..., 0:4], packed[..., 4:8], packed[..., 8:12]
    scales = np.concatenate([a & 63, (c & 15) | ((a >> 2) & 48)], axis=-1)
    minimums = np.concatenate([b & 63, (c >> 4) | ((b >> 2) & 48)], axis=-1)
    return scales, minimums


def pack_scales(scales: UInt8Array, minimums: UInt8Array) -> UInt8Array:
    """The inverse of `split_scales`: two of [..., 8] -> [..., 12]."""
    first, last = np.s_[..., :4], np.s_[..., 4:]
    a = scales[first] | ((scales[last] >> 4) << 6)
    b = minimums[first] | ((minimums[last] >> 4) << 6)
    c = (scales[last] & 15) | ((minimums[last] & 15) << 4)
    return np.concatenate([a, b, c], axis=-1)


def nibble_groups(packed: UInt8Array) -> UInt8Array:
    """[..., B, 128] bytes -> [..., B, 8, 32]: each 32 bytes hold a group in their low halves, the next in the high."""
    return unpack_nibbles(packed, 32).reshape(*packed.shape[:-1], 8, 32)


def unpack_quarters(packed: UInt8Array) -> UInt8Array:
    """[..., B, 64] bytes -> [..., B, 256] numbers of 2 bits: each 32 bytes hold 4 runs of 32, the first in bits 0-1."""
    runs = unpack_upper(packed.reshape(*packed.shape[:-1], 2, 32), 2, at=0)
    return runs.reshape(*packed.shape[:-1], 256)


def pack_quarters(q: UInt8Array) -> UInt8Array:
    """The inverse of `unpack_quarters`: [B, 256] -> [B, 64]."""
    return pack_shared(q.reshape(-1, 2, 4, 32), 2).reshape(-1, 64)


def split_q2_k(data: UInt8Array) -> BlockParts:
    """16 bytes of scales (low halves) and minimums (high halves), 64 bytes of bit pairs, d, dmin."""
    blocks = as_blocks(data, 84)
    small = blocks[..., :16]
    q = unpack_quarters(blocks[..., 16:80]).reshape(*blocks.shape[:-1], 16, 16)
    return BlockParts(q, halves(blocks, 80), -halves(blocks, 82), small & np.uint8(15), small >> np.uint8(4))


def split_q3_k(data: UInt8Array) -> BlockParts:
    """32 bytes of third bits (bit r of byte j: weight j of run r of 32), 64 of bit pairs, 12 of 16 scales, d."""
    blocks = as_blocks(data, 110)
    q = unpack_quarters(blocks[..., 32:96])
    thirds = unpack_upper(blocks[..., :32], 1, at=2)
    q.view(np.uint64)[...] |= thirds.reshape(q.shape).view(np.uint64)
    q = q.reshape(*blocks.shape[:-1], 16, 16)
    return BlockParts(q, halves(blocks, 108), scales=split_signed_scales(blocks[..., 96:108]))


def split_signed_scales(packed: UInt8Array) -> Int8Array:
    """16 scales of 6 bits, stored with 32 added: [..., 12] -> [..., 16].

    Their lower 4 bits are the low halves of bytes 0-7, then the high ones; their upper two the bit pairs of bytes 8-11:
    scale 4 i + j has pair i of byte 8 + j.
    """
    low = np.concatenate([packed[..., :8] & np.uint8(15), packed[..., :8] >> np.uint8(4)], axis=-1)
    pairs = (packed[..., None, 8:] >> np.array([0, 2, 4, 6], np.uint8)[:, None]) & np.uint8(3)  # [..., 4, 4]
    scales = low | pairs.reshape(*packed.shape[:-1], 16) << np.uint8(4)
    signed: Int8Array = (scales - np.uint8(32)).view(np.int8)
    return signed


def pack_signed_scales(scales: Int8Array) -> UInt8Array:
    """The inverse of `split_signed_scales`: [B, 16], -32 … 31 -> [B, 12]."""
    stored = scales.view(np.uint8) + np.uint8(32)
    low, pairs = pack_nibbles((stored & np.uint8(15)).reshape(-1, 2, 8)), (stored >> np.uint8(4)).reshape(-1, 4, 4)
    return np.concatenate([low, pack_shared(pairs, 2)], axis=-1)


def split_q4_k(data: UInt8Array) -> BlockParts:
    """d, dmin, 12 bytes of scales, 128 bytes of halves."""
    blocks = as_blocks(data, 144)
    scales, minimums = split_scales(blocks[..., 4:16])
    return BlockParts(nibble_groups(blocks[..., 16:]), halves(blocks, 0), -halves(blocks, 2), scales, minimums)


def split_q5_k(data: UInt8Array) -> BlockParts:
    """d, dmin, 12 bytes of scales, 32 bytes of fifth bits (bit g of byte j: weight j of group g), 128 of halves."""
    blocks = as_blocks(data, 176)
    scales, minimums = split_scales(blocks[..., 4:16])
    q = nibble_groups(blocks[..., 48:])
    q.view(np.uint64)[...] |= unpack_upper(blocks[..., 16:48], 1).view(np.uint64)
    return BlockParts(q, halves(blocks, 0), -halves(blocks, 2), scales, minimums)


def split_q6_k(data: UInt8Array) -> BlockParts:
    """128 bytes of halves, 64 of upper bit pairs, 16 signed scales, d.

    Each half block (128 weights, 4 runs of 32) has 64 bytes of halves: runs 0-1 low, runs 2-3 high; and 32 bytes whose
    bit pair i belongs to run i.
    """
    blocks = as_blocks(data, 210)
    lead = blocks.shape[:-1]
    q = unpack_nibbles(blocks[..., :128], 64).reshape(*lead, 2, 4, 32)
    q.view(np.uint64)[...] |= unpack_upper(blocks[..., 128:192].reshape(*lead, 2, 32), 2).view(np.uint64)
    scales = blocks[..., 192:208].view(np.int8)
    return BlockParts(q.reshape(*lead, 16, 16), halves(blocks, 208), scales=scales)


def round_lines(
    x: Float32Array, bits: int, scale_bits: int, guesses: Float32Array
) -> tuple[UInt8Array, list[UInt8Array], UInt8Array, UInt8Array]:
    """Groups x [B, groups, width] as the nearest of scale * q + offset: the numbers q, d and dmin as bytes, the scales
    and the minimums, which are whole numbers of `scale_bits` bits."""
    top, highest = np.float32((1 << bits) - 1), np.float32((1 << scale_bits) - 1)
    scale, offset = fit_line(x, bits, guesses)  # [B, groups, 1]
    d = to_half(scale.max(1) / highest)  # [B, 1]
    dmin = to_half((-offset).max(1) / highest)
    scales = np.clip(np.rint(over(scale[..., 0], d.astype(np.float32))), 0, highest)  # [B, groups]
    minimums = np.clip(np.rint(over(-offset[..., 0], dmin.astype(np.float32))), 0, highest)
    step = (d * scales)[..., None].astype(np.float32)
    bottom = (dmin * minimums)[..., None].astype(np.float32)
    q = np.clip(np.rint(over(x + bottom, step)), 0, top).astype(np.uint8)  # [B, groups, width]
    return q, [d.view(np.uint8), dmin.view(np.uint8)], scales.astype(np.uint8), minimums.astype(np.uint8)


def encode_lines(blocks: Float32Array, bits: int, guesses: Float32Array) -> UInt8Array:
    """Blocks [B, 256] of Q4_K or Q5_K: 8 groups of 32 with scales and minimums: [B, size]."""
    q, factors, scales, minimums = round_lines(blocks.reshape(-1, 8, 32), bits, 6, guesses)
    parts = [*factors, pack_scales(scales, minimums)]
    if bits == 5:
        parts.append(pack_shared(q >> np.uint8(4), 1))
    parts.append(pack_nibbles((q & np.uint8(15)).reshape(-1, 4, 2, 32)).reshape(-1, 128))
    return np.concatenate(parts, axis=-1)


def encode_q2_k_blocks(blocks: Float32Array) -> UInt8Array:
    """Blocks [B, 256] of Q2_K: 16 groups of 16 with scales and minimums: [B, 84]."""
    guesses = np.arange(16, dtype=np.float32) * np.float32(0.1) - np.float32(0.5)
    q, factors, scales, minimums = round_lines(blocks.reshape(-1, 16, 16), 2, 4, guesses)
    return np.concatenate([scales | minimums << np.uint8(4), pack_quarters(q), *factors], axis=-1)


def round_scaled(x: Float32Array, bits: int, scale_bits: int) -> tuple[UInt8Array, UInt8Array, Int8Array]:
    """Groups x [B, 16, 16] as the nearest of scale * (q - 2^(bits-1)): the numbers q, d as bytes, and the scales, which
    are signed whole numbers of `scale_bits` bits."""
    middle, lowest = 1 << (bits - 1), -(1 << (scale_bits - 1))
    scale = fit_scale(x, bits)[..., 0]  # [B, 16]
    largest = np.take_along_axis(scale, np.abs(scale).argmax(-1, keepdims=True), -1)
    d = to_half(largest / np.float32(lowest))  # [B, 1]
    scales = np.clip(np.rint(over(scale, d.astype(np.float32))), lowest, -lowest - 1)
    step = d.astype(np.float32) * scales  # [B, 16]
    q = (np.clip(np.rint(over(x, step[..., None])), -middle, middle - 1) + middle).astype(np.uint8)
    return q, d.view(np.uint8), scales.astype(np.int8)


def encode_q3_k_blocks(blocks: Float32Array) -> UInt8Array:
    """Blocks [B, 256] of Q3_K: 16 groups of 16 with signed scales: [B, 110]."""
    q, d, scales = round_scaled(blocks.reshape(-1, 16, 16), 3, 6)
    q = q.reshape(-1, 8, 32)
    return np.concatenate(
        [pack_shared(q >> np.uint8(2), 1), pack_quarters(q & np.uint8(3)), pack_signed_scales(scales), d], -1
    )


def encode_q6_k_blocks(blocks: Float32Array) -> UInt8Array:
    """Blocks [B, 256] of Q6_K: 16 groups of 16 with signed scales: [B, 210]."""
    q, d, scales = round_scaled(blocks.reshape(-1, 16, 16), 6, 8)
    q = q.reshape(-1, 2, 4, 32)
    low = pack_nibbles((q & np.uint8(15)).reshape(-1, 2, 2, 64))  # [B, 2, 64]
    high = pack_shared(q >> np.uint8(4), 2)  # [B, 2, 32]
    return np.concatenate([low.reshape(-1, 128), high.reshape(-1, 64), scales.view(np.uint8), d], axis=-1)


def encode_q4_k(x: Float32Array) -> UInt8Array:
    """[..., B * 256] -> [..., B * 144] bytes."""
    guesses = np.arange(21, dtype=np.float32) * np.float32(0.1) - np.float32(1)
    return encode_chunks(x, lambda blocks: encode_lines(blocks, 4, guesses))


def encode_q5_k(x: Float32Array) -> UInt8Array:
    """[..., B * 256] -> [..., B * 176] bytes."""
    guesses = np.arange(16, dtype=np.float32) * np.float32(0.1) - np.float32(0.5)
    return encode_chunks(x, lambda blocks: encode_lines(blocks, 5, guesses))


LINES = {bits: Layout(bits, 32, 8, scales=True, minimum=True) for bits in (4, 5)}

KQUANTS: tuple[Encoding, ...] = (
    integer_encoding(
        "Q2_K",
        ggml_type=10,
        size=84,
        layout=Layout(2, 16, 16, scales=True, minimum=True),
        split=split_q2_k,
        encode=partial(encode_chunks, encode=encode_q2_k_blocks),
    ),
    integer_encoding(
        "Q3_K",
        ggml_type=11,
        size=110,
        layout=Layout(3, 16, 16, numbers=4, scales=True),
        split=split_q3_k,
        encode=partial(encode_chunks, encode=encode_q3_k_blocks),
    ),
    integer_encoding("Q4_K", ggml_type=12, size=144, layout=LINES[4], split=split_q4_k, encode=encode_q4_k),
    integer_encoding("Q5_K", ggml_type=13, size=176, layout=LINES[5], split=split_q5_k, encode=encode_q5_k),
    integer_encoding(
        "Q6_K",
        ggml_type=14,
        size=210,
        layout=Layout(6, 16, 16, numbers=32, scales=True),
        split=split_q6_k,
        encode=partial(encode_chunks, encode=encode_q6_k_blocks),
    ),
)
