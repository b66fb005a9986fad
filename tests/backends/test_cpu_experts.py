"""The CPU's kernels for mixtures of experts against the ops' meanings, over drawn shapes, threads and CPU levels.

And that a token's bits do not depend on who else takes its experts.
"""

from contextlib import closing
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.checkpoints import RUNNABLE, random_checkpoint
from tests.support.running import limits_for, run_text
from tests.support.single_op import Inputs, cpu, limits_of, reference, single_step, weight

from sotol.backends.cpu import CpuRunner
from sotol.backends.cpu.target import Target
from sotol.errors import ModelError
from sotol.models import trace_model
from sotol.program import ops
from sotol.program.program import Constant, Tensor
from sotol.quant import ENCODINGS, Float32Array

INTEGER = [name for name, encoding in ENCODINGS.items() if encoding.integer and encoding.encode]

quickly = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
seeds = st.integers(0, 2**31)


def numbers(seed: int, *shape: int) -> Float32Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def scores_of(choice: npt.NDArray[Any], experts: int) -> Float32Array:
    """Logits [T, E] that lead to these choices [T, k], far apart."""
    logits = np.full((len(choice), experts), -4, np.float32)
    np.put_along_axis(logits, choice, np.linspace(2, 1, choice.shape[1], dtype=np.float32)[None], axis=1)
    return logits


def some_choices(seed: int, tokens: int, experts: int, k: int) -> npt.NDArray[np.intp]:
    """Some experts are taken by most tokens, some by few."""
    rng = np.random.default_rng(seed)
    liking = rng.normal(size=(tokens, experts)) + 2 * rng.normal(size=experts)
    return np.argsort(-liking, axis=1)[:, :k]


def chosen(inputs: Inputs, choice: npt.NDArray[np.intp], experts: int) -> tuple[Tensor, Tensor]:
    """Symbols of these choices and their weights."""
    logits = inputs.rows(scores_of(choice, experts), "logits")
    none = Constant("none", np.zeros(experts, np.float32))
    return recorded(logits, none, k=choice.shape[1], scores="softmax")


def recorded(logits: Tensor, bias: Constant, **options: Any) -> tuple[Tensor, Tensor]:
    """`ops.choose_experts` on symbols."""
    return cast("tuple[Tensor, Tensor]", ops.choose_experts(logits, bias, **options))


def check(inputs: Inputs, tokens: int, target: Target, *, tolerance: float = 2e-6) -> None:
    """The CPU's results against the meanings in float64; and the same bits on 1, 2 and 5 threads."""
    steps = [single_step(tokens)]
    got = [cpu(inputs.program, steps, target, threads=n) for n in (1, 2, 5)]
    want = reference(inputs.program, steps)
    np.testing.assert_allclose(got[0], want, rtol=tolerance, atol=tolerance * max(1e-30, float(np.abs(want).max())))
    for other in got[1:]:
        np.testing.assert_array_equal(got[0].view(np.int32), other.view(np.int32))


# ---- choosing


@pytest.mark.parametrize("scores", ["softmax", "sigmoid", "chosen", "chosen_sigmoid"])
@settings(quickly, max_examples=12)
@given(seed=seeds, tokens=st.integers(1, 21), data=st.data())
def test_choices_and_weights(target: Target, scores: str, seed: int, tokens: int, data: st.DataObject) -> None:
    """As numbers: an embedding of the choices gives their ids back."""
    groups = data.draw(st.sampled_from([1, 1, 2, 3, 8]))
    experts = groups * data.draw(st.integers(1, 9 if groups > 1 else 70))
    used = data.draw(st.integers(1, groups))
    k = data.draw(st.integers(1, min(experts // groups * used, 20)))
    places = np.argsort(numbers(seed, tokens, experts), axis=1)
    # No near ties, of sums neither: by a power of two, sums are exact, and those that are equal are so in float32, too.
    spaced = places.astype(np.float32) * np.float32(2.0 ** (3 - experts.bit_length()))
    bias = numbers(seed + 1, experts) * np.float32(data.draw(st.sampled_from([0, 0.01])))
    options = {"k": k, "scores": scores, "groups": groups, "groups_used": used, "best": data.draw(st.integers(1, 2))}
    options |= {"normalised": data.draw(st.booleans()), "factor": data.draw(st.sampled_from([1.0, 2.5]))}
    want_ids, want = ops.choose_experts(spaced.astype(np.float64), bias, **options)
    for threads in (1, 5):
        inputs = Inputs()
        logits = inputs.rows(spaced, "logits")
        choice, weights = recorded(logits, Constant("bias", bias), **options)
        ids = ops.expert_linear(
            inputs.rows(np.ones((tokens, 1), np.float32), "one"), choice,
            weight(np.arange(experts, dtype=np.float32)[:, None, None]),
        ).reshape("T", k)  # fmt: skip
        inputs.program.results = {"ids": ids, "weights": weights}
        got = results(inputs, tokens, target, threads)
        np.testing.assert_array_equal(got["ids"], want_ids)
        np.testing.assert_allclose(got["weights"], want, rtol=3e-6, atol=1e-30)


def results(inputs: Inputs, tokens: int, target: Target, threads: int) -> dict[str, Float32Array]:
    step = single_step(tokens)
    runner = CpuRunner(inputs.program, limits_of(inputs.program, step), threads=threads, target=target)
    try:
        return {name: np.array(x) for name, x in runner.run(step._replace(tables=())).items()}
    finally:
        runner.close()


@pytest.mark.parametrize("scores", ["softmax", "sigmoid", "chosen", "chosen_sigmoid"])
def test_of_equal_experts_the_lower_ids_are_taken(target: Target, scores: str) -> None:
    logits = np.tile(np.array([0, 3, 3, -2, 3, 0, 3, -2], np.float32), (2, 1))
    inputs = Inputs()
    none = Constant("none", np.zeros(8, np.float32))
    choice, _ = recorded(inputs.rows(logits, "x"), none, k=5, scores=scores)
    one = inputs.rows(np.ones((2, 1), np.float32), "one")
    ops.expert_linear(one, choice, weight(np.arange(8, dtype=np.float32)[:, None, None])).reshape("T", 5)
    got = cpu(inputs.program, [single_step(2)], target)
    np.testing.assert_array_equal(got, [[1, 2, 4, 6, 0]] * 2)
    np.testing.assert_array_equal(ops.choose_experts(logits, np.zeros(8), k=5, scores=scores)[0], got)


# ---- products


@pytest.mark.parametrize("encoding", RUNNABLE)
@settings(quickly, max_examples=4)
@given(seed=seeds, tokens=st.integers(1, 40), outputs=st.integers(1, 50), blocks=st.integers(1, 2), data=st.data())
def test_products_of_f32(
    target: Target, encoding: str, seed: int, tokens: int, outputs: int, blocks: int, data: st.DataObject
) -> None:
    """Of one row for all choices, or one for each; any widths."""
    experts = data.draw(st.integers(1, 9))
    k, values, each = data.draw(st.integers(1, experts)), ENCODINGS[encoding].values, data.draw(st.booleans())
    width = 37 * blocks - 5 if values == 1 else blocks * values
    inputs = Inputs()
    x = inputs.rows(numbers(seed, tokens, width * (k if each else 1)), "x")
    choice, _ = chosen(inputs, some_choices(seed, tokens, experts, k), experts)
    x = x.reshape("T", k, width) if each else x
    w = weight(numbers(seed + 1, experts, outputs, width), encoding)
    ops.expert_linear(x, choice, w).reshape("T", k * outputs)
    check(inputs, tokens, target, tolerance=1e-5)


@pytest.mark.parametrize("encoding", INTEGER)
@settings(quickly, max_examples=4)
@given(seed=seeds, tokens=st.integers(1, 40), outputs=st.integers(1, 50), blocks=st.integers(1, 2), data=st.data())
def test_products_of_int8(
    target: Target, encoding: str, seed: int, tokens: int, outputs: int, blocks: int, data: st.DataObject
) -> None:
    experts = data.draw(st.integers(1, 9))
    k, width, each = data.draw(st.integers(1, experts)), blocks * ENCODINGS[encoding].values, data.draw(st.booleans())
    values, choices = numbers(seed, tokens, width * (k if each else 1)), some_choices(seed, tokens, experts, k)
    inputs, w = Inputs(), weight(numbers(seed + 1, experts, outputs, width), encoding)
    x = inputs.rows(values, "x")
    choice, _ = chosen(inputs, choices, experts)
    ops.expert_linear(x.reshape("T", k, width) if each else x, choice, w).reshape("T", k * outputs)
    got = [cpu(inputs.program, [single_step(tokens)], target, threads=n, precision="int8") for n in (1, 2, 5)]
    rounded = ops.quantize.meaning(values).astype(np.float64)
    rounded = rounded.reshape(tokens, k, width) if each else rounded
    want = ops.expert_linear(rounded, choices, w.decode().astype(np.float64)).reshape(tokens, -1)
    np.testing.assert_allclose(got[0], want, rtol=1e-5, atol=1e-5 * np.abs(want).max())
    for other in got[1:]:
        np.testing.assert_array_equal(got[0].view(np.int32), other.view(np.int32))


@pytest.mark.parametrize(
    ("encoding", "precision"), [("F32", "f32"), ("Q8_0", "f32"), ("Q4_K", "int8"), ("Q4_1", "int8")]
)
@pytest.mark.parametrize("width", [256, 8192])
def test_the_bits_of_a_token_are_its_own(target: Target, encoding: str, precision: str, width: int) -> None:
    """300 tokens, nearly all with the same expert, against each of some of them alone; gathered in batches or not."""
    tokens, experts, k, outputs = 300, 4, 2, 24
    x = numbers(1, tokens, width)
    w = weight(numbers(2, experts, outputs, width) / np.float32(width**0.5), encoding)
    choices = some_choices(3, tokens, experts, k)
    choices[:, 0] = np.where(choices[:, 1] == 2, 0, 2)

    def product(rows: slice) -> Float32Array:
        inputs = Inputs()
        choice, weights = chosen(inputs, choices[rows], experts)
        ops.combine(ops.expert_linear(inputs.rows(x[rows], "x"), choice, w), weights)
        count = len(x[rows])
        return cpu(inputs.program, [single_step(count)], target, threads=2, precision=precision)

    together = product(slice(0, tokens))
    for first, count in ((0, 1), (17, 1), (100, 2), (200, 7), (299, 1)):
        alone = product(slice(first, first + count))
        np.testing.assert_array_equal(together[first : first + count].view(np.int32), alone.view(np.int32))


@pytest.mark.parametrize("experts", [3, 100, 150])
def test_products_of_many_experts(target: Target, experts: int) -> None:
    """Eleven panels of each: two pieces where few experts are taken, one where many are."""
    tokens, k, outputs, width = 150, 2, 16 * 10 + 5, 32
    choice = (np.arange(tokens)[:, None] + np.arange(k)) % experts
    inputs = Inputs()
    taken, _ = chosen(inputs, choice, experts)
    matrices = weight(numbers(1, experts, outputs, width), "Q8_0")
    x = inputs.rows(numbers(2, tokens, width), "x")
    ops.expert_linear(x, taken, matrices).reshape("T", k * outputs)
    check(inputs, tokens, target)


def test_threads_that_come_late_find_no_work(target: Target) -> None:
    """Two layers, whose results take each other's place in memory: many small steps on more threads than cores."""
    program = trace_model(random_checkpoint("qwen3moe", {"expert_count": 9, "expert_used_count": 3}), 64)
    ids = np.random.default_rng(5).integers(0, 48, 60).tolist()
    with closing(CpuRunner(program, limits_for(program, 64), threads=1, target=target)) as alone:
        want = run_text(alone, ids, [60])
    with closing(CpuRunner(program, limits_for(program, 64), threads=6, target=target)) as together:
        for chunks in ([1] * 60, [20] * 3, [1] * 60):
            np.testing.assert_array_equal(run_text(together, ids, chunks).view(np.int32), want.view(np.int32))


# ---- what is done with the rows of choices


@quickly
@given(seed=seeds, tokens=st.integers(1, 21), width=st.sampled_from([1, 5, 16, 33, 96, 100]), k=st.integers(1, 9))
def test_biases_of_experts(target: Target, seed: int, tokens: int, width: int, k: int) -> None:
    inputs = Inputs()
    choice, _ = chosen(inputs, some_choices(seed, tokens, 9, k), 9)
    x = inputs.rows(numbers(seed, tokens, k * width), "x").reshape("T", k, width)
    ops.add_expert_bias(x, choice, weight(numbers(seed + 1, 9, width))).reshape("T", k * width)
    check(inputs, tokens, target)


@pytest.mark.parametrize("weighted", [True, False])
@quickly
@given(
    seed=seeds, tokens=st.integers(1, 21), width=st.sampled_from([1, 5, 16, 33, 96, 100]), k=st.integers(1, 9),
    residual=st.booleans(),
)  # fmt: skip
def test_combine(target: Target, weighted: bool, seed: int, tokens: int, width: int, k: int, residual: bool) -> None:
    inputs = Inputs()
    x, weights = inputs.rows(numbers(seed, tokens, k * width), "x"), inputs.rows(numbers(seed + 1, tokens, k), "w")
    before = inputs.rows(numbers(seed + 2, tokens, width), "before") if residual else None
    out = ops.combine(x.reshape("T", k, width), weights, weighted=weighted)
    if before is not None:
        ops.add(before, out)
    check(inputs, tokens, target)


@quickly
@given(seed=seeds, tokens=st.integers(1, 21), width=st.sampled_from([1, 5, 16, 33, 96, 100]), k=st.integers(1, 9))
def test_spread(target: Target, seed: int, tokens: int, width: int, k: int) -> None:
    inputs = Inputs()
    x, weights = inputs.rows(numbers(seed, tokens, width), "x"), inputs.rows(numbers(seed + 1, tokens, k), "w")
    ops.spread(x, weights).reshape("T", k * width)
    check(inputs, tokens, target)


@pytest.mark.parametrize("each", [False, True])
@quickly
@given(seed=seeds, tokens=st.integers(1, 21), width=st.sampled_from([1, 5, 16, 33, 96, 100]), k=st.integers(1, 9))
def test_rows_in_the_orders_of_experts(target: Target, each: bool, seed: int, tokens: int, width: int, k: int) -> None:
    """each: a choice has a row of its own."""
    inputs = Inputs()
    choice, _ = chosen(inputs, some_choices(seed, tokens, 9, k), 9)
    x = inputs.rows(numbers(seed, tokens, width * (k if each else 1)), "x")
    orders = np.argsort(numbers(seed + 1, 9, width), axis=1).astype(np.int32)
    rows = x.reshape("T", k, width) if each else x
    ops.reorder_choices(rows, choice, Constant("order", orders)).reshape("T", k * width)
    check(inputs, tokens, target, tolerance=0)


@quickly
@given(seed=seeds, tokens=st.integers(1, 21), k=st.integers(1, 9))
def test_weights_times_a_number_of_each_expert(target: Target, seed: int, tokens: int, k: int) -> None:
    inputs = Inputs()
    choice, weights = chosen(inputs, some_choices(seed, tokens, 9, k), 9)
    ops.scale_choices(weights, choice, weight(numbers(seed + 1, 9)))
    check(inputs, tokens, target, tolerance=3e-6)


@quickly
@given(seed=seeds, tokens=st.integers(1, 21), width=st.sampled_from([1, 5, 16, 33, 96, 100]))
def test_gates_of_rows(target: Target, seed: int, tokens: int, width: int) -> None:
    inputs = Inputs()
    x, gate = inputs.rows(numbers(seed, tokens, width), "x"), inputs.rows(4 * numbers(seed + 1, tokens, 1), "gate")
    ops.gate_rows(x, gate)
    check(inputs, tokens, target)


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"k": 5}, r"can't choose 5 of 4 experts"),
        ({"k": 0}, r"can't choose 0 of 4 experts"),
        ({"k": 1, "groups": 3}, r"equal groups of 4 experts, some of which are used: not 1 of 3$"),
        ({"k": 2, "groups": 4}, r"can't choose 2 of 1 experts"),
        ({"k": 2, "groups": 2, "groups_used": 3}, r"not 3 of 2$"),
        ({"k": 2, "scores": "square"}, r"has the scores softmax, sigmoid, chosen, chosen_sigmoid: not square$"),
    ],
)
def test_choices_that_can_not_be(target: Target, options: dict[str, Any], said: str) -> None:
    inputs = Inputs()
    none = Constant("none", np.zeros(4, np.float32))
    _, weights = recorded(inputs.rows(numbers(0, 3, 4), "x"), none, **{"scores": "softmax", **options})
    inputs.program.results = {"weights": weights}
    with pytest.raises(ModelError, match=said):
        cpu(inputs.program, [single_step(3)], target)


def test_too_many_experts_are_refused(target: Target) -> None:
    inputs = Inputs()
    none = Constant("none", np.zeros(1025, np.float32))
    _, weights = recorded(inputs.rows(numbers(0, 3, 1025), "x"), none, k=2, scores="sigmoid")
    inputs.program.results = {"weights": weights}
    with pytest.raises(ModelError, match="the CPU backend has up to 1024 experts: not 1025"):
        cpu(inputs.program, [single_step(3)], target)


def test_choices_among_other_experts_are_refused(target: Target) -> None:
    inputs = Inputs()
    choice, _ = chosen(inputs, some_choices(0, 3, 9, 2), 9)
    ops.expert_linear(inputs.rows(numbers(0, 3, 5), "x"), choice, weight(numbers(1, 8, 6, 5)))
    with pytest.raises(ModelError, match="expert_linear: w has 8 experts, and 9 can be chosen"):
        cpu(inputs.program, [single_step(3)], target)


@pytest.mark.parametrize(
    ("orders", "said"),
    [
        (np.full((9, 5), 5, np.int32), "reorder_choices needs constant orders of 5 numbers"),
        (np.full((9, 5), -1, np.int32), "reorder_choices needs constant orders of 5 numbers"),
        (np.zeros((8, 5), np.int32), "reorder_choices: order has 8 experts, and 9 can be chosen"),
    ],
)
def test_orders_that_are_none_are_refused(target: Target, orders: npt.NDArray[np.int32], said: str) -> None:
    inputs = Inputs()
    choice, _ = chosen(inputs, some_choices(0, 3, 9, 2), 9)
    ops.reorder_choices(inputs.rows(numbers(0, 3, 5), "x"), choice, Constant("order", orders))
    with pytest.raises(ModelError, match=said):
        cpu(inputs.program, [single_step(3)], target)


def test_rows_of_other_choices_are_refused(target: Target) -> None:
    inputs = Inputs()
    choice, _ = chosen(inputs, some_choices(0, 3, 9, 2), 9)
    ops.expert_linear(inputs.rows(numbers(0, 3, 15), "x").reshape("T", 3, 5), choice, weight(numbers(1, 9, 6, 5)))
    with pytest.raises(ModelError, match=r"a row for each token or each choice: not \['T', 3, 5\]"):
        cpu(inputs.program, [single_step(3)], target)
