"""The op vocabulary: rules give the shapes that the meanings have, and the meanings are those of the papers."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.running import make_step

from sotol.program import ops
from sotol.program.memory import Cache, Paged, State
from sotol.program.program import OPS, Constant, Operand, Program, StepInput
from sotol.program.step import BLOCK_TOKENS, Step

Array = npt.NDArray[Any]
Case = tuple[tuple[Any, ...], dict[str, Any]]  # inputs, attributes


@dataclass
class Pool:
    """A cache of one sequence's keys [positions, K, d] and values [positions, K, e], as ops see it."""

    layout: Paged
    keys: Array
    values: Array
    key_type = value_type = np.finfo(np.float64)

    def write(self, step: Step, keys: Array, values: Array) -> None:
        self.keys[step.positions], self.values[step.positions] = keys, values

    def read(self, step: Step, s: int) -> tuple[Array, Array, Array]:
        assert s == 0
        end = step.positions[-1] + 1
        return np.arange(end), self.keys[:end], self.values[:end]


@dataclass
class States:
    """A cache of one array for each sequence, as ops see it."""

    layout: State
    states: Array

    def read(self, step: Step) -> Array:
        return self.states[step.tables[0].blocks[:, 0]]

    def write(self, step: Step, states: Array) -> None:
        self.states[step.tables[0].blocks[:, 0]] = states


def numbers(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def one_sequence(t: int, begin: int = 0) -> Step:
    """t tokens from position `begin` on."""
    return make_step([[0] * t], [begin], [range(-(-(begin + t) // BLOCK_TOKENS))], [0])


def pool(positions: int, k: int, n: int, window: int = 0, *, latent: bool = False) -> Pool:
    """n key channels and n + 1 value channels, or of latent ones as many as can be."""
    value = max(1, n - 1) if latent else n + 1
    keys, values = (np.random.default_rng(i).normal(size=(positions, k, w)) for i, w in enumerate((n, value)))
    return Pool(Paged(k, n, value, window, latent), keys, values)


def attention_case(t: int, k: int, n: int, begin: int = 0, window: int = 0) -> Case:
    """One sequence of t tokens from position `begin` on, 2 query heads for each of k, d = n, e = n + 1."""
    return (numbers(t, 2 * k, n), pool(begin + t, k, n, window), one_sequence(t, begin)), {"scale": n**-0.5}


def chosen(t: int, k: int) -> Array:
    """k of 2 k experts for each of t tokens."""
    return np.stack([np.random.default_rng(i).permutation(2 * k)[:k] for i in range(t)]).astype(np.int32)


def mixed_case(t: int, m: int, n: int) -> tuple[Any, ...]:
    """Of m groups of 2 heads, with n channels of a key and n + 1 of a value: what goes into a scan."""
    state = State((2 * m, n, n + 1))
    channels = 2 * m * (n + 1) + 2 * m * n
    of_heads = numbers(t, 2 * m), numbers(t, 2 * m), numbers(2 * m)
    return (numbers(t, channels), *of_heads, States(state, np.zeros((1, *state.shape))), one_sequence(t))


# By op: inputs whose shapes depend on three sizes.
CASES: dict[str, Callable[[int, int, int], Case]] = {
    "embed": lambda t, m, n: ((numbers(m, n), np.zeros(t, np.int32)), {}),
    "rms_norm": lambda t, m, n: ((numbers(t, m, n), numbers(n)), {"eps": 1e-6}),
    "layer_norm": lambda t, m, n: ((numbers(t, m, n), numbers(n)), {"eps": 1e-6}),
    "quantize": lambda t, _, n: ((numbers(t, 32 * n),), {}),
    "linear": lambda t, m, n: ((numbers(t, n), numbers(m, n)), {}),
    "head_linear": lambda t, m, n: ((numbers(t, m, n), numbers(m, n + 1, n)), {}),
    "join": lambda t, m, n: ((numbers(t, m, n), numbers(t, m, n + 2)), {}),
    "part": lambda t, m, n: ((numbers(t, m + n),), {"begin": m, "n": n}),
    "add_bias": lambda t, m, _: ((numbers(t, m), numbers(m)), {}),
    "add": lambda t, m, n: ((numbers(t, m, n), numbers(t, m, n)), {}),
    "scale": lambda t, m, n: ((numbers(t, m, n),), {"factor": 3.0}),
    "scale_by_position": lambda t, m, n: (
        (numbers(t, m, n), np.arange(t, dtype=np.int32), numbers(t + n)),
        {},
    ),
    "soft_cap": lambda t, m, n: ((numbers(t, m, n),), {"cap": 3.0}),
    "glu": lambda t, _, n: ((numbers(t, n), numbers(t, n)), {"act": "silu"}),
    "activate": lambda t, _, n: ((numbers(t, n),), {"act": "relu2"}),
    "rope": lambda t, m, n: (
        (numbers(t, m, 2 * n), np.arange(t, dtype=np.int32), numbers(t, 2, n)),
        {"style": "halves"},
    ),
    "attention": attention_case,
    "attention_with_sinks": lambda t, k, n: ((*attention_case(t, k, n)[0], numbers(2 * k)), attention_case(t, k, n)[1]),
    "remember": lambda t, k, n: ((numbers(t, k, n), numbers(t, k, n + 1), pool(t, k, n), one_sequence(t)), {}),
    "remember_latent": lambda t, k, n: ((numbers(t, k, n), pool(t, k, n, latent=True), one_sequence(t)), {}),
    "moving_average": lambda t, _, n: (
        (numbers(t, n), numbers(n), States(State((n,)), np.zeros((1, n))), one_sequence(t)),
        {},
    ),
    "reorder": lambda t, _, n: ((numbers(t, n), np.arange(n, dtype=np.int32)[::-1].copy()), {}),
    "convolve": lambda t, m, n: (
        (numbers(t, n), numbers(n, m), numbers(n), States(State((m - 1, n)), np.zeros((1, m - 1, n))), one_sequence(t)),
        {"act": "silu"},
    ),
    "time_steps": lambda t, _, n: ((numbers(t, n), numbers(n), numbers(n)), {}),
    "delta_rule": lambda t, m, n: ((*mixed_case(t, m, n)[:3], *mixed_case(t, m, n)[-2:]), {"tiled": False}),
    "selective_scan": lambda t, m, n: (mixed_case(t, m, n), {}),
    "grouped_rms_norm": lambda t, m, n: ((numbers(t, m * n), numbers(m * n)), {"groups": m, "eps": 1e-6}),
    "rows": lambda t, m, n: ((numbers(t, n), np.zeros(m, np.int32)), {}),
    "choose_experts": lambda t, m, n: ((numbers(t, m + n), numbers(m + n)), {"k": m, "scores": "softmax"}),
    "expert_linear": lambda t, m, n: ((numbers(t, n), chosen(t, m), numbers(2 * m, n + 1, n)), {}),
    "add_expert_bias": lambda t, m, n: ((numbers(t, m, n), chosen(t, m), numbers(2 * m, n)), {}),
    "scale_choices": lambda t, m, _: ((numbers(t, m), chosen(t, m), numbers(2 * m)), {}),
    "combine": lambda t, m, n: ((numbers(t, m, n), numbers(t, m)), {}),
    "spread": lambda t, m, n: ((numbers(t, n), numbers(t, m)), {}),
    "gate_rows": lambda t, _, n: ((numbers(t, n), numbers(t, 1)), {}),
    "reshape": lambda t, m, n: ((numbers(t, m * n),), {"shape": (t, m, n)}),
}


def test_every_op_has_a_case() -> None:
    assert CASES.keys() == OPS.keys()
    assert OPS.keys() < set(ops.__all__)


def symbol(program: Program, x: Any) -> Operand:
    """A symbol of the kind and shape of a case's input."""
    if isinstance(x, Step):
        return StepInput(program, "step")
    if isinstance(x, Pool | States):
        return Cache("cache", x.layout)
    return StepInput(program, "ids", x.shape) if x.dtype == np.int32 else Constant("x", x)


def results_of(given_: Any) -> tuple[Array, ...]:
    """None, an array or several as several."""
    return () if given_ is None else given_ if isinstance(given_, tuple) else (given_,)


@pytest.mark.parametrize("name", CASES)
@given(sizes=st.tuples(*[st.integers(1, 9)] * 3))
def test_the_shape_rule_is_the_shape_of_the_meaning(name: str, sizes: tuple[int, int, int]) -> None:
    inputs, attributes = CASES[name](*sizes)
    program = Program()
    operands = tuple(symbol(program, x) for x in inputs)
    op = OPS[name]
    shapes = tuple(result.shape for result in op.results_of(operands, op.complete(attributes)))
    assert shapes == tuple(x.shape for x in results_of(op(*inputs, **attributes)))


@pytest.mark.parametrize("name", CASES)
def test_meanings_keep_the_type_of_activations(name: str) -> None:
    for kind in (np.float32, np.float64):
        inputs, attributes = CASES[name](3, 2, 4)
        given_ = [x.astype(kind) if getattr(x, "dtype", None) == np.float32 else x for x in inputs]
        results = results_of(OPS[name](*given_, **attributes))
        kinds = [np.dtype(np.int32) if rule.kind == "i32" else np.dtype(kind) for rule in OPS[name].outputs]
        assert [x.dtype for x in results] == kinds


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


def naive_choice(
    logits: Array, bias: Array, k: int, scores: str, groups: int, groups_used: int, best: int
) -> list[int]:  # fmt: skip
    """One token's experts, by sorting pairs."""
    top = max(logits)
    total = sum(math.exp(x - top) for x in logits)
    rated = {
        "softmax": [math.exp(x - top) / total for x in logits],
        "sigmoid": [1 / (1 + math.exp(-x)) for x in logits],
        "chosen": list(logits),
        "chosen_sigmoid": list(logits),
    }[scores]
    ranked = [(-(x + b), i) for i, (x, b) in enumerate(zip(rated, bias, strict=True))]
    each = len(ranked) // groups
    of_groups = [sorted(ranked[g * each : (g + 1) * each])[:best] for g in range(groups)]
    kept = sorted((sum(x for x, _ in members), g) for g, members in enumerate(of_groups))[:groups_used]
    able = [pair for _, g in kept for pair in ranked[g * each : (g + 1) * each]]
    return [i for _, i in sorted(able)[:k]]


@given(
    seed=st.integers(0, 2**31), scores=st.sampled_from(["softmax", "sigmoid", "chosen", "chosen_sigmoid"]),
    groups=st.sampled_from([1, 2, 4]), each=st.integers(1, 8), best=st.integers(1, 2), data=st.data(),
)  # fmt: skip
def test_choices_are_those_of_the_naive_twin(
    seed: int, scores: str, groups: int, each: int, best: int, data: st.DataObject
) -> None:
    """Weights: of the scores without the bias; normalised they sum to the factor."""
    rng, used = np.random.default_rng(seed), data.draw(st.integers(1, groups))
    k = data.draw(st.integers(1, used * each))
    logits, bias = rng.normal(size=(5, groups * each)), rng.normal(size=groups * each) / 10
    options = {"k": k, "scores": scores, "groups": groups, "groups_used": used, "best": best}
    choice, weights = ops.choose_experts(logits, bias, **options)
    _, plain = ops.choose_experts(logits, bias, **options, normalised=True, factor=2.5)
    for t in range(5):
        assert choice[t].tolist() == naive_choice(logits[t], bias, k, scores, groups, used, best)
    picked = np.take_along_axis(logits, choice, axis=1)
    want = {
        "softmax": np.exp(picked) / np.exp(logits).sum(axis=1, keepdims=True),
        "sigmoid": 1 / (1 + np.exp(-picked)),
        "chosen": np.exp(picked) / np.exp(picked).sum(axis=1, keepdims=True),
        "chosen_sigmoid": 1 / (1 + np.exp(-picked)),
    }[scores]
    np.testing.assert_allclose(weights, want, rtol=1e-12)
    np.testing.assert_allclose(plain, 2.5 * want / want.sum(axis=1, keepdims=True), rtol=1e-12)


def test_products_with_experts_and_what_is_made_of_them() -> None:
    """By plain loops: of one row for all choices, or one for each; weighed before or after."""
    x, w, b = numbers(3, 5).astype(float), numbers(4, 6, 5).astype(float), numbers(4, 6).astype(float)
    choice, weights = np.array([[0, 3], [3, 1], [2, 0]], np.int32), numbers(3, 2).astype(float)
    rows = ops.add_expert_bias(ops.expert_linear(x, choice, w), choice, b)
    spread = ops.expert_linear(ops.spread(x, weights), choice, w)
    for t in range(3):
        for i in range(2):
            np.testing.assert_allclose(rows[t, i], w[choice[t, i]] @ x[t] + b[choice[t, i]])
            np.testing.assert_allclose(spread[t, i], w[choice[t, i]] @ x[t] * weights[t, i])
        np.testing.assert_allclose(ops.combine(rows, weights)[t], weights[t] @ rows[t])
        np.testing.assert_allclose(ops.combine(rows, weights, weighted=False)[t], rows[t].sum(axis=0))
    np.testing.assert_allclose(ops.scale_choices(weights, choice, b[:, 0])[1], weights[1] * b[[3, 1], 0])
    gate = np.array([[0.0], [100.0], [-100.0]])
    np.testing.assert_allclose(ops.gate_rows(x, gate), [x[0] / 2, x[1], 0 * x[2]], atol=1e-30)


def test_a_clamped_swiglu() -> None:
    gate, up = np.array([[0.0, 1.0, 9.0, -50.0, 1.0, 1.0]]), np.array([[5.0, 2.0, 1.0, 1.0, 9.0, -9.0]])
    s = [1 / (1 + math.exp(-1.702 * g)) for g in (0, 1, 7)]
    want = [[0, s[1] * 3, 7 * s[2] * 2, 0, s[1] * 8, s[1] * -6]]
    np.testing.assert_allclose(ops.glu(gate, up, act="clamped_swiglu"), want, atol=1e-9)


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


@given(st.integers(1, 6), st.floats(1e-3, 1e3))
def test_a_quantised_number_is_within_half_a_step(groups: int, size: float) -> None:
    x = numbers(3, 32 * groups) * np.float32(size)
    most = np.abs(x.reshape(3, groups, 32)).max(axis=-1, keepdims=True)
    error = np.abs(ops.quantize(x) - x).reshape(3, groups, 32)
    assert (error <= most / 127 * 0.5001).all()


def test_zeros_stay_zeros_when_quantised() -> None:
    assert not ops.quantize(np.zeros((2, 64), np.float32)).any()


def test_norms_and_activations() -> None:
    x = numbers(4, 3, 16).astype(np.float64)
    normed = ops.rms_norm(x, np.full(16, 2.0), eps=0.0)
    np.testing.assert_allclose(np.sqrt(np.mean(normed**2, axis=-1)), 2.0)
    np.testing.assert_allclose(ops.soft_cap(np.array([0.1, 1e4, -1e4]), cap=5.0), [0.1, 5, -5], atol=1e-4)
    gate, up = np.array([[0.0, 30.0, -30.0, 1.0]]), np.full((1, 4), 3.0)
    np.testing.assert_allclose(ops.glu(gate, up, act="silu"), [[0, 90, 0, 3 / (1 + np.exp(-1))]], atol=1e-9)
    np.testing.assert_allclose(ops.activate(gate, act="silu"), ops.glu(gate, np.ones((1, 4)), act="silu"))
    np.testing.assert_array_equal(ops.activate(np.array([[-2.0, 0.0, 3.0]]), act="relu2"), [[0, 0, 9]])
    np.testing.assert_allclose(ops.glu(gate, up, act="gelu_tanh"), [[0, 90, 0, 3 * 0.841192]], atol=1e-5)


def test_a_layer_norm_has_mean_0_and_deviation_1() -> None:
    """Whatever is added to all of a row, or multiplied with it."""
    x, weight = numbers(4, 3, 16).astype(np.float64), numbers(16).astype(np.float64)
    normed = ops.layer_norm(x, np.ones(16), eps=0.0)
    np.testing.assert_allclose(normed.mean(axis=-1), 0.0, atol=1e-14)
    np.testing.assert_allclose(normed.std(axis=-1), 1.0)
    np.testing.assert_allclose(ops.layer_norm(7 * x - 3, weight, eps=0.0), normed * weight, atol=1e-12)
    np.testing.assert_allclose(ops.layer_norm(x, weight, eps=1.0)[0, 0], (
        weight * (x[0, 0] - x[0, 0].mean()) / np.sqrt(x[0, 0].var() + 1.0)
    ))  # fmt: skip


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


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 3))
def test_a_moving_average_is_its_naive_twin(counts: list[int], late: int) -> None:
    """Several sequences, each from its own state; one that begins at position 0 ignores the old state."""
    total = sum(counts)
    begins = [late if s % 2 else 0 for s in range(len(counts))]
    x, decay = numbers(total, 3).astype(float), np.array([0.0, 0.5, 1.0])
    states = States(State((3,)), np.random.default_rng(1).normal(size=(9, 3)))
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
