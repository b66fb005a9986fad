"""Ops of attention: naive twins, rotations, and what caches keep."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.op_inputs import Array, Case, Pool, attention_case, numbers, one_sequence, pool

from sotol.program import ops
from sotol.program.memory import Paged


def naive_attention(case: Case, window: int, cap: float, *, chunked: bool = False) -> Array:
    """Attention token by token and head by head, in plain loops."""
    (q, pool, step), scale = case[0], case[1]["scale"]
    begin, group = int(step.positions[0]), q.shape[1] // pool.layout.heads
    out = np.zeros((*q.shape[:2], pool.layout.value))
    for t in range(len(q)):
        for h in range(q.shape[1]):
            scores, values = [], []
            for p in range(begin + t + 1):
                if chunked and p // window != (begin + t) // window:
                    continue
                if window and begin + t - p >= window:
                    continue
                key, value = pool.keys[p, h // group], pool.values[p, h // group]
                score = float(np.dot(q[t, h].astype(np.float64), key.astype(np.float64)) * scale)
                scores.append(cap * np.tanh(score / cap) if cap else score)
                values.append(value)
            weights = np.exp(np.array(scores) - max(scores))
            out[t, h] = (weights / weights.sum()) @ np.array(values, np.float64)
    return out


@given(st.integers(1, 20), st.integers(0, 30), st.integers(0, 25), st.sampled_from([0.0, 0.5, 30.0]))
def test_attention_is_its_naive_twin(t: int, begin: int, window: int, cap: float) -> None:
    case = attention_case(t, 2, 4, begin, window)
    expected = naive_attention(case, window, cap)
    inputs = [x.astype(np.float64) if isinstance(x, np.ndarray) else x for x in case[0]]
    got = ops.attention(*inputs, **case[1], cap=cap)
    np.testing.assert_allclose(got, expected, atol=1e-12)


@given(st.integers(1, 20), st.integers(0, 30), st.integers(1, 25))
def test_attention_within_chunks_is_its_naive_twin(t: int, begin: int, window: int) -> None:
    (q, cache, step), attributes = attention_case(t, 2, 4, begin, window)
    cache.layout = cache.layout._replace(chunked=True)
    expected = naive_attention(((q, cache, step), attributes), window, 0.0, chunked=True)
    np.testing.assert_allclose(ops.attention(q.astype(np.float64), cache, step, **attributes), expected, atol=1e-12)


@given(st.integers(1, 20), st.integers(0, 30), st.integers(0, 25))
def test_a_sink_is_a_score_without_a_value(t: int, begin: int, window: int) -> None:
    """Attention without it, times the weight that it leaves to the keys."""
    case = attention_case(t, 2, 4, begin, window)
    inputs = [x.astype(np.float64) if isinstance(x, np.ndarray) else x for x in case[0]]
    q, keys = inputs[0], case[0][1].keys
    sinks, out = np.array([-2.0, 0.0, 1.0, 30.0]), ops.attention(*inputs, **case[1])
    got = ops.attention_with_sinks(*inputs, sinks, **case[1])
    for i in range(t):
        for h in range(4):
            seen = range(max(0, begin + i - window + 1) if window else 0, begin + i + 1)
            scores = [float(q[i, h] @ keys[p, h // 2]) * case[1]["scale"] for p in seen]
            left = sum(map(math.exp, scores)) / (sum(map(math.exp, scores)) + math.exp(sinks[h]))
            np.testing.assert_allclose(got[i, h], left * out[i, h], atol=1e-12)


def rotation(context: int, pairs: int) -> Array:
    angle = np.outer(np.arange(context), 0.7 ** np.arange(pairs))
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


@pytest.mark.parametrize("style", ["halves", "pairs"])
@given(at=st.integers(0, 40), later=st.integers(0, 40), moved=st.integers(0, 40))
def test_rotated_products_depend_on_distance_alone(style: str, at: int, later: int, moved: int) -> None:
    q, k, table = numbers(1, 1, 12).astype(float), numbers(2, 1, 12)[:1].astype(float), rotation(121, 6)

    def product(i: int, j: int) -> float:
        a, b = (ops.rope(x, np.array([p]), table, style=style) for x, p in ((q, i), (k, j)))
        return float(np.sum(a * b))

    assert product(at, at + later) == pytest.approx(product(at + moved, at + later + moved), abs=1e-9)


def test_the_styles_of_rope_are_orders_of_channels() -> None:
    x, table, positions = numbers(5, 2, 12), rotation(9, 4), np.arange(3, 8)
    order = [0, 4, 1, 5, 2, 6, 3, 7, 8, 9, 10, 11]  # of "pairs" in terms of "halves"; the last four are not rotated
    halves = ops.rope(x, positions, table, style="halves")
    pairs = ops.rope(x[..., order], positions, table, style="pairs")
    np.testing.assert_array_equal(halves[..., order], pairs)
    np.testing.assert_array_equal(halves[..., 8:], x[..., 8:])


def test_pairs_over_the_middle_are_those_of_halves_that_do_not_turn() -> None:
    x, positions, table = numbers(5, 2, 12), np.arange(3, 8), rotation(9, 6)
    table[:, 0, 2:], table[:, 1, 2:] = 1, 0
    whole = ops.rope(x, positions, table, style="halves")
    np.testing.assert_array_equal(ops.rope(x, positions, table[..., :2], style="middle"), whole)


def test_each_head_has_a_matrix_of_its_own() -> None:
    x, w, y = numbers(3, 2, 5).astype(float), numbers(2, 4, 5).astype(float), numbers(3, 2, 1).astype(float)
    product = ops.head_linear(x, w)
    for t in range(3):
        for h in range(2):
            np.testing.assert_allclose(product[t, h], w[h] @ x[t, h])
            assert ops.join(x, y)[t, h].tolist() == [*x[t, h], *y[t, h]]
    np.testing.assert_array_equal(ops.part(x[:, 0], begin=1, n=3), x[:, 0, 1:4])


def test_a_scale_by_position_is_the_tables() -> None:
    x, table = numbers(3, 2, 4), np.array([1.0, 2.0, 4.0, 8.0], np.float32)
    scaled = ops.scale_by_position(x, np.array([3, 0, 2], np.int32), table)
    np.testing.assert_array_equal(scaled, np.stack([8 * x[0], x[1], 4 * x[2]]))


@pytest.mark.parametrize("kind", [np.float16, np.float32])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_cache_has_no_value_that_spoils_a_sum(kind: type[np.floating[Any]], value: float) -> None:
    """Not even times 0. The key becomes NaN, so tokens that attend to it notice."""
    k, v = np.full((3, 2, 4), 1e30, np.float32), np.full((3, 2, 4), -7.0, np.float32)
    k[0, 1, 2], v[2, 0, 3] = value, value
    keys, values = ops.cached(k, v, np.finfo(kind), np.finfo(np.float32))
    spoilt = np.array([[0, 1], [0, 0], [1, 0]], bool)
    np.testing.assert_array_equal(np.isnan(keys), np.repeat(spoilt[..., None], 4, axis=-1))
    np.testing.assert_array_equal(values, np.where(spoilt[..., None], 0.0, v))
    swapped = ops.cached(v, k, np.finfo(np.float32), np.finfo(kind))[1]
    assert swapped[1, 0, 0] == min(np.float32(1e30), np.float32(np.finfo(kind).max))
    assert keys[1, 0, 0] == min(np.float32(1e30), np.float32(np.finfo(kind).max))


def test_what_is_remembered_is_what_attention_reads() -> None:
    """In two steps, with values narrower or wider than keys; a latent cache returns the first channels of its keys."""
    k, v = numbers(7, 2, 6).astype(float), numbers(7, 2, 5).astype(float)
    whole, latent = Pool(Paged(2, 6, 5), np.zeros((7, 2, 6)), np.zeros((7, 2, 5))), pool(7, 2, 6, latent=True)
    for at in (slice(0, 4), slice(4, 7)):
        step = one_sequence(at.stop - at.start, at.start)
        ops.remember(k[at], v[at], whole, step)
        ops.remember_latent(k[at], latent, step)
    np.testing.assert_array_equal(whole.keys, k)
    np.testing.assert_array_equal(whole.values, v)
    np.testing.assert_array_equal(latent.values, k[..., :5])
