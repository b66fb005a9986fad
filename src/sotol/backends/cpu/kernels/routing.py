"""Which experts each token takes, and which tokens each expert takes. T tokens, E experts, k of them for each token.

`choose_experts` chooses, token by token. `sort_choices` then brings the T * k choices (a token and one of its experts)
into the order of the experts, so that `experts.expert_linear` reads a matrix once for all tokens that need it:

    choices   token 0: 7 2   token 1: 2 5   token 2: 7 2        (k = 2)
    order     1 2 5 | 3 | 0 4      places in `choices`: those of expert 2, of expert 5, of expert 7
    runs      (2, 0) (5, 3) (7, 4) (-, 6)      each run's expert, and where it begins in `order`; then the end

Order and runs are in memory that nothing else uses: threads that come late count pieces by it (`kernel.Kernel`). A run
has RUN_ROWS choices at most, so an expert that very many tokens take has several: they are pieces of work.
"""

import numpy as np
from numba import njit

from sotol.backends.cpu.kernel import Kernel
from sotol.backends.cpu.kernels.first_lanes import load_first
from sotol.backends.cpu.layout import LANES, MOST_EXPERTS
from sotol.backends.cpu.target import Target
from sotol.backends.cpu.vectors.simd import (
    exp,
    lane_max,
    lane_sum,
    load,
    load_f32,
    load_i32,
    load_i64,
    maximum,
    splat,
    stack,
    store,
    store_f32,
    store_i32,
    store_i64,
)

PIECE_ROWS = 8
RUN_ROWS = 128  # as many as are multiplied at once
SCORES_BYTES = 4 * MOST_EXPERTS
PLACES_BYTES = 8 * MOST_EXPERTS


@njit(error_model="numpy")
def _copy_padded(x, count, to):
    """`count` f32, and -inf behind them up to a whole vector."""
    for i in range(0, count, LANES):
        store(to + 4 * i, load_first(x + 4 * i, count - i))
    for i in range(count, (count + LANES - 1) // LANES * LANES):
        store_f32(to + 4 * i, np.float32(-np.inf))


@njit(error_model="numpy")
def _exps(x, count):
    """e**(x - its largest) in place of `count` f32 that `_copy_padded` made."""
    most = load(x)
    for i in range(LANES, count, LANES):
        most = maximum(load(x + 4 * i), most)
    largest = splat(lane_max(most))
    for i in range(0, count, LANES):
        store(x + 4 * i, exp(load(x + 4 * i) - largest))


@njit(error_model="numpy")
def _softmax(x, count):
    """In place of `count` f32 that `_copy_padded` made."""
    _exps(x, count)
    total = splat(np.float32(0))
    for i in range(0, count, LANES):
        total = total + load(x + 4 * i)
    whole = splat(lane_sum(total))
    for i in range(0, count, LANES):
        store(x + 4 * i, load(x + 4 * i) / whole)


@njit(error_model="numpy")
def _sigmoid(x, count):
    """In place of `count` f32."""
    for i in range(0, count, LANES):
        store(x + 4 * i, splat(np.float32(1)) / (splat(np.float32(1)) + exp(splat(np.float32(0)) - load(x + 4 * i))))


@njit(error_model="numpy")
def _take_best(ranked, taken, first, end):
    """The number of the largest that is not taken among first .. end - 1, the lowest of equal ones; it is taken now."""
    best = -1
    for i in range(first, end):
        if load_f32(taken + 4 * i) == 0 and (best < 0 or load_f32(ranked + 4 * i) > load_f32(ranked + 4 * best)):
            best = i
    store_f32(taken + 4 * best, np.float32(1))
    return best


@njit(error_model="numpy")
def _clear(x, count):
    for i in range(0, count, LANES):
        store(x + 4 * i, splat(np.float32(0)))


@njit(error_model="numpy")
def _leave_groups_out(a, ranked, taken, scores, chosen):
    """Take all experts but those of the best groups. scores, chosen: room for a number of each group."""
    each = a.experts // a.groups
    for g in range(a.groups):
        total = np.float32(0)
        for _ in range(min(a.best, each)):
            total += load_f32(ranked + 4 * _take_best(ranked, taken, g * each, (g + 1) * each))
        store_f32(scores + 4 * g, total)
    _clear(chosen, a.groups)
    for _ in range(a.groups_used):
        _take_best(scores, chosen, 0, a.groups)
    for g in range(a.groups):
        for i in range(g * each, (g + 1) * each):
            store_f32(taken + 4 * i, np.float32(1) - load_f32(chosen + 4 * g))


def choose_experts(_target: Target, scores: str) -> Kernel:
    """Choices [T, k], int32 without gaps, and their weights, in rows weights_row bytes apart; see `ops.choose_experts`.

    Rows of logits are `row` bytes apart; bias [E]. normalised: 0 or 1. A piece is eight tokens. Sums of weights are in
    the order of the choices.
    """
    rate, finish = _rater(scores), _weigher(scores)

    def pieces(a):
        return (a.rows + PIECE_ROWS - 1) // PIECE_ROWS

    def piece(a, p):
        rated, ranked, taken = stack(SCORES_BYTES), stack(SCORES_BYTES), stack(SCORES_BYTES)
        groups, kept = stack(SCORES_BYTES), stack(SCORES_BYTES)
        for token in range(p * PIECE_ROWS, min((p + 1) * PIECE_ROWS, a.rows)):
            _copy_padded(a.x + token * a.row, a.experts, rated)
            rate(rated, a.experts)
            for i in range(0, a.experts, LANES):
                store(ranked + 4 * i, load(rated + 4 * i) + load(a.bias + 4 * i))
            _clear(taken, a.experts)
            if a.groups > 1:
                _leave_groups_out(a, ranked, taken, groups, kept)
            weights, choices = a.weights + token * a.weights_row, a.out + 4 * token * a.k
            for i in range(a.k):
                best = _take_best(ranked, taken, 0, a.experts)
                store_i32(choices + 4 * i, np.int32(best))
                store_f32(weights + 4 * i, load_f32(rated + 4 * best))
            finish(a, weights, ranked)

    fields = "rows:count experts k row groups groups_used best normalised factor:f32 x bias out weights weights_row"
    return Kernel(fields, pieces, piece)


def _rater(scores: str):
    """rate(x, count): scores in place of logits that `_copy_padded` made."""

    @njit(error_model="numpy")
    def leave(_x, _count):
        pass

    return {"softmax": _softmax, "sigmoid": _sigmoid}.get(scores, leave)


def _weigher(scores: str):
    """finish(a, weights, space): from the scores of the chosen experts, in place, to their weights."""
    by_logits = scores in ("chosen", "chosen_sigmoid")
    rate = _sigmoid if scores == "chosen_sigmoid" else _softmax

    @njit(error_model="numpy")
    def finish(a, weights, space):
        if by_logits:
            _copy_padded(weights, a.k, space)
            rate(space, a.k)
            for i in range(a.k):
                store_f32(weights + 4 * i, load_f32(space + 4 * i))
        divisor = np.float32(1)
        if a.normalised:
            divisor = np.float32(1e-20)
            for i in range(a.k):
                divisor += load_f32(weights + 4 * i)
        for i in range(a.k):
            store_f32(weights + 4 * i, load_f32(weights + 4 * i) / divisor * a.factor)

    return finish


def sort_choices(_target: Target) -> Kernel:
    """order: int32 [T * k]; runs: how many as int64, then for each its expert and its beginning, as two int32.

    A counting sort; choices of an expert stay in their order. All is one piece.
    """

    def pieces(_a):
        return 1

    def piece(a, _p):
        places, count, at, runs = stack(PLACES_BYTES), a.rows * a.k, 0, 0
        for expert in range(a.experts):
            store_i64(places + 8 * expert, 0)
        for i in range(count):
            place = places + 8 * load_i32(a.choices + 4 * i)
            store_i64(place, load_i64(place) + 1)
        for expert in range(a.experts):
            place = places + 8 * expert
            end = at + load_i64(place)
            store_i64(place, at)
            while at < end:
                run = a.runs + 8 + 8 * runs
                store_i32(run, np.int32(expert))
                store_i32(run + 4, np.int32(at))
                at = min(at + RUN_ROWS, end)
                runs += 1
        store_i64(a.runs, runs)
        store_i32(a.runs + 8 + 8 * runs + 4, np.int32(count))
        for i in range(count):
            place = places + 8 * load_i32(a.choices + 4 * i)
            at = load_i64(place)
            store_i32(a.order + 4 * at, np.int32(i))
            store_i64(place, at + 1)

    return Kernel("rows:count k experts choices order runs", pieces, piece)
