"""GGML's K-quants: 256 weights in groups, whose scales are themselves small integers times one float16 of the block.

Layouts: ggml's `block_q2_K` … `block_q6_K` (ggml-common.h). `KFITS` says how
each group's scale (and minimum) is searched (`search.py`).
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
    pack_shared,
    unpack_nibbles,
    unpack_upper,
)
from sotol.quant.layout import BlockParts, Int8Array, Layout, UInt8Array
from sotol.quant.search import Fit, Guesses, encode_fitted

__all__ = ["KFITS", "KQUANTS"]


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


def join_q2_k(parts: BlockParts) -> UInt8Array:
    """The inverse of `split_q2_k`: parts of B blocks -> [B, 84]."""
    assert parts.scales is not None
    assert parts.minimums is not None
    assert parts.m is not None
    small = parts.scales | parts.minimums << np.uint8(4)
    return np.concatenate([small, pack_quarters(parts.q), half_bytes(parts.d), half_bytes(-parts.m)], axis=-1)


def join_q3_k(parts: BlockParts) -> UInt8Array:
    """The inverse of `split_q3_k`: parts of B blocks -> [B, 110]."""
    assert parts.scales is not None
    q = parts.q.reshape(-1, 8, 32)
    thirds, scales = pack_shared(q >> np.uint8(2), 1), pack_signed_scales(parts.scales.view(np.int8))
    return np.concatenate([thirds, pack_quarters(q & np.uint8(3)), scales, half_bytes(parts.d)], axis=-1)


def join_lines(parts: BlockParts, bits: int) -> UInt8Array:
    """The inverse of `split_q4_k` and `split_q5_k`: parts of B blocks -> [B, size]."""
    assert parts.scales is not None
    assert parts.minimums is not None
    assert parts.m is not None
    q = parts.q
    stored = [half_bytes(parts.d), half_bytes(-parts.m)]
    stored.append(pack_scales(parts.scales.view(np.uint8), parts.minimums.view(np.uint8)))
    if bits == 5:
        stored.append(pack_shared(q >> np.uint8(4), 1))
    stored.append(pack_nibbles((q & np.uint8(15)).reshape(-1, 4, 2, 32)).reshape(-1, 128))
    return np.concatenate(stored, axis=-1)


def join_q6_k(parts: BlockParts) -> UInt8Array:
    """The inverse of `split_q6_k`: parts of B blocks -> [B, 210]."""
    assert parts.scales is not None
    q = parts.q.reshape(-1, 2, 4, 32)
    low = pack_nibbles((q & np.uint8(15)).reshape(-1, 2, 2, 64)).reshape(-1, 128)
    high = pack_shared(q >> np.uint8(4), 2).reshape(-1, 64)
    return np.concatenate([low, high, parts.scales.view(np.uint8), half_bytes(parts.d)], axis=-1)


LINES = {bits: Layout(bits, 32, 8, scales=True, minimum=True) for bits in (4, 5)}
Q2_K = Layout(2, 16, 16, scales=True, minimum=True)
Q3_K = Layout(3, 16, 16, numbers=4, scales=True)
Q6_K = Layout(6, 16, 16, numbers=32, scales=True)

KFITS = {
    "Q2_K": Fit(Q2_K, join_q2_k, Guesses(10, 0.1), scale_bits=4),
    "Q3_K": Fit(Q3_K, join_q3_k, Guesses(9, 0.1), scale_bits=6),
    "Q4_K": Fit(LINES[4], partial(join_lines, bits=4), Guesses(10, 0.1), scale_bits=6),
    "Q5_K": Fit(LINES[5], partial(join_lines, bits=5), Guesses(10, 0.1), scale_bits=6),
    "Q6_K": Fit(Q6_K, join_q6_k, Guesses(9, 0.1), scale_bits=8, deviations=False),
}

SIZES = {  # number in GGML, bytes of a block, parts of blocks
    "Q2_K": (10, 84, split_q2_k),
    "Q3_K": (11, 110, split_q3_k),
    "Q4_K": (12, 144, split_q4_k),
    "Q5_K": (13, 176, split_q5_k),
    "Q6_K": (14, 210, split_q6_k),
}

KQUANTS: tuple[Encoding, ...] = tuple(
    integer_encoding(
        name, ggml_type=kind, size=size, layout=KFITS[name].layout, split=split,
        encode=partial(encode_fitted, KFITS[name]),
    )
    for name, (kind, size, split) in SIZES.items()
)  # fmt: skip
