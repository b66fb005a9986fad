"""Searches for the codes and scales of blocks, by weighted least squares, over all blocks at once.

A group's numbers x shall be scale * number(q), or scale * q + offset with an offset <= 0, so that the sum of
w (x - that)^2 is least. For given codes q the best scale and offset are a linear regression; for given scale and offset
the best codes are the nearest ones. So a search starts from several spreads of the codes over the group's range, keeps
the best, and then takes the two steps in turn a few times (Lloyd 1982, doi:10.1109/TIT.1982.1056489). Where groups
have integer scales, their factor is found by the same search, over the groups of a block. ggml-quants.c
(`make_qx_quants`, `make_qkx3_quants`, `make_qp_quants`) starts from the same spreads.

This is the definition that native code answers to, bit for bit (`backends/cpu/kernels/fit.py`): all sums run over the
first axis, in its order, and no product is fused with a sum. L lanes: blocks, or groups of all blocks.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sotol.quant.encoding import as_blocks, require_range, to_half
from sotol.quant.layout import BlockParts, Float32Array, Layout, UInt8Array

__all__ = [
    "EncodeBlocks", "EncodeWeighted", "Find", "Fit", "Found", "Guesses", "deviations", "encode_chunks", "encode_fitted",
    "find", "fit_line", "fit_scale", "join_found", "nearest_of", "over",
]  # fmt: skip

CHUNK = 2048  # blocks of 256 encoded at once: bounds a search's memory to some tens of MB
LANES = 16  # a multiple of which lanes are: NumPy sums the first axis in order only beside a longer last one
LARGEST = np.float32(3e38)
NEIGHBOURS = (0, -1, 1)
FEW_BITS = 3  # with no more of them larger numbers count more where nothing is known
SHARE = 0.25  # of a group's mean square in how much its numbers count then: by divergence between none and all of it


class Guesses(NamedTuple):
    """By how much more numbers than there are a group's range is divided at first: -most * step … most * step."""

    most: int
    step: float
    rounds: int = 2  # of Lloyd's two steps after the best guess

    def each(self) -> tuple[float, ...]:
        """All of them, ascending."""
        return tuple(i * self.step for i in range(-self.most, self.most + 1))

    def starts(self, numbers: tuple[int, ...]) -> tuple[float, ...]:
        """Where the number of largest magnitude starts: near the lowest and the highest of these, but for zero."""
        return tuple(end + guess for end in (numbers[0], numbers[-1]) if end for guess in self.each())


FINE = Guesses(9, 0.1)  # of whole steps


class Fit(NamedTuple):
    """How blocks of an encoding are searched, and stored.

    deviations: with importance a number counts by that times the root of its square and of the block's mean square;
    else by the importance alone. plain: whether there is a search without importance, too.
    """

    layout: Layout
    join: Callable[[BlockParts], UInt8Array]  # parts of B blocks to [B, size]: the inverse of the encoding's `split`
    guesses: Guesses
    scale_bits: int = 0  # of the integer scale (and minimum) of a group; 0: it has a factor of its own
    deviations: bool = True
    plain: bool = True

    @property
    def numbers(self) -> tuple[int, ...]:
        """What the codes stand for, ascending; of a line the codes themselves."""
        numbers = self.layout.numbers
        assert not isinstance(numbers, str)  # no format of GGUF files has floats for codes
        return numbers if isinstance(numbers, tuple) else tuple(i - numbers for i in range(1 << self.layout.bits))

    @property
    def scale_range(self) -> tuple[int, int]:
        """The least and the greatest integer scale: from zero for lines, whose scales have no sign."""
        count = 1 << self.scale_bits
        return (0, count - 1) if self.layout.minimum else (-count // 2, count // 2 - 1)


class Found(NamedTuple):
    """What a search finds of B blocks, factors in float32, not yet rounded to how they are stored."""

    q: UInt8Array  # [B, values]
    d: Float32Array  # [B]
    m: Float32Array  # [B]: of lines dmin, or the offset of the only group
    scales: UInt8Array  # [B, groups]: of lines, or the bits of int8
    minimums: UInt8Array  # [B, groups]


Find = Callable[[Fit, Float32Array, Float32Array | None], Found]
EncodeBlocks = Callable[[Float32Array, Float32Array | None], UInt8Array]  # [b, values] numbers, importance -> [b, size]
EncodeWeighted = Callable[[Float32Array, Float32Array], UInt8Array]  # rows, importance of columns -> bytes


def total(x: Float32Array) -> Float32Array:
    """The sum over the first axis, in its order: [n, L] -> [L]."""
    result: Float32Array = np.add.reduce(x, axis=0)
    return result


def over(a: Float32Array | np.float32, b: Float32Array) -> Float32Array:
    """a / b, and 0 where b is 0 or the quotient is not finite."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        quotient = a / b
        return np.where(np.abs(quotient) < LARGEST, quotient, np.float32(0))


def nearest_of(numbers: tuple[int, ...]) -> Callable[[Float32Array], Float32Array]:
    """A function that gives the nearest of these ascending numbers: the even one of two neighbours, or the lower one of
    two others."""
    low, high = numbers[0], numbers[-1]
    if numbers == tuple(range(low, high + 1)):
        return lambda x: np.minimum(np.maximum(np.rint(x), np.float32(low)), np.float32(high))
    table = np.array(numbers, np.float32)
    middles = (table[1:] + table[:-1]) / 2
    return lambda x: table[np.searchsorted(middles, x, side="left")]


def fit_scale(x: Float32Array, weight: Float32Array, numbers: tuple[int, ...], guesses: Guesses) -> Float32Array:
    """Signed scale of each lane that best fits x [n, L] by scale * a number; 0 where none explains anything."""
    nearest = nearest_of(numbers)
    largest = np.take_along_axis(x, np.abs(x).argmax(0)[None], 0)[0]
    best_scale = best_gain = np.zeros_like(largest)

    def better(inverse: Float32Array) -> tuple[Float32Array, Float32Array]:
        """The best scale so far, or the one by regression on the codes of this inverse, if it explains more."""
        q = nearest(x * inverse)
        weighted = weight * q
        sum_qx, sum_qq = total(weighted * x), total(weighted * q)
        scale = over(sum_qx, sum_qq)
        gain = scale * sum_qx  # how much of the weighted sum of squares this scale explains
        return np.where(gain > best_gain, scale, best_scale), np.where(gain > best_gain, gain, best_gain)

    for start in guesses.starts(numbers):
        best_scale, best_gain = better(over(np.float32(start), largest))
    for _ in range(guesses.rounds):
        best_scale, best_gain = better(over(np.float32(1), best_scale))
    found: Float32Array = best_scale
    return found


def fit_line(x: Float32Array, weight: Float32Array, top: int, guesses: Guesses) -> tuple[Float32Array, Float32Array]:
    """Scale and offset <= 0 of each lane that best fit x [n, L] by scale * q + offset, q from 0 to `top`."""
    low = x.min(0)
    low = np.where(low < 0, low, np.float32(0))
    span = x.max(0) - low
    nearest = nearest_of(tuple(range(top + 1)))
    sum_w, sum_x = total(weight), total(weight * x)

    def error(scale: Float32Array, offset: Float32Array) -> Float32Array:
        q = nearest((x - offset) * over(np.float32(1), scale))
        off = scale * q + offset - x
        return total(weight * off * off)

    def regression(inverse: Float32Array, start: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Of x on the codes of a line that begins at `start`; scale 0 where all codes are the same."""
        q = nearest((x - start) * inverse)
        weighted = weight * q
        sum_q, sum_qq, sum_qx = total(weighted), total(weighted * q), total(weighted * x)
        determinant = sum_w * sum_qq - sum_q * sum_q
        scale = over(sum_w * sum_qx - sum_x * sum_q, determinant)
        offset = over(sum_qq * sum_x - sum_q * sum_qx, determinant)
        scale = np.where(offset > 0, over(sum_qx, sum_qq), scale)
        return np.where(determinant > 0, scale, np.float32(0)), np.where(offset < 0, offset, np.float32(0))

    best_scale, best_offset = span / np.float32(top), low
    least = error(best_scale, best_offset)
    for guess in (*guesses.each(), *[None] * guesses.rounds):
        if guess is None:
            scale, offset = regression(over(np.float32(1), best_scale), best_offset)
        else:
            scale, offset = regression(over(np.float32(top + guess), span), low)
        now = error(scale, offset)
        better = (now < least) & (scale > 0)
        best_scale, best_offset = np.where(better, scale, best_scale), np.where(better, offset, best_offset)
        least = np.where(better, now, least)
    return best_scale, best_offset


def weights_of(fit: Fit, x: Float32Array, importance: Float32Array | None) -> Float32Array:
    """How much each number of x [groups, width, B] counts.

    Without importance all count alike, but for codes of few bits, whose steps are so wide that a model depends on its
    largest weights: there numbers count by their magnitude and their group's where they are a line's; where all have
    one scale, by the squares of these. Chosen by divergence (docs/encodings.md).
    """
    if importance is None:
        if fit.layout.bits > FEW_BITS:
            return np.ones_like(x)
        squares = x * x
        sums: Float32Array = np.add.reduce(squares, axis=1, keepdims=True)
        mean = sums / np.float32(fit.layout.width)
        return np.sqrt(mean) + np.abs(x) if fit.layout.minimum else mean * np.float32(SHARE) + squares
    if not fit.deviations:
        return importance
    mean = total((x * x).reshape(fit.layout.values, -1)) * np.float32(2 / fit.layout.values)
    return importance * np.sqrt(mean + x * x)


def deviations(blocks: Float32Array, importance: Float32Array) -> Float32Array:
    """The same for blocks [B, n], where sums may run in any order."""
    mean = (blocks * blocks).mean(-1, keepdims=True) * np.float32(2)
    result: Float32Array = importance * np.sqrt(mean + blocks * blocks)
    return result


def find(fit: Fit, blocks: Float32Array, importance: Float32Array | None) -> Found:
    """Codes, factors and scales of blocks [B, values], each number counting by its importance [B, values], if given."""
    layout, count = fit.layout, len(blocks)
    lanes = -(-count // LANES) * LANES

    def by_number(values: Float32Array) -> Float32Array:
        """[B, values] -> [groups, width, lanes]."""
        padded = np.zeros((layout.values, lanes), np.float32)
        padded[:, :count] = values.T
        return padded.reshape(layout.groups, layout.width, lanes)

    def of_groups(values: Float32Array) -> Float32Array:
        """[groups, width, lanes] -> [width, groups * lanes]."""
        return np.ascontiguousarray(values.transpose(1, 0, 2)).reshape(layout.width, -1)

    x = by_number(blocks)
    weight = weights_of(fit, x, None if importance is None else by_number(importance))
    numbers = fit.numbers
    if layout.minimum:
        scale, offset = fit_line(of_groups(x), of_groups(weight), numbers[-1], fit.guesses)
    else:
        scale = fit_scale(of_groups(x), of_groups(weight), numbers, fit.guesses)
        offset = np.zeros_like(scale)
    scale, offset = scale.reshape(layout.groups, lanes), offset.reshape(layout.groups, lanes)
    d, m = scale[0], offset[0]
    scales = minimums = np.zeros_like(scale)
    if fit.scale_bits:
        least, most = fit.scale_range
        whole, counts = tuple(range(least, most + 1)), np.add.reduce(weight, axis=1)
        d, scales = whole_scales(scale, counts, whole)
        if layout.minimum:
            m, minimums = whole_scales(-offset, counts, whole)
            scales, minimums = best_neighbours(fit, x, weight, as_half(d), as_half(m), scales, minimums)
        scale, offset = as_half(d) * scales, -(as_half(m) * minimums)
    else:
        scale, offset = as_half(scale), as_half(offset)
    found = nearest_of(numbers)((x - offset[:, None]) * over(np.float32(1), scale)[:, None])
    q = np.searchsorted(np.array(numbers, np.float32), found).astype(np.uint8)
    by_block = q.reshape(layout.values, lanes)[:, :count].T
    return Found(
        np.ascontiguousarray(by_block), d[:count], m[:count], _as_bytes(scales, count), _as_bytes(minimums, count)
    )


def whole_scales(
    scale: Float32Array, counts: Float32Array, whole: tuple[int, ...]
) -> tuple[Float32Array, Float32Array]:
    """The factor, and whole numbers that times it (as float16) are nearest to the groups' scales [groups, L]."""
    d = fit_scale(scale, counts, whole, FINE)
    return d, nearest_of(whole)(scale * over(np.float32(1), as_half(d)))


def best_neighbours(
    fit: Fit, x: Float32Array, weight: Float32Array, d: Float32Array, m: Float32Array, scales: Float32Array,
    minimums: Float32Array,
) -> tuple[Float32Array, Float32Array]:  # fmt: skip
    """Of lines' whole scales and minimums [groups, L] and their neighbours the best for x [groups, width, L].

    Rounding each for itself knows nothing of the codes that follow from both. Of several the first.
    """
    nearest, (least, most) = nearest_of(fit.numbers), map(np.float32, fit.scale_range)
    best_scales, best_minimums, best = scales, minimums, np.full(scales.shape, np.inf, np.float32)
    for more in NEIGHBOURS:
        lower = np.minimum(np.maximum(minimums + np.float32(more), least), most)
        offset = -(m * lower)[:, None]
        for other in NEIGHBOURS:
            whole = np.minimum(np.maximum(scales + np.float32(other), least), most)
            scale = (d * whole)[:, None]
            q = nearest((x - offset) * over(np.float32(1), scale))
            off = scale * q + offset - x
            error = np.add.reduce(weight * off * off, axis=1)
            better = error < best
            best = np.where(better, error, best)
            best_scales, best_minimums = np.where(better, whole, best_scales), np.where(better, lower, best_minimums)
    return best_scales, best_minimums


def as_half(x: Float32Array) -> Float32Array:
    """x rounded to float16, at most its largest number."""
    return np.clip(x, -65504, 65504).astype(np.float16).astype(np.float32)


def _as_bytes(x: Float32Array, count: int) -> UInt8Array:
    """Whole numbers [groups, lanes] as bytes [count, groups]."""
    return np.ascontiguousarray(x[:, :count].T).astype(np.int16).astype(np.uint8)


def join_found(fit: Fit, found: Found) -> UInt8Array:
    """The blocks of what was found: [B, size]; ValueError for factors beyond float16."""
    layout = fit.layout
    d, m = to_half(found.d), to_half(-found.m if fit.scale_bits else found.m)
    scales = found.scales if layout.minimum else found.scales.view(np.int8)
    return fit.join(
        BlockParts(
            found.q.reshape(-1, layout.groups, layout.width),
            d,
            m if layout.minimum else None,
            scales if fit.scale_bits else None,
            found.minimums if fit.scale_bits and layout.minimum else None,
        )
    )


def encode_fitted(fit: Fit, x: Float32Array, importance: Float32Array | None = None, search: Find = find) -> UInt8Array:
    """[..., B * values] -> [..., B * size]: by a search, some blocks at a time.

    importance: [B * values], >= 0, how much the columns count; or one for each number of x. ValueError for numbers that
    the encoding can't hold.
    """
    blocks = as_blocks(np.asarray(x, np.float32), fit.layout.values)
    require_range(blocks)
    rows, counts = blocks.reshape(-1, fit.layout.values), _each(importance, x, fit.layout.values)
    chunk = CHUNK * 256 // fit.layout.values
    pieces = [np.s_[at : at + chunk] for at in range(0, len(rows), chunk)]
    done = [join_found(fit, search(fit, rows[piece], None if counts is None else counts[piece])) for piece in pieces]
    return np.concatenate(done).reshape(*x.shape[:-1], -1)


def encode_chunks(
    x: Float32Array, importance: Float32Array | None = None, *, encode: EncodeBlocks, values: int = 256,
    chunk: int = CHUNK,
) -> UInt8Array:  # fmt: skip
    """[..., B * values] -> [..., B * size], some blocks at a time; encode: two of [b, values] -> [b, size].

    importance: as of `encode_fitted`.
    """
    blocks = as_blocks(np.asarray(x, np.float32), values)
    require_range(blocks)
    rows, counts = blocks.reshape(-1, values), _each(importance, x, values)
    pieces = [np.s_[at : at + chunk] for at in range(0, len(rows), chunk)]
    done = [encode(rows[piece], None if counts is None else counts[piece]) for piece in pieces]
    return np.concatenate(done).reshape(*x.shape[:-1], -1)


def _each(importance: Float32Array | None, x: Float32Array, values: int) -> Float32Array | None:
    """The importance of each number of x, in its blocks: [b, values]."""
    return None if importance is None else np.broadcast_to(importance, x.shape).reshape(-1, values)
