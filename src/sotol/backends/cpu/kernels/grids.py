"""The search for runs of grids as native code: the same steps, the same sums and the same bits as
`quant/grid_search.py`.

A lane is a block, as in `fit.py`. What the first and second halves of a run cost is two tables of vectors, which stay
in the first-level cache; a grid is code that goes through both, without a branch: a comparison and two choices for each
of its runs.
"""

from itertools import pairwise
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from sotol.backends.cpu.kernels.fit import compiled, number, over
from sotol.backends.cpu.layout import LANES, VECTOR_BYTES
from sotol.backends.cpu.target import Target
from sotol.backends.cpu.vectors.choosing import choose, digit, gather, rounder_to_half, scatter_bytes
from sotol.backends.cpu.vectors.simd import (
    VF,
    absolute,
    constant,
    load,
    load_i64,
    load_ir,
    maximum,
    offset,
    rint,
    stack,
    store,
    store_ir,
    to_int,
)  # fmt: skip
from sotol.quant import GRID_FITS, GridFit
from sotol.quant.grid_search import VALUES, grid_rows
from sotol.quant.grids import GRIDS

WORD = 8
BLOCK_STACK = VALUES * VECTOR_BYTES
GROUPS_STACK = 16 * VECTOR_BYTES  # one number for each group
HALF_STACK = 81 * VECTOR_BYTES  # what all halves cost
RUN = 4 * VECTOR_BYTES  # what is found of a run: its halves, whether it is lowered, its distance
RUNS_STACK = 8 * RUN  # of a group
FIRST, SECOND, LOWERED, DISTANCE = (VECTOR_BYTES * i for i in range(4))


def grid(target: Target, name: str):
    """grid(places, blocks, 0, 0, 0) -> 0: blocks, a multiple of 16, of an encoding are searched.

    places: addresses of x f32 [blocks, 256], of how much each counts (f32 of the same shape), and of what
    `grid_search.FoundRuns` has: halves, lowered, scales, d.
    """
    rule = GRID_FITS[name]
    groups, width, part, length = rule.groups, rule.width, float(np.float32(rule.part)), rule.length
    parts = float(np.float32(1 / rule.part))
    runs, block_bytes, group_bytes = width // length, 4 * VALUES, VECTOR_BYTES * width
    block_runs, halves_apart = runs * groups, 2 * runs * groups
    nearest, regress = _nearest_runs(rule), _regression(rule)
    fit_group = _group_fitter(rule, nearest, regress)
    whole_scales = _whole_scaler(target, rule)

    @compiled
    def search(x, weight, halves, lowered, scales_out, d_out):
        scales, counts, found = stack(GROUPS_STACK), stack(GROUPS_STACK), stack(RUNS_STACK)
        for group in range(groups):
            at = group_bytes * group
            store(scales + VECTOR_BYTES * group, fit_group(x + at, weight + at))
            count = load(weight + at)
            for i in range(1, width):
                count = count + load(weight + at + VECTOR_BYTES * i)
            store(counts + VECTOR_BYTES * group, count)
        d = whole_scales(scales, counts)
        factor = d * number(part)
        sum_qx, sum_qq = number(0), number(0)
        for group in range(groups):
            whole = load(scales + VECTOR_BYTES * group)
            scatter_bytes(scales_out + group, groups, to_int((whole - number(1)) * number(0.5)))
            at = group_bytes * group
            nearest(x + at, weight + at, factor * whole, found)
            sum_qx, sum_qq = regress(x + at, weight + at, found, whole, sum_qx, sum_qq)
            for run in range(runs):
                from_, to = found + RUN * run, runs * group + run
                scatter_bytes(halves + 2 * to, halves_apart, to_int(load(from_ + FIRST)))
                scatter_bytes(halves + 2 * to + 1, halves_apart, to_int(load(from_ + SECOND)))
                scatter_bytes(lowered + to, block_runs, to_int(load(from_ + LOWERED)))
        fitted = over(sum_qx, sum_qq) * number(parts)
        store(d_out, choose(fitted, number(0), fitted, d))

    def search_blocks(places, blocks, _3, _4, _5):
        x, importance = load_i64(places), load_i64(places + WORD)
        halves, lowered = load_i64(places + 2 * WORD), load_i64(places + 3 * WORD)
        scales, d = load_i64(places + 4 * WORD), load_i64(places + 5 * WORD)
        numbers, weight = stack(BLOCK_STACK), stack(BLOCK_STACK)
        for block in range(0, blocks, LANES):
            for i in range(VALUES):
                at = block_bytes * block + 4 * i
                store(numbers + VECTOR_BYTES * i, gather(x + at, block_bytes))
                store(weight + VECTOR_BYTES * i, gather(importance + at, block_bytes))
            search(
                numbers, weight, halves + 2 * block_runs * block, lowered + block_runs * block,
                scales + groups * block, d + 4 * block,
            )  # fmt: skip
        return 0

    return search_blocks


def _half_filler(rule: GridFit, table: tuple[int, ...]):
    """fill(x, weight, inverse, out): what all halves cost, `grid_search.half_sums`, of half a run at x."""
    base, half = GRIDS[rule.grid].base, rule.length // 2
    numbers = tuple(map(float, table))

    @compiled
    def fill(x, weight, inverse, out):
        size = 1
        for i in range(half):
            v, w = load(x + VECTOR_BYTES * i) * inverse, load(weight + VECTOR_BYTES * i)
            twice = w * (v + v)
            for k in range(base - 1, -1, -1):  # the sums so far are the first part of the table, and go last
                q = number(numbers[k])
                cost = (w * q - twice) * q
                for j in range(size):
                    sum_ = cost if i == 0 else load(out + VECTOR_BYTES * j) + cost
                    store(out + VECTOR_BYTES * (size * k + j), sum_)
            size *= base

    return fill


def _scanner(name: str):
    """scan(firsts, seconds, out): the first run of least cost, by what its halves cost, as `RUN` has it."""
    rows, packed, _ = grid_rows(name)

    def scan_ir(b: Any, firsts: Any, seconds: Any, out: Any) -> None:
        least = first = second = None
        for high, beside in rows:
            low, name_ = None, None
            for each in beside:
                cost, own = load_ir(b, offset(b, firsts, VECTOR_BYTES * each), VF), constant(VF, packed[each])
                if low is None:
                    low, name_ = cost, own
                    continue
                less = b.fcmp_ordered("<", cost, low)
                low, name_ = b.select(less, cost, low), b.select(less, own, name_)
            whole = b.fadd(low, load_ir(b, offset(b, seconds, VECTOR_BYTES * high), VF))
            own = constant(VF, packed[high])
            if least is None:
                least, first, second = whole, name_, own
                continue
            less = b.fcmp_ordered("<", whole, least)
            least, first = b.select(less, whole, least), b.select(less, name_, first)
            second = b.select(less, own, second)
        for place, value in ((FIRST, first), (SECOND, second), (DISTANCE, least)):
            store_ir(b, value, offset(b, out, place))

    @intrinsic
    def scan(_context: Any, _firsts: Any, _seconds: Any, _out: Any) -> Any:
        def generate(c: Any, b: Any, _s: Any, args: Any) -> Any:
            scan_ir(b, *args)
            return c.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64), generate

    return scan


def _nearest_runs(rule: GridFit):
    """nearest(x, weight, scale, found): `grid_search.nearest_runs` of a group, without their numbers."""
    runs, together = rule.width // rule.length, rule.together
    half_bytes, run_bytes = VECTOR_BYTES * (rule.length // 2), VECTOR_BYTES * rule.length
    two = len(rule.tables) > 1
    fill, fill_lowered = _half_filler(rule, rule.tables[0]), _half_filler(rule, rule.tables[-1])
    scan = _scanner(rule.grid)

    @compiled
    def scan_run(firsts, seconds, out):
        scan(firsts, seconds, out)

    @compiled
    def nearest(x, weight, scale, found):
        inverse = over(number(1), scale)
        firsts, seconds, others = stack(HALF_STACK), stack(HALF_STACK), stack(RUNS_STACK)
        for run in range(runs):
            at, out = run_bytes * run, RUN * run
            fill(x + at, weight + at, inverse, firsts)
            fill(x + at + half_bytes, weight + at + half_bytes, inverse, seconds)
            scan_run(firsts, seconds, found + out)
            store(found + out + LOWERED, number(0))
            if two:
                fill_lowered(x + at, weight + at, inverse, firsts)
                fill_lowered(x + at + half_bytes, weight + at + half_bytes, inverse, seconds)
                scan_run(firsts, seconds, others + out)
        if two:
            for begin in range(0, runs, together):
                here, there = RUN * begin, RUN * (begin + together)
                lost, lost_lowered = load(found + here + DISTANCE), load(others + here + DISTANCE)
                for out in range(here + RUN, there, RUN):
                    lost = lost + load(found + out + DISTANCE)
                    lost_lowered = lost_lowered + load(others + out + DISTANCE)
                for out in range(here, there, RUN):
                    store(found + out + LOWERED, choose(lost, lost_lowered, number(1), number(0)))
                    for place in (FIRST, SECOND):
                        at = found + out + place
                        store(at, choose(lost, lost_lowered, load(others + out + place), load(at)))

    return nearest


def _regression(rule: GridFit):
    """regress(x, weight, found, whole, sum_qx, sum_qq): the sums, with a group's numbers times `whole` added."""
    length, runs, half = rule.length, rule.width // rule.length, rule.length // 2
    base = GRIDS[rule.grid].base
    bits = (base - 1).bit_length()
    first, last, two = tuple(map(float, rule.tables[0])), tuple(map(float, rule.tables[-1])), len(rule.tables) > 1

    @compiled
    def number_of(digits, lowered):
        q = number(first[0])
        for k in range(1, base):
            q = choose(digits, number(k - 0.5), number(first[k]), q)
        if two:
            other = number(last[0])
            for k in range(1, base):
                other = choose(digits, number(k - 0.5), number(last[k]), other)
            q = choose(lowered, number(0.5), other, q)
        return q

    @compiled
    def regress(x, weight, found, whole, sum_qx, sum_qq):
        for run in range(runs):
            lowered = load(found + RUN * run + LOWERED)
            for i in range(length):
                halves = load(found + RUN * run + (FIRST if i < half else SECOND))
                q = number_of(digit(halves, bits * (i if i < half else i - half), bits), lowered) * whole
                at = VECTOR_BYTES * (length * run + i)
                weighted = load(weight + at) * q
                sum_qx, sum_qq = sum_qx + weighted * load(x + at), sum_qq + weighted * q
        return sum_qx, sum_qq

    return regress


def _table_sums(table: tuple[int, ...]):
    """sums(x, weight, inverse, n): of w q x, w q q and w q (q - 2 x) of n numbers, the nearest of a table."""
    steps = len(table) - 1
    numbers, middles = tuple(map(float, table)), tuple((a + b) / 2 for a, b in pairwise(table))

    @compiled
    def sums(x, weight, inverse, n):
        sum_qx, sum_qq, lost = number(0), number(0), number(0)
        for i in range(n):
            v = load(x + VECTOR_BYTES * i)
            scaled, q = v * inverse, number(numbers[0])
            for k in range(steps):
                q = choose(scaled, number(middles[k]), number(numbers[k + 1]), q)
            weighted = load(weight + VECTOR_BYTES * i) * q
            sum_qx, sum_qq = sum_qx + weighted * v, sum_qq + weighted * q
            lost = lost + weighted * (q - (scaled + scaled))
        return sum_qx, sum_qq, lost

    return sums


def _loose_regression(rule: GridFit):
    """regress(x, weight, inverse): `grid_search.loose_sums`."""
    width, two = rule.width, len(rule.tables) > 1
    apart = rule.together * rule.length if two else width
    sums, sums_lowered = _table_sums(rule.tables[0]), _table_sums(rule.tables[-1])

    @compiled
    def regress(x, weight, inverse):
        all_qx, all_qq = number(0), number(0)
        for i in range(0, width, apart):
            at = VECTOR_BYTES * i
            sum_qx, sum_qq, lost = sums(x + at, weight + at, inverse, apart)
            if two:
                other_qx, other_qq, other = sums_lowered(x + at, weight + at, inverse, apart)
                sum_qx, sum_qq = choose(lost, other, other_qx, sum_qx), choose(lost, other, other_qq, sum_qq)
            all_qx, all_qq = all_qx + sum_qx, all_qq + sum_qq
        return all_qx, all_qq

    return regress


@compiled
def _better(sums, best_scale, best_gain):
    """The scale by these sums, and how much it explains, if that is more; or the best so far."""
    sum_qx, sum_qq = sums
    scale = over(sum_qx, sum_qq)
    gain = choose(scale, number(0), scale * sum_qx, number(0))
    return choose(gain, best_gain, scale, best_scale), choose(gain, best_gain, gain, best_gain)


def _group_fitter(rule: GridFit, nearest, regress):
    """fit_group(x, weight): `grid_search.fit_group`."""
    width, starts, near = rule.width, rule.starts, rule.near
    tries, guesses, loosely = len(starts), len(near), _loose_regression(rule)

    @compiled
    def fit_group(x, weight):
        largest = absolute(load(x))
        for i in range(1, width):
            largest = maximum(largest, absolute(load(x + VECTOR_BYTES * i)))
        zero = number(0)
        loose, gain = zero, zero
        for i in range(tries):
            inverse = over(number(starts[i]), largest)
            loose, gain = _better(loosely(x, weight, inverse), loose, gain)
        found, best, gain = stack(RUNS_STACK), zero, zero
        for i in range(guesses + 1):
            scale = loose * number(near[i]) if i < guesses else best
            nearest(x, weight, scale, found)
            best, gain = _better(regress(x, weight, found, number(1), zero, zero), best, gain)
        return best

    return fit_group


def _whole_scaler(target: Target, rule: GridFit):
    """whole_scales(scales, counts): the factor that is stored; the scales become odd numbers."""
    groups, odds, most = rule.groups, tuple(map(float, rule.odds)), rule.odds[0] // 2
    tries, half = len(odds), rounder_to_half(target.f16)
    part, parts = float(np.float32(rule.part)), float(np.float32(1 / rule.part))

    @compiled
    def odd(x):
        s = maximum(rint((x - number(1)) * number(0.5)), number(0))
        s = choose(s, number(most), number(most), s)
        return s + s + number(1)

    @compiled
    def whole_scales(scales, counts):
        largest = load(scales)
        for group in range(1, groups):
            largest = maximum(largest, load(scales + VECTOR_BYTES * group))
        best, least = number(0), number(np.inf)
        for i in range(tries):
            inverse = over(number(odds[i]), largest)
            sum_qx, sum_qq = number(0), number(0)
            for group in range(groups):
                scale = load(scales + VECTOR_BYTES * group)
                whole = odd(scale * inverse)
                weighted = load(counts + VECTOR_BYTES * group) * whole
                sum_qx, sum_qq = sum_qx + weighted * scale, sum_qq + weighted * whole
            d, error = half(over(sum_qx, sum_qq) * number(parts)), number(0)
            step = d * number(part)
            for group in range(groups):
                scale = load(scales + VECTOR_BYTES * group)
                off = step * odd(scale * inverse) - scale
                error = error + load(counts + VECTOR_BYTES * group) * off * off
            best, least = choose(least, error, d, best), choose(least, error, error, least)
        inverse = over(number(1), best * number(part))
        for group in range(groups):
            at = scales + VECTOR_BYTES * group
            store(at, odd(load(at) * inverse))
        return best

    return whole_scales
