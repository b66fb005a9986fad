"""The op vocabulary: rules give the shapes that the meanings have, and the meanings are those of the papers."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.op_inputs import (
    Array,
    Case,
    Pool,
    States,
    attention_case,
    chosen,
    mixed_case,
    numbers,
    one_sequence,
    pool,
)

from sotol.program import ops
from sotol.program.memory import Cache, State
from sotol.program.program import OPS, Constant, Operand, Program, StepInput
from sotol.program.step import Step

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
    "reorder_choices": lambda t, m, n: (
        (numbers(t, n), chosen(t, m), np.stack([np.roll(np.arange(n, dtype=np.int32), i) for i in range(2 * m)])),
        {},
    ),
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


def test_a_clamped_swiglu() -> None:
    gate, up = np.array([[0.0, 1.0, 9.0, -50.0, 1.0, 1.0]]), np.array([[5.0, 2.0, 1.0, 1.0, 9.0, -9.0]])
    s = [1 / (1 + math.exp(-1.702 * g)) for g in (0, 1, 7)]
    want = [[0, s[1] * 3, 7 * s[2] * 2, 0, s[1] * 8, s[1] * -6]]
    np.testing.assert_allclose(ops.glu(gate, up, act="clamped_swiglu"), want, atol=1e-9)


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
