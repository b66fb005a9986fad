"""Which runs of a grid come nearest to weights, and with which scale: what the encoders of IQ encodings search.

A run is `length` numbers; digits say which number of a table each is, and the grid which digits go together. The
squared distance of a run is a sum over its numbers, so it is that of its first half and that of its second, and all
halves there are have only a few dozens of sums. So the nearest of all runs is found by one comparison for each, and an
addition and a comparison more for each second half.

A group's scale comes from a search in which numbers need no grid, near which the nearest runs of several scales are
tried, each with the best scale for its runs, by regression. The block's factor is the best for all groups, over all
scales that its largest group can have: so what lies on an encoding's own steps comes back as it was. Last, the factor
is fitted once more, to the runs that were found.

As `search.py`, this is what native code answers to, bit for bit (`backends/cpu/kernels/grids.py`): all sums run over
the first axis, in its order, and no product is fused with a sum. L lanes: blocks, or groups of all blocks.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sotol.quant.encoding import to_half
from sotol.quant.grids import GRIDS, digits_of
from sotol.quant.layout import Float32Array, UInt8Array
from sotol.quant.search import LANES, as_half, deviations, encode_chunks, over, total

__all__ = ["FindRuns", "FoundRuns", "GridFit", "GridRows", "encode_runs", "find_runs", "folded", "grid_rows"]

UInt16Array = npt.NDArray[np.uint16]
BoolArray = npt.NDArray[np.bool_]
VALUES = 256  # of a block
CHUNK = 256  # blocks encoded at once


class FoundRuns(NamedTuple):
    """What a search finds of B blocks of R runs; the factor in float32, not yet rounded to how it is stored."""

    halves: UInt8Array  # [B, R, 2]: the digits of a run's halves, the first digit in the lowest bits
    lowered: UInt8Array  # [B, R]: whether a run's numbers are those of the second table
    scales: UInt8Array  # [B, groups]: s, which stands for 2 s + 1
    d: Float32Array  # [B]


# d's bytes [B, 2], scales s [B, groups], indices [B, R], signs [B, 32] or whether runs are lowered [B, R] to [B, size].
Join = Callable[[UInt8Array, UInt8Array, UInt16Array, UInt8Array], UInt8Array]


class GridFit(NamedTuple):
    """How blocks of 256 numbers are searched, and stored.

    tables: what digits stand for, ascending; of two, `together` neighbouring runs have the same. part: what d counts.
    near: by which factors the scale that numbers have without a grid is changed at first.
    """

    grid: str
    tables: tuple[tuple[int, ...], ...]
    width: int  # numbers that share a scale
    part: float
    scale_bits: int
    near: tuple[float, ...]
    join: Join
    signs: str  # apart from the grid: "free", "even" (an even number of 8 are negative), or "" for none
    together: int = 1

    @property
    def length(self) -> int:
        """Numbers of a run."""
        return GRIDS[self.grid].length

    @property
    def groups(self) -> int:
        """Groups of a block."""
        return VALUES // self.width

    @property
    def top(self) -> int:
        """The largest magnitude of a number."""
        return max(abs(number) for table in self.tables for number in table)

    @property
    def starts(self) -> tuple[float, ...]:
        """What a group's largest number may be: about the largest of the tables, and exactly each of their numbers."""
        spread = tuple(self.top * (1 + i / 10) for i in range(-2, 7))
        exact = {abs(number) for table in self.tables for number in table} - {self.top}
        return (*spread, *map(float, sorted(exact, reverse=True)))

    @property
    def odds(self) -> tuple[int, ...]:
        """What scales stand for, descending."""
        return tuple(range((2 << self.scale_bits) - 1, 0, -2))


FindRuns = Callable[[GridFit, Float32Array, Float32Array], FoundRuns]


class GridRows(NamedTuple):
    """A grid by the second half of its runs. Halves are numbers in the grid's base, the first digit the lowest."""

    rows: tuple[tuple[int, tuple[int, ...]], ...]  # a second half, and all first halves beside it, ascending
    packed: UInt8Array  # of each half: its digits, each in as many bits as the largest needs
    ranks: UInt16Array  # [256, 256]: a run's index, by its packed halves, the second one first


@cache
def grid_rows(name: str) -> GridRows:
    """A grid of `grids.py` as searches need it."""
    grid, digits = GRIDS[name], digits_of(name)
    half = grid.length // 2
    weights = grid.base ** np.arange(half)
    first, second = digits[:, :half] @ weights, digits[:, half:] @ weights
    every = np.arange(grid.base**half)[:, None] // weights % grid.base  # [halves, half]
    packed = (every << bits_of(grid.base) * np.arange(half)).sum(1).astype(np.uint8)
    ranks = np.zeros((256, 256), np.uint16)
    ranks[packed[second], packed[first]] = np.arange(len(digits))
    rows = tuple((int(high), tuple(first[second == high].tolist())) for high in np.unique(second))
    return GridRows(rows, packed, ranks)


def bits_of(base: int) -> int:
    """Bits of a digit: 2 or 3."""
    return (base - 1).bit_length()


def half_sums(costs: list[list[Float32Array]]) -> Float32Array:
    """What each half costs, for what each number costs as each digit: half lists of `base` [L] -> [base^half, L]."""
    sums = np.stack(costs[0])
    for each in costs[1:]:
        sums = np.concatenate([sums + cost for cost in each])
    return sums


def nearest_run(
    fit: GridFit, x: Float32Array, weight: Float32Array, inverse: Float32Array, table: tuple[int, ...]
) -> tuple[UInt8Array, UInt8Array, Float32Array]:
    """The run nearest to x * inverse, the first of several: packed halves, and its distance but for a constant.

    x, weight: [length, L]; inverse: [L]. The distance is the sum of w q (q - 2 x).
    """
    grid = grid_rows(fit.grid)
    costs = list[list[Float32Array]]()
    for number, counts in zip(x * inverse, weight, strict=True):
        twice = counts * (number + number)
        costs.append([(counts * np.float32(q) - twice) * np.float32(q) for q in table])
    half = fit.length // 2
    lows, highs = half_sums(costs[:half]), half_sums(costs[half:])
    first, least = list[UInt16Array](), list[Float32Array]()
    lanes = np.arange(x.shape[1])
    for high, beside in grid.rows:
        choice = np.array(beside, np.uint16)[lows[list(beside)].argmin(0)]
        first.append(choice)
        least.append(lows[choice, lanes] + highs[high])
    best = np.stack(least).argmin(0)
    second = np.array([high for high, _ in grid.rows])[best]
    return grid.packed[np.stack(first)[best, lanes]], grid.packed[second], np.stack(least)[best, lanes]


def nearest_runs(
    fit: GridFit, x: Float32Array, weight: Float32Array, scale: Float32Array
) -> tuple[UInt8Array, UInt8Array, Float32Array]:
    """The runs of groups nearest to x [width, L] at a scale [L]: halves [runs, 2, L], whether they are lowered [runs,
    L], and their numbers [width, L]."""
    inverse, length = over(np.float32(1), scale), fit.length
    runs = range(fit.width // length)

    def at(table: tuple[int, ...]) -> tuple[UInt8Array, Float32Array]:
        found = [
            nearest_run(fit, x[length * i : length * (i + 1)], weight[length * i : length * (i + 1)], inverse, table)
            for i in runs
        ]
        return np.stack([np.stack(run[:2]) for run in found]), np.stack([run[2] for run in found])

    found = [at(table) for table in fit.tables]
    halves, lowered = found[0][0], np.zeros((len(runs), x.shape[1]), np.bool_)
    if len(fit.tables) > 1:
        lost = [total(far.reshape(-1, fit.together, far.shape[1]).swapaxes(0, 1)) for _, far in found]
        lowered = np.repeat(lost[1] < lost[0], fit.together, axis=0)
        halves = np.where(lowered[:, None], found[1][0], halves)
    return halves, lowered.astype(np.uint8), _numbers(fit, halves, lowered)


def _numbers(fit: GridFit, halves: UInt8Array, lowered: BoolArray) -> Float32Array:
    """What the digits of halves [runs, 2, L] stand for: [width, L]."""
    bits = bits_of(GRIDS[fit.grid].base)
    shifts = bits * np.arange(fit.length // 2, dtype=np.uint8)[:, None]
    digits = (halves[:, :, None] >> shifts) & np.uint8((1 << bits) - 1)  # [runs, 2, half, L]
    q: Float32Array = np.array(fit.tables[0], np.float32)[digits]
    if len(fit.tables) > 1:
        q = np.where(lowered[:, None, None], np.array(fit.tables[1], np.float32)[digits], q)
    return q.reshape(fit.width, -1)


def loose_sums(
    fit: GridFit, x: Float32Array, weight: Float32Array, inverse: Float32Array
) -> tuple[Float32Array, Float32Array]:
    """The sums of w q x and of w q q of groups [width, L] whose numbers q, the nearest of a table, need no grid."""
    apart = (-1, fit.together * fit.length if len(fit.tables) > 1 else fit.width, x.shape[1])  # what shares a table

    def of(table: tuple[int, ...]) -> tuple[Float32Array, Float32Array, Float32Array]:
        numbers, scaled = np.array(table, np.float32), x * inverse
        q = numbers[np.searchsorted((numbers[1:] + numbers[:-1]) / 2, scaled, side="left")]
        weighted = weight * q
        sums = [weighted * x, weighted * q, weighted * (q - (scaled + scaled))]
        qx, qq, lost = (np.add.reduce(each.reshape(apart), axis=1) for each in sums)
        return qx, qq, lost

    qx, qq, lost = of(fit.tables[0])
    if len(fit.tables) > 1:
        other = of(fit.tables[1])
        qx, qq = (np.where(other[2] < lost, there, here) for there, here in zip(other, (qx, qq), strict=False))
    return total(qx), total(qq)


def fit_group(fit: GridFit, x: Float32Array, weight: Float32Array) -> Float32Array:
    """The scale of each group that best fits x [width, L] by scale * runs; 0 where none explains anything."""
    largest = np.abs(x).max(0)
    zero = np.zeros_like(largest)

    def better(
        sums: tuple[Float32Array, Float32Array], best: tuple[Float32Array, Float32Array]
    ) -> tuple[Float32Array, Float32Array]:
        """The best scale so far, and how much it explains; or the one by regression of these sums."""
        scale = over(*sums)
        gain = scale * sums[0]
        more = (gain > best[1]) & (scale > 0)
        return np.where(more, scale, best[0]), np.where(more, gain, best[1])

    def sums_of(scale: Float32Array) -> tuple[Float32Array, Float32Array]:
        q = nearest_runs(fit, x, weight, scale)[2]
        weighted = weight * q
        return total(weighted * x), total(weighted * q)

    loose = best = zero, zero
    for start in fit.starts:
        loose = better(loose_sums(fit, x, weight, over(np.float32(start), largest)), loose)
    for near in fit.near:
        best = better(sums_of(loose[0] * np.float32(near)), best)
    scale, _ = better(sums_of(best[0]), best)
    return scale


def whole_scales(fit: GridFit, scale: Float32Array, counts: Float32Array) -> tuple[Float32Array, Float32Array]:
    """The factor that is stored, and what it is multiplied with to be nearest to the groups' scales [groups, L]: odd
    numbers, for which the largest scale is each of these once."""
    largest, part = scale.max(0), np.float32(fit.part)
    best, least = np.zeros_like(largest), np.full_like(largest, np.inf)
    for odd in fit.odds:
        whole = _odd(fit, scale * over(np.float32(odd), largest))
        weighted = counts * whole
        d = as_half(over(total(weighted * scale), total(weighted * whole)) * np.float32(1 / fit.part))
        off = (d * part) * whole - scale
        error = total((counts * off) * off)
        best, least = np.where(error < least, d, best), np.where(error < least, error, least)
    return best, _odd(fit, scale * over(np.float32(1), best * part))


def _odd(fit: GridFit, x: Float32Array) -> Float32Array:
    """The nearest number of `GridFit.odds`."""
    s = np.rint((x - np.float32(1)) * np.float32(0.5))
    s = np.minimum(np.maximum(s, np.float32(0)), np.float32(fit.odds[0] // 2))
    result: Float32Array = s + s + np.float32(1)
    return result


def find_runs(fit: GridFit, blocks: Float32Array, weight: Float32Array) -> FoundRuns:
    """Runs, scales and factors of blocks [B, 256], each number counting by its weight [B, 256]."""
    count, groups = len(blocks), fit.groups
    lanes = -(-count // LANES) * LANES

    def of_groups(values: Float32Array) -> Float32Array:
        """[B, 256] -> [width, groups * lanes]."""
        padded = np.zeros((VALUES, lanes), np.float32)
        padded[:, :count] = values.T
        return np.ascontiguousarray(padded.reshape(groups, fit.width, lanes).swapaxes(0, 1)).reshape(fit.width, -1)

    x, counts = of_groups(blocks), of_groups(weight)
    scale = fit_group(fit, x, counts).reshape(groups, lanes)
    d, whole = whole_scales(fit, scale, total(counts).reshape(groups, lanes))
    step = (d * np.float32(fit.part)) * whole
    halves, lowered, numbers = nearest_runs(fit, x, counts, step.reshape(-1))
    q = numbers * whole.reshape(-1)
    weighted = counts * q

    def of_blocks(products: Float32Array) -> Float32Array:
        """The sum of each block's [width, groups * lanes], number by number: [lanes]."""
        return total(products.reshape(fit.width, groups, lanes).swapaxes(0, 1).reshape(-1, lanes))

    fitted = over(of_blocks(weighted * x), of_blocks(weighted * q)) * np.float32(1 / fit.part)
    d = np.where(fitted > 0, fitted, d)

    def by_block(values: npt.NDArray[np.uint8]) -> UInt8Array:
        """[n, k, groups * lanes] -> [count, groups * n, k]."""
        apart = values.reshape(*values.shape[:2], groups, lanes)[..., :count]
        return np.ascontiguousarray(apart.transpose(3, 2, 0, 1)).reshape(count, -1, values.shape[1])

    scales = ((whole - 1) / 2).astype(np.uint8)[:, :count].T
    return FoundRuns(by_block(halves), by_block(lowered[:, None])[..., 0], np.ascontiguousarray(scales), d[:count])


def folded(blocks: Float32Array, weight: Float32Array, *, even: bool) -> tuple[Float32Array, UInt8Array]:
    """Magnitudes of blocks [B, 256], and signs [B, 32] of 8 numbers each.

    even: whether each 8 have an even number of negative ones: where it is odd, that changes its sign which loses least
    by it, and its magnitude is negative.
    """
    x = blocks.reshape(-1, 32, 8)
    negative, size = x < 0, np.abs(x)
    if even:
        odd = np.logical_xor.reduce(negative, axis=-1)  # [B, 32]
        loss = (weight.reshape(size.shape) * size) * size
        changed = odd[..., None] & (np.arange(8) == loss.argmin(-1)[..., None])
        negative ^= changed
        size = np.where(changed, -size, size)
    return size.reshape(blocks.shape), np.packbits(negative, axis=-1, bitorder="little")[..., 0]


def encode_runs(
    fit: GridFit, x: Float32Array, importance: Float32Array | None = None, search: FindRuns = find_runs
) -> UInt8Array:
    """[..., B * 256] -> [..., B * size]: by a search, some blocks at a time; importance and errors as of
    `search.encode_fitted`."""

    def encode(blocks: Float32Array, importance: Float32Array | None) -> UInt8Array:
        weight = np.ones_like(blocks) if importance is None else deviations(blocks, importance)
        if fit.signs:
            size, more = folded(blocks, weight, even=fit.signs == "even")
            found = search(fit, size, weight)
        else:
            found = search(fit, blocks, weight)
            more = found.lowered
        index = grid_rows(fit.grid).ranks[found.halves[..., 1], found.halves[..., 0]]
        return fit.join(to_half(found.d)[:, None].view(np.uint8), found.scales, index, more)

    return encode_chunks(x, importance, encode=encode, values=VALUES, chunk=CHUNK)
