"""Ops of recurrent layers against naive twins in plain loops, over several sequences and steps."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.running import make_step

from sotol.program import ops
from sotol.program.step import Step

Array = npt.NDArray[Any]


@dataclass
class States:
    """A cache of one array for each sequence, as ops see it."""

    states: Array

    def read(self, step: Step) -> Array:
        return self.states[step.tables[0].blocks[:, 0]]

    def write(self, step: Step, states: Array) -> None:
        self.states[step.tables[0].blocks[:, 0]] = states


def numbers(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def steps_of(counts: list[int], cuts: list[int]) -> tuple[list[Step], list[list[slice]]]:
    """Texts of these lengths in two steps, cut there; and the rows of each text, step by step, in one array of all."""
    blocks, begins = [[2 * s + 1] for s in range(len(counts))], np.cumsum([0, *counts])
    heads = [min(cut, count) for cut, count in zip(cuts, counts, strict=False)]
    steps, rows = [], []
    for parts in (
        [(s, 0, head) for s, head in enumerate(heads)],
        [(s, head, count) for s, (head, count) in enumerate(zip(heads, counts, strict=True)) if count > head],
    ):
        if parts:
            texts = [[0] * (end - begin) for _, begin, end in parts]
            steps.append(make_step(texts, [begin for _, begin, _ in parts], [blocks[s] for s, *_ in parts], [0]))
            rows.append([slice(begins[s] + begin, begins[s] + end) for s, begin, end in parts])
    return steps, rows


COUNTS = st.lists(st.integers(1, 6), min_size=1, max_size=3)
CUTS = st.lists(st.integers(1, 6), min_size=3, max_size=3)


def in_steps(counts: list[int], cuts: list[int], state: Array, call: Any, shape: tuple[int, ...]) -> Array:
    """All rows of call(rows, states, step), step by step. state: what places of states have in them before."""
    out, states = np.empty((sum(counts), *shape)), States(state)
    for step, slices in zip(*steps_of(counts, cuts), strict=True):
        rows = np.concatenate([np.arange(x.start, x.stop) for x in slices])
        out[rows] = call(rows, states, step)
    return out


@given(counts=COUNTS, cuts=CUTS, taps=st.integers(2, 5), act=st.sampled_from(["none", "silu"]))
def test_a_convolution_is_its_naive_twin(counts: list[int], cuts: list[int], taps: int, act: str) -> None:
    x, weight, bias = numbers(1, sum(counts), 3), numbers(2, 3, taps), numbers(3, 3)

    def call(rows: Array, states: States, step: Step) -> Any:
        return ops.convolve(x[rows], weight, bias, states, step, act=act)

    got, first = in_steps(counts, cuts, numbers(4, 9, taps - 1, 3), call, (3,)), 0
    for count in counts:
        for t in range(count):
            for c in range(3):
                seen = [x[first + t - i, c] * weight[c, taps - 1 - i] for i in range(min(taps, t + 1))]
                total = bias[c] + sum(seen)
                want = total / (1 + math.exp(-total)) if act == "silu" else total
                assert math.isclose(got[first + t, c], want, rel_tol=1e-12, abs_tol=1e-12)
        first += count


@given(st.lists(st.floats(-120, 120), min_size=1, max_size=5))
def test_steps_of_time_are_a_softplus(values: list[float]) -> None:
    x, bias, rate = np.array(values)[:, None], np.array([0.5]), np.array([-0.3])
    steps, left = ops.time_steps(x, bias, rate)
    for i, value in enumerate(values):
        step = max(value + 0.5, 0) + math.log1p(math.exp(-abs(value + 0.5)))
        assert math.isclose(steps[i, 0], step, rel_tol=1e-12)
        assert math.isclose(left[i, 0], math.exp(-0.3 * step), rel_tol=1e-12)


@given(
    counts=COUNTS, cuts=CUTS, shared=st.integers(1, 3), each=st.integers(1, 2), tiled=st.booleans(),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)  # fmt: skip
def test_the_delta_rule_is_its_naive_twin(
    counts: list[int], cuts: list[int], shared: int, each: int, tiled: bool, sizes: tuple[int, int]
) -> None:
    (d, e), heads = sizes, shared * each
    mixed, total = numbers(1, sum(counts), 2 * shared * d + heads * e), sum(counts)
    decay, gain = (np.random.default_rng(i).uniform(0, 1, (total, heads)) for i in (2, 3))

    def call(rows: Array, states: States, step: Step) -> Any:
        return ops.delta_rule(mixed[rows], decay[rows], gain[rows], states, step, tiled=tiled)

    got = in_steps(counts, cuts, numbers(4, 9, heads, d, e), call, (heads, e))
    first = 0
    for count in counts:
        for h in range(heads):
            matrix, key_head = np.zeros((d, e)), h % shared if tiled else h // each
            for t in range(first, first + count):
                q, k = (mixed[t, (i * shared + key_head) * d :][:d] for i in range(2))
                q, k = (x / math.sqrt(sum(n * n for n in x) + 1e-6) for x in (q, k))
                v = mixed[t, 2 * shared * d + h * e :][:e]
                matrix = decay[t, h] * matrix
                matrix = matrix + np.outer(k, gain[t, h] * (v - matrix.T @ k))
                np.testing.assert_allclose(got[t, h], matrix.T @ q / math.sqrt(d), rtol=1e-10, atol=1e-12)
        first += count


@given(
    counts=COUNTS, cuts=CUTS, groups=st.integers(1, 3), each=st.integers(1, 2),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)  # fmt: skip
def test_a_selective_scan_is_its_naive_twin(
    counts: list[int], cuts: list[int], groups: int, each: int, sizes: tuple[int, int]
) -> None:
    (n, e), heads, total = sizes, groups * each, sum(counts)
    mixed, skip = numbers(1, total, heads * e + 2 * groups * n), numbers(5, heads)
    decay, steps = (np.random.default_rng(i).uniform(0, 1, (total, heads)) for i in (2, 3))

    def call(rows: Array, states: States, step: Step) -> Any:
        return ops.selective_scan(mixed[rows], steps[rows], decay[rows], skip, states, step)

    got, first = in_steps(counts, cuts, numbers(4, 9, heads, n, e), call, (heads, e)), 0
    for count in counts:
        for h in range(heads):
            matrix, group = np.zeros((n, e)), h // each
            for t in range(first, first + count):
                x = mixed[t, h * e :][:e]
                b, c = (mixed[t, heads * e + (i * groups + group) * n :][:n] for i in range(2))
                matrix = decay[t, h] * matrix + np.outer(b, steps[t, h] * x)
                np.testing.assert_allclose(got[t, h], matrix.T @ c + skip[h] * x, rtol=1e-10, atol=1e-12)
        first += count


@pytest.mark.parametrize("groups", [1, 2, 5])
def test_a_grouped_norm_is_one_of_each_part(groups: int) -> None:
    x, weight = numbers(1, 4, 10), numbers(2, 10)
    got, width = ops.grouped_rms_norm(x, weight, groups=groups, eps=1e-5), 10 // groups
    for g in range(groups):
        part = slice(g * width, (g + 1) * width)
        np.testing.assert_allclose(got[:, part], ops.rms_norm(x[:, part], weight[part], eps=1e-5), rtol=1e-12)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 3))
def test_a_moving_average_is_its_naive_twin(counts: list[int], late: int) -> None:
    """Several sequences, each from its own state; one that begins at position 0 ignores the old state."""
    total = sum(counts)
    begins = [late if s % 2 else 0 for s in range(len(counts))]
    x, decay = numbers(total, total, 3), np.array([0.0, 0.5, 1.0])
    states = States(numbers(1, 9, 3))
    before, blocks = states.states.copy(), [8 - s for s in range(len(counts))]
    step = make_step([[0] * n for n in counts], begins, [[b] for b in blocks], [0])
    out, at = ops.moving_average(x, decay, states, step), 0
    for begin, count, block in zip(begins, counts, blocks, strict=True):
        h = before[block] if begin else np.zeros(3)
        for t in range(at, at + count):
            h = np.array([decay[c] * h[c] + (1 - decay[c]) * x[t, c] for c in range(3)])
            np.testing.assert_allclose(out[t], h, atol=1e-15)
        np.testing.assert_allclose(states.states[block], h, atol=1e-15)
        at += count
    np.testing.assert_array_equal(states.states[0], before[0])  # belongs to no sequence
