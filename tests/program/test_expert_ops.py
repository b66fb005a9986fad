"""Ops of experts: choices and products by naive twins."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.support.op_inputs import Array, numbers

from sotol.program import ops


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
