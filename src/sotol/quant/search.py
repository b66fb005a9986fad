"""Searches for the scales of encoders: weighted least squares over a range of first guesses, over all groups at once.

The algorithm is that of `make_qkx2_quants` and `make_qx_quants` in ggml-quants.c.
"""

from collections.abc import Callable

import numpy as np

from sotol.quant.encoding import as_blocks, require_range
from sotol.quant.layout import Float32Array, UInt8Array

__all__ = ["encode_chunks", "fit_line", "fit_scale", "over", "total"]

CHUNK = 2048  # blocks encoded at once: bounds a search's memory to some tens of MB


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


def encode_chunks(
    x: Float32Array, encode: Callable[[Float32Array], UInt8Array], values: int = 256, chunk: int = CHUNK
) -> UInt8Array:
    """[..., B * values] -> [..., B * size], some blocks at a time; encode: [b, values] -> [b, size]."""
    blocks = as_blocks(np.asarray(x, np.float32), values)
    require_range(blocks)
    rows = blocks.reshape(-1, values)
    done = [encode(rows[start : start + chunk]) for start in range(0, len(rows), chunk)]
    return np.concatenate(done).reshape(*x.shape[:-1], -1)
