"""The searches of encoders as native code: the same steps, the same sums and the same bits as `quant/search.py`.

A lane is a block, so no sum is ever across lanes: 16 blocks are searched at once, group by group. They are read into
the stack by number, so that the i-th numbers of the blocks are one vector.
"""

from itertools import pairwise

import numpy as np
from numba import njit

from sotol.backends.cpu.layout import LANES, VECTOR_BYTES
from sotol.backends.cpu.target import Target
from sotol.backends.cpu.vectors.choosing import choose, gather, rounder_to_half, scatter_bytes, square_root
from sotol.backends.cpu.vectors.simd import (
    absolute,
    load,
    load_i64,
    maximum,
    rint,
    splat,
    stack,
    store,
    to_int,
)  # fmt: skip
from sotol.quant import FITS
from sotol.quant.search import FEW_BITS, FINE, LARGEST, NEIGHBOURS, SHARE, Fit, Guesses

WORD = 8
MOST_STACK = 256 * VECTOR_BYTES  # a block's numbers, or how much they count
GROUPS_STACK = 16 * VECTOR_BYTES  # one number for each group

compiled = njit(error_model="numpy")


@compiled
def number(x):
    """All lanes x."""
    return splat(np.float32(x))


@compiled
def over(a, b):
    """a / b, and 0 where b is 0 or the quotient is not finite."""
    quotient = a / b
    return choose(number(LARGEST), absolute(quotient), quotient, number(0))


def fit(target: Target, name: str, weighted: int):
    """fit(places, blocks, 0, 0, 0) -> 0: blocks, a multiple of 16, of an encoding are searched.

    places: addresses of x f32 [blocks, values], of how much each counts (weighted: f32 of the same shape), and of what
    `search.Found` has: q, d, m, scales, minimums.
    """
    rule = FITS[name]
    values, groups = rule.layout.values, rule.layout.groups
    block_bytes = 4 * values
    weigh = _weigher_by_importance(rule) if weighted else _weigher(rule)
    search = (_line_searcher if rule.layout.minimum else _scale_searcher)(target, rule)

    def fit_blocks(places, blocks, _3, _4, _5):
        x, importance = load_i64(places), load_i64(places + WORD)
        q, d, m = load_i64(places + 2 * WORD), load_i64(places + 3 * WORD), load_i64(places + 4 * WORD)
        scales, minimums = load_i64(places + 5 * WORD), load_i64(places + 6 * WORD)
        numbers, weight = stack(MOST_STACK), stack(MOST_STACK)
        for block in range(0, blocks, LANES):
            for i in range(values):
                at = block_bytes * block + 4 * i
                store(numbers + VECTOR_BYTES * i, gather(x + at, block_bytes))
                if weighted:
                    store(weight + VECTOR_BYTES * i, gather(importance + at, block_bytes))
            weigh(numbers, weight)
            search(
                numbers, weight, q + values * block, d + 4 * block, m + 4 * block, scales + groups * block,
                minimums + groups * block,
            )  # fmt: skip
        return 0

    return fit_blocks


def _weigher(rule: Fit):
    """weigh(x, weight): how much each number of 16 blocks counts by itself; see `search.weights_of`."""
    values, width, groups, line = rule.layout.values, rule.layout.width, rule.layout.groups, rule.layout.minimum

    @compiled
    def all_alike(_x, weight):
        for i in range(values):
            store(weight + VECTOR_BYTES * i, number(1))

    @compiled
    def larger_ones_more(x, weight):
        for group in range(groups):
            at = VECTOR_BYTES * width * group
            squares = number(0)
            for i in range(width):
                v = load(x + at + VECTOR_BYTES * i)
                squares = squares + v * v
            mean = squares / number(width)
            root, share = square_root(mean), mean * number(SHARE)
            for i in range(width):
                v = load(x + at + VECTOR_BYTES * i)
                store(weight + at + VECTOR_BYTES * i, root + absolute(v) if line else share + v * v)

    return larger_ones_more if rule.layout.bits <= FEW_BITS else all_alike


def _weigher_by_importance(rule: Fit):
    """weigh(x, weight): the same, where weight has the importance of each number."""
    values, deviations = rule.layout.values, rule.deviations
    share = float(np.float32(2 / values))

    @compiled
    def as_it_is(_x, _weight):
        pass

    @compiled
    def by_deviation(x, weight):
        squares = number(0)
        for i in range(values):
            v = load(x + VECTOR_BYTES * i)
            squares = squares + v * v
        mean = squares * number(share)
        for i in range(values):
            v, at = load(x + VECTOR_BYTES * i), weight + VECTOR_BYTES * i
            store(at, load(at) * square_root(mean + v * v))

    return by_deviation if deviations else as_it_is


@compiled
def sum_of(x, n):
    """The sum of n vectors, in order."""
    total = load(x)
    for i in range(1, n):
        total = total + load(x + VECTOR_BYTES * i)
    return total


def _scale_searcher(target: Target, rule: Fit):
    """search(x, weight, q, d, m, scales, minimums) of 16 blocks of scale * number."""
    values, width, groups, scaled = rule.layout.values, rule.layout.width, rule.layout.groups, rule.scale_bits > 0
    nearest, code = _nearest(rule.numbers)
    fit_scale = _scale_fitter(nearest, rule.guesses.starts(rule.numbers), rule.guesses)
    half = rounder_to_half(target.f16)
    whole_scales = _whole_scaler(target, rule)

    @compiled
    def search(x, weight, q, d_out, m_out, scales_out, _minimums_out):
        scales, counts = stack(GROUPS_STACK), stack(GROUPS_STACK)
        for group in range(groups):
            at = VECTOR_BYTES * width * group
            store(scales + VECTOR_BYTES * group, fit_scale(x + at, weight + at, width))
            store(counts + VECTOR_BYTES * group, sum_of(weight + at, width))
        d = load(scales)
        if scaled:
            d = whole_scales(scales, counts)
            for group in range(groups):
                scatter_bytes(scales_out + group, groups, to_int(load(scales + VECTOR_BYTES * group)))
        store(d_out, d)
        store(m_out, number(0))
        half_d = half(d)
        for group in range(groups):
            inverse = over(number(1), half_d * load(scales + VECTOR_BYTES * group) if scaled else half_d)
            for i in range(width * group, width * (group + 1)):
                scatter_bytes(q + i, values, code(load(x + VECTOR_BYTES * i) * inverse))

    return search


def _line_searcher(target: Target, rule: Fit):
    """search(x, weight, q, d, m, scales, minimums) of 16 blocks of scale * q + offset."""
    values, width, groups, scaled = rule.layout.values, rule.layout.width, rule.layout.groups, rule.scale_bits > 0
    nearest, code = _nearest(rule.numbers)
    fit_line = _line_fitter(nearest, rule.numbers[-1], rule.guesses)
    half = rounder_to_half(target.f16)
    whole_scales = _whole_scaler(target, rule)
    choose_neighbours = _neighbour_chooser(nearest, rule)

    @compiled
    def search(x, weight, q, d_out, m_out, scales_out, minimums_out):
        scales, minimums, counts = stack(GROUPS_STACK), stack(GROUPS_STACK), stack(GROUPS_STACK)
        for group in range(groups):
            at = VECTOR_BYTES * width * group
            scale, offset = fit_line(x + at, weight + at, width)
            store(scales + VECTOR_BYTES * group, scale)
            store(minimums + VECTOR_BYTES * group, number(0) - offset)
            store(counts + VECTOR_BYTES * group, sum_of(weight + at, width))
        d, m = load(scales), number(0) - load(minimums)
        if scaled:
            d, m = whole_scales(scales, counts), whole_scales(minimums, counts)
        store(d_out, d)
        store(m_out, m)
        half_d, half_m = half(d), half(m)
        if scaled:
            choose_neighbours(x, weight, half_d, half_m, scales, minimums)
            for group in range(groups):
                scatter_bytes(scales_out + group, groups, to_int(load(scales + VECTOR_BYTES * group)))
                scatter_bytes(minimums_out + group, groups, to_int(load(minimums + VECTOR_BYTES * group)))
        for group in range(groups):
            scale, offset = half_d, half_m
            if scaled:
                scale = half_d * load(scales + VECTOR_BYTES * group)
                offset = number(0) - half_m * load(minimums + VECTOR_BYTES * group)
            inverse = over(number(1), scale)
            for i in range(width * group, width * (group + 1)):
                scatter_bytes(q + i, values, code((load(x + VECTOR_BYTES * i) - offset) * inverse))

    return search


def _neighbour_chooser(nearest, rule: Fit):
    """choose_neighbours(x, weight, d, m, scales, minimums): `search.best_neighbours`, in place."""
    width, groups, steps = rule.layout.width, rule.layout.groups, len(NEIGHBOURS)
    within, _ = _nearest(tuple(range(rule.scale_range[0], rule.scale_range[1] + 1)))
    error = _line_error(nearest)

    @compiled
    def choose_neighbours(x, weight, d, m, scales, minimums):
        for group in range(groups):
            at, place = VECTOR_BYTES * width * group, VECTOR_BYTES * group
            scale, minimum = load(scales + place), load(minimums + place)
            best_scale, best_minimum, least = scale, minimum, number(np.inf)
            for i in range(steps):
                lower = within(minimum + number(NEIGHBOURS[i]))
                offset = number(0) - m * lower
                for k in range(steps):
                    whole = within(scale + number(NEIGHBOURS[k]))
                    now = error(x + at, weight + at, width, d * whole, offset)
                    best_scale = choose(least, now, whole, best_scale)
                    best_minimum = choose(least, now, lower, best_minimum)
                    least = choose(least, now, now, least)
            store(scales + place, best_scale)
            store(minimums + place, best_minimum)

    return choose_neighbours


def _whole_scaler(target: Target, rule: Fit):
    """whole_scales(scales, counts): the factor of the groups' scales, which become whole numbers."""
    least, most = rule.scale_range
    groups, half = rule.layout.groups, rounder_to_half(target.f16)
    nearest, _ = _nearest(tuple(range(least, most + 1)))
    fit_scale = _scale_fitter(nearest, FINE.starts((least, most)), FINE)

    @compiled
    def whole_scales(scales, counts):
        d = fit_scale(scales, counts, groups)
        inverse = over(number(1), half(d))
        for group in range(groups):
            at = scales + VECTOR_BYTES * group
            store(at, nearest(load(at) * inverse))
        return d

    return whole_scales


def _nearest(numbers: tuple[int, ...]):
    """Functions of a vector: the nearest of these ascending numbers, and which one that is, as integer lanes."""
    lowest, highest = numbers[0], numbers[-1]
    middles = tuple((a + b) / 2 for a, b in pairwise(numbers))
    steps = len(middles)

    @compiled
    def nearest_whole(x):
        whole = maximum(rint(x), number(lowest))
        return choose(whole, number(highest), number(highest), whole)

    @compiled
    def code_of_whole(x):
        return to_int(nearest_whole(x) - number(lowest))

    @compiled
    def nearest_in_table(x):
        value = number(lowest)
        for i in range(steps):
            value = choose(x, number(middles[i]), number(numbers[i + 1]), value)
        return value

    @compiled
    def code_in_table(x):
        value = number(0)
        for i in range(steps):
            value = choose(x, number(middles[i]), number(i + 1), value)
        return to_int(value)

    whole = numbers == tuple(range(lowest, highest + 1))
    return (nearest_whole, code_of_whole) if whole else (nearest_in_table, code_in_table)


def _scale_fitter(nearest, starts: tuple[float, ...], guesses: Guesses):
    """fit_scale(x, weight, n): `search.fit_scale` of n vectors."""
    tries, rounds = len(starts), guesses.rounds

    @compiled
    def fit_scale(x, weight, n):
        largest = load(x)
        for i in range(1, n):
            v = load(x + VECTOR_BYTES * i)
            largest = choose(absolute(v), absolute(largest), v, largest)
        best_scale, best_gain = number(0), number(0)
        for i in range(tries + rounds):
            inverse = over(number(starts[i]), largest) if i < tries else over(number(1), best_scale)
            sum_qx, sum_qq = number(0), number(0)
            for k in range(n):
                v = load(x + VECTOR_BYTES * k)
                q = nearest(v * inverse)
                weighted = load(weight + VECTOR_BYTES * k) * q
                sum_qx, sum_qq = sum_qx + weighted * v, sum_qq + weighted * q
            scale = over(sum_qx, sum_qq)
            gain = scale * sum_qx
            best_scale = choose(gain, best_gain, scale, best_scale)
            best_gain = choose(gain, best_gain, gain, best_gain)
        return best_scale

    return fit_scale


def _line_error(nearest):
    """error(x, weight, n, scale, offset): the weighted squares of what n vectors lose on a line."""

    @compiled
    def error(x, weight, n, scale, offset):
        inverse, total = over(number(1), scale), number(0)
        for i in range(n):
            v = load(x + VECTOR_BYTES * i)
            q = nearest((v - offset) * inverse)
            off = scale * q + offset - v
            total = total + load(weight + VECTOR_BYTES * i) * off * off
        return total

    return error


def _line_fitter(nearest, top: int, guesses: Guesses):
    """fit_line(x, weight, n): `search.fit_line` of n vectors."""
    starts = tuple(top + guess for guess in guesses.each())
    tries, rounds, error = len(starts), guesses.rounds, _line_error(nearest)

    @compiled
    def fit_line(x, weight, n):
        zero = number(0)
        low, high = load(x), load(x)
        sum_w, sum_x = zero, zero
        for i in range(n):
            v, w = load(x + VECTOR_BYTES * i), load(weight + VECTOR_BYTES * i)
            low, high = choose(low, v, v, low), choose(v, high, v, high)
            sum_w, sum_x = sum_w + w, sum_x + w * v
        low = choose(zero, low, low, zero)
        span = high - low
        best_scale, best_offset = span / number(top), low
        least = error(x, weight, n, best_scale, best_offset)
        for i in range(tries + rounds):
            inverse, start = over(number(1), best_scale), best_offset
            if i < tries:
                inverse, start = over(number(starts[i]), span), low
            sum_q, sum_qq, sum_qx = zero, zero, zero
            for k in range(n):
                v = load(x + VECTOR_BYTES * k)
                q = nearest((v - start) * inverse)
                weighted = load(weight + VECTOR_BYTES * k) * q
                sum_q, sum_qq, sum_qx = sum_q + weighted, sum_qq + weighted * q, sum_qx + weighted * v
            determinant = sum_w * sum_qq - sum_q * sum_q
            scale = over(sum_w * sum_qx - sum_x * sum_q, determinant)
            offset = over(sum_qq * sum_x - sum_q * sum_qx, determinant)
            scale = choose(offset, zero, over(sum_qx, sum_qq), scale)
            scale, offset = choose(determinant, zero, scale, zero), choose(zero, offset, offset, zero)
            now = error(x, weight, n, scale, offset)
            now = choose(scale, zero, now, least)
            best_scale, best_offset = choose(least, now, scale, best_scale), choose(least, now, offset, best_offset)
            least = choose(least, now, now, least)
        return best_scale, best_offset

    return fit_line
