"""GGML's K-quants: 256 weights in groups, whose scales are themselves small integers times one float16 of the block.

Layouts: ggml's `block_q4_K`, `block_q5_K`, `block_q6_K` (ggml-common.h). The encoders search each group's scale (and
minimum) by weighted least squares over a range of first guesses, the algorithm of `make_qkx2_quants` and
`make_qx_quants` in ggml-quants.c, here over all groups at once.
"""

from collections.abc import Callable

import numpy as np

from sotol.quant.encoding import (
    Encoding,
    as_blocks,
    halves,
    integer_encoding,
    require_range,
    to_half,
    unpack_nibbles,
    unpack_upper,
)
from sotol.quant.layout import BlockParts, Float32Array, Layout, UInt8Array

__all__ = ["KQUANTS"]

VALUES = 256
CHUNK = 2048  # blocks encoded at once: bounds the search's memory to some tens of MB


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


def total(x: Float32Array) -> Float32Array:
    """The sum over a group's weights, kept as an axis of one."""
    result: Float32Array = x.sum(-1, keepdims=True, dtype=np.float32)
    return result


def over(a: Float32Array | np.float32, b: Float32Array) -> Float32Array:
    """a / b, and 0 where b is 0 or the quotient is not finite."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        quotient = a / b
    return np.where(np.isfinite(quotient), quotient, np.float32(0))


def fit_line(x: Float32Array, bits: int, guesses: Float32Array) -> tuple[Float32Array, Float32Array]:
    """Scale and offset <= 0 per group with the least weighted squared error of scale * q + offset against x [..., n].

    Each guess g starts from numbers that spread the group's range over 2^bits - 1 + g steps, and solves for the best
    line through them. A weight counts by its magnitude plus the group's root mean square.
    """
    top = np.float32((1 << bits) - 1)
    weight = np.sqrt(total(x * x) / np.float32(x.shape[-1])) + np.abs(x)
    low = np.minimum(x.min(-1, keepdims=True), np.float32(0))
    span = x.max(-1, keepdims=True) - low
    best_scale, best_offset = span / top, low
    numbers = np.clip(np.rint((x - low) * over(top, span)), 0, top)
    best_error = total(weight * (best_scale * numbers + low - x) ** 2)
    sum_w, sum_x = total(weight), total(weight * x)
    for guess in guesses:
        numbers = np.clip(np.rint((x - low) * over(top + guess, span)), 0, top)
        sum_q, sum_qq, sum_qx = total(weight * numbers), total(weight * numbers**2), total(weight * numbers * x)
        determinant = sum_w * sum_qq - sum_q**2
        scale = over(sum_w * sum_qx - sum_x * sum_q, determinant)
        offset = over(sum_qq * sum_x - sum_q * sum_qx, determinant)
        scale = np.where(offset > 0, over(sum_qx, sum_qq), scale)
        offset = np.minimum(offset, np.float32(0))
        error = total(weight * (scale * numbers + offset - x) ** 2)
        better = (error < best_error) & (determinant > 0)
        best_scale = np.where(better, scale, best_scale)
        best_offset = np.where(better, offset, best_offset)
        best_error = np.where(better, error, best_error)
    return best_scale, best_offset


def encode_lines(blocks: Float32Array, bits: int, guesses: Float32Array) -> UInt8Array:
    """Blocks [B, 256] of Q4_K or Q5_K: 8 groups of 32 with scales and minimums: [B, size]."""
    x = blocks.reshape(-1, 8, 32)
    scale, offset = fit_line(x, bits, guesses)  # [B, 8, 1]
    d = to_half(scale.max(1) / np.float32(63))  # [B, 1]
    dmin = to_half((-offset).max(1) / np.float32(63))
    scales = np.clip(np.rint(over(scale[..., 0], d.astype(np.float32))), 0, 63)  # [B, 8]
    minimums = np.clip(np.rint(over(-offset[..., 0], dmin.astype(np.float32))), 0, 63)
    step = (d * scales)[..., None].astype(np.float32)
    bottom = (dmin * minimums)[..., None].astype(np.float32)
    q = np.clip(np.rint(over(x + bottom, step)), 0, (1 << bits) - 1).astype(np.uint8)  # [B, 8, 32]
    parts = [d.view(np.uint8), dmin.view(np.uint8), pack_scales(scales.astype(np.uint8), minimums.astype(np.uint8))]
    if bits == 5:
        parts.append(np.bitwise_or.reduce((q >> 4) << np.arange(8, dtype=np.uint8)[:, None], axis=1))
    pairs = q.reshape(-1, 4, 2, 32)
    parts.append(((pairs[:, :, 0] & np.uint8(15)) | (pairs[:, :, 1] << np.uint8(4))).reshape(-1, 128))
    return np.concatenate(parts, axis=-1)


def fit_scale(x: Float32Array, bits: int) -> Float32Array:
    """Signed scale per group that best fits x [..., n] by scale * (q - 2^(bits-1)), each weight counting by its square.

    The weight of largest magnitude starts at (or up to 0.9 steps beyond or before) the lowest number.
    """
    middle = np.float32(1 << (bits - 1))
    largest = np.take_along_axis(x, np.abs(x).argmax(-1, keepdims=True), -1)
    best_scale = best_gain = np.zeros_like(largest)
    weight = x * x
    for guess in np.arange(-9, 10, dtype=np.float32) * np.float32(0.1):
        numbers = np.clip(np.rint(x * over(-(middle + guess), largest)), -middle, middle - 1)
        sum_qx, sum_qq = total(weight * numbers * x), total(weight * numbers**2)
        scale = over(sum_qx, sum_qq)
        gain = scale * sum_qx  # how much of the weighted sum of squares this scale explains
        best_scale = np.where(gain > best_gain, scale, best_scale)
        best_gain = np.maximum(gain, best_gain)
    return best_scale


def encode_q6_k_blocks(blocks: Float32Array) -> UInt8Array:
    """Blocks [B, 256] of Q6_K: 16 groups of 16 with signed scales: [B, 210]."""
    x = blocks.reshape(-1, 16, 16)
    scale = fit_scale(x, 6)[..., 0]  # [B, 16]
    largest = np.take_along_axis(scale, np.abs(scale).argmax(-1, keepdims=True), -1)
    d = to_half(largest / np.float32(-128))  # [B, 1]
    scales = np.clip(np.rint(over(scale, d.astype(np.float32))), -128, 127)
    step = d.astype(np.float32) * scales  # [B, 16]
    q = (np.clip(np.rint(over(x, step[..., None])), -32, 31) + 32).astype(np.uint8).reshape(-1, 2, 4, 32)
    low = (q[:, :, :2] & 15) | (q[:, :, 2:] << 4)  # [B, 2, 2, 32]
    high = np.bitwise_or.reduce((q >> 4) << np.array([0, 2, 4, 6], np.uint8)[:, None], axis=2)  # [B, 2, 32]
    parts = [low.reshape(-1, 128), high.reshape(-1, 64), scales.astype(np.int8).view(np.uint8), d.view(np.uint8)]
    return np.concatenate(parts, axis=-1)


def encode_chunks(x: Float32Array, encode: Callable[[Float32Array], UInt8Array]) -> UInt8Array:
    """[..., B * 256] -> [..., B * size], some blocks at a time."""
    blocks = as_blocks(np.asarray(x, np.float32), VALUES)
    require_range(blocks)
    rows = blocks.reshape(-1, VALUES)
    done = [encode(rows[start : start + CHUNK]) for start in range(0, len(rows), CHUNK)]
    return np.concatenate(done).reshape(*x.shape[:-1], -1)


def encode_q4_k(x: Float32Array) -> UInt8Array:
    """[..., B * 256] -> [..., B * 144] bytes."""
    guesses = np.arange(21, dtype=np.float32) * np.float32(0.1) - np.float32(1)
    return encode_chunks(x, lambda blocks: encode_lines(blocks, 4, guesses))


def encode_q5_k(x: Float32Array) -> UInt8Array:
    """[..., B * 256] -> [..., B * 176] bytes."""
    guesses = np.arange(16, dtype=np.float32) * np.float32(0.1) - np.float32(0.5)
    return encode_chunks(x, lambda blocks: encode_lines(blocks, 5, guesses))


def encode_q6_k(x: Float32Array) -> UInt8Array:
    """[..., B * 256] -> [..., B * 210] bytes."""
    return encode_chunks(x, encode_q6_k_blocks)


LINES = {bits: Layout(bits, 32, 8, scales=True, minimum=True) for bits in (4, 5)}

KQUANTS: tuple[Encoding, ...] = (
    integer_encoding("Q4_K", ggml_type=12, size=144, layout=LINES[4], split=split_q4_k, encode=encode_q4_k),
    integer_encoding("Q5_K", ggml_type=13, size=176, layout=LINES[5], split=split_q5_k, encode=encode_q5_k),
    integer_encoding(
        "Q6_K",
        ggml_type=14,
        size=210,
        layout=Layout(6, 16, 16, numbers=32, scales=True),
        split=split_q6_k,
        encode=encode_q6_k,
    ),
)
