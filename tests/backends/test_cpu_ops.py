"""Every CPU kernel against its op's meaning in NumPy, over drawn shapes, on 1, 2 and 5 threads and each CPU level."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.checkpoints import RUNNABLE
from tests.support.single_op import Inputs, cpu, reference, single_step, weight

from sotol.backends.cpu.target import Target
from sotol.program import ops
from sotol.program.program import Constant, Tensor
from sotol.quant import ENCODINGS, Float32Array

INTEGER = [name for name, encoding in ENCODINGS.items() if encoding.integer and encoding.encode]

quickly = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
seeds = st.integers(0, 2**31)
counts = st.integers(1, 21)
widths = st.sampled_from([1, 5, 16, 32, 48, 72, 96, 100, 176])


def numbers(seed: int, *shape: int) -> Float32Array:
    """Normal numbers, in rows of very different size, with zeros among them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape) * np.exp(rng.normal(size=(*shape[:-1], 1)))
    return np.where(rng.random(shape) < 0.05, 0, x).astype(np.float32)


def check(inputs: Inputs, tokens: int, target: Target, tolerance: float = 2e-6, **options: str) -> None:
    """The program's result is the reference's, up to rounding, and the same bits on any number of threads."""
    steps = [single_step(tokens)]
    got = [cpu(inputs.program, steps, target, threads=n, **options) for n in (1, 2, 5)]  # type: ignore[arg-type]
    want = reference(inputs.program, steps).reshape(got[0].shape)
    np.testing.assert_allclose(got[0], want, rtol=tolerance, atol=tolerance * max(1e-30, np.abs(want).max()))
    for other in got[1:]:
        np.testing.assert_array_equal(got[0].view(np.int32), other.view(np.int32))


@pytest.mark.parametrize("width", [3, 32, 45])
def test_embed_of_floats(target: Target, width: int) -> None:
    inputs = Inputs()
    inputs.rows(numbers(0, 5, width), "x")
    check(inputs, 5, target, tolerance=0)


@pytest.mark.parametrize("encoding", RUNNABLE)
def test_embed(target: Target, encoding: str) -> None:
    """A decoded row is exact; 37 rows leave the last panel incomplete."""
    inputs, width = Inputs(), max(96, 2 * ENCODINGS[encoding].values)
    tokens = Inputs.rows(inputs, numbers(1, 37, 16), "ids")
    inputs.program.nodes.clear()
    ops.embed(weight(numbers(2, 37, width), encoding), inputs._tokens)
    assert isinstance(tokens, Tensor)
    check(inputs, 37, target, tolerance=0)


@quickly
@given(seed=seeds, tokens=counts, width=widths)
def test_rms_norm(target: Target, seed: int, tokens: int, width: int) -> None:
    inputs = Inputs()
    x = inputs.rows(numbers(seed, tokens, width), "x")
    ops.rms_norm(x, weight(numbers(seed + 1, width)), eps=1e-5)
    check(inputs, tokens, target)


@quickly
@given(seed=seeds, tokens=counts, heads=st.integers(1, 4), width=st.sampled_from([1, 8, 16, 24, 64, 100]))
def test_rms_norm_of_heads(target: Target, seed: int, tokens: int, heads: int, width: int) -> None:
    inputs = Inputs()
    x = inputs.rows(numbers(seed, tokens, heads * width), "x").reshape("T", heads, width)
    ops.rms_norm(x, weight(numbers(seed + 1, width)), eps=1e-6).reshape("T", heads * width)
    check(inputs, tokens, target)


@quickly
@given(seed=seeds, tokens=counts, groups=st.integers(1, 4), width=st.sampled_from([1, 8, 16, 24, 64, 100]))
def test_grouped_rms_norm(target: Target, seed: int, tokens: int, groups: int, width: int) -> None:
    inputs = Inputs()
    x = inputs.rows(numbers(seed, tokens, groups * width), "x")
    ops.grouped_rms_norm(x, weight(numbers(seed + 1, groups * width)), groups=groups, eps=1e-6)
    check(inputs, tokens, target)


@quickly
@given(seed=seeds, tokens=counts, width=widths, middle=st.sampled_from([-90.0, -15.0, -3.0, 0.0, 4.0, 60.0]))
def test_time_steps(target: Target, seed: int, tokens: int, width: int, middle: float) -> None:
    """Steps of all sizes, also very small ones, exact to some units in the last place; and what they leave."""
    rng = np.random.default_rng(seed)
    values, bias = rng.normal(middle, 2, (tokens, width)).astype(np.float32), numbers(seed + 1, width)
    rate = -rng.uniform(0.01, 16, width).astype(np.float32)
    for output in (0, 1):
        inputs = Inputs()
        x = inputs.rows(values, "x")
        results = ops.time_steps(x, weight(bias, name="bias"), weight(rate, name="rate"))
        assert isinstance(results, tuple)
        inputs.program.results["result"] = results[output]
        step = single_step(tokens)
        got = cpu(inputs.program, [step], target, threads=2)
        exact = np.logaddexp(0, (values + bias).astype(np.float64))  # the sum is rounded
        want = np.exp(rate * exact) if output else exact
        relative = 1e-6 if not output else 1e-6 * (1 + np.abs(rate * exact))
        assert (np.abs(got - want) <= relative * np.abs(want) + 1e-37).all()


@quickly
@given(seed=seeds, tokens=counts, heads=st.integers(1, 3), width=st.sampled_from([1, 8, 16, 24, 64, 100]))
def test_layer_norm(target: Target, seed: int, tokens: int, heads: int, width: int) -> None:
    """Of rows that are far from 0, too; eps is not small beside the smallest of their variances."""
    inputs = Inputs()
    values = numbers(seed, tokens, heads * width) + np.float32(3)
    x = inputs.rows(values, "x").reshape("T", heads, width)
    ops.layer_norm(x, weight(numbers(seed + 1, width)), eps=0.1).reshape("T", heads * width)
    check(inputs, tokens, target, tolerance=1e-5)


@quickly
@given(seed=seeds, tokens=counts, heads=st.integers(1, 3), width=st.sampled_from([1, 8, 24, 64]))
def test_scale_by_position(target: Target, seed: int, tokens: int, heads: int, width: int) -> None:
    inputs = Inputs()
    x = inputs.rows(numbers(seed, tokens, heads * width), "x").reshape("T", heads, width)
    table = Constant("table", np.random.default_rng(seed).uniform(0.5, 2, tokens).astype(np.float32))
    ops.scale_by_position(x, inputs.positions, table).reshape("T", heads * width)
    check(inputs, tokens, target)


ELEMENTWISE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda x, y: ops.add(x, y),
    "activate": lambda x, _: ops.activate(x, act="relu2"),
    "activate gelu": lambda x, _: ops.activate(x, act="gelu_tanh"),
    "activate sigmoid": lambda x, _: ops.activate(x, act="sigmoid"),
    "glu sigmoid": lambda x, y: ops.glu(x, y, act="sigmoid"),
    "glu bilinear": lambda x, y: ops.glu(x, y, act="bilinear"),
    "glu silu": lambda x, y: ops.glu(x, y, act="silu"),
    "glu gelu": lambda x, y: ops.glu(x, y, act="gelu_tanh"),
    "glu clamped": lambda x, y: ops.glu(ops.scale(x, factor=4.0), ops.scale(y, factor=4.0), act="clamped_swiglu"),
    "scale": lambda x, _: ops.scale(x, factor=25.3),
    "soft_cap": lambda x, _: ops.soft_cap(x, cap=30.0),
    "bias": lambda x, _: ops.add_bias(x, weight(numbers(3, int(x.shape[-1])))),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
@quickly
@given(seed=seeds, tokens=counts, width=widths)
def test_elementwise(target: Target, name: str, seed: int, tokens: int, width: int) -> None:
    inputs = Inputs()
    x, y = (inputs.rows(numbers(seed + i, tokens, width), f"x{i}") for i in range(2))
    ELEMENTWISE[name](x, y)
    check(inputs, tokens, target)


@pytest.mark.parametrize("act", ["relu2", "gelu_tanh", "silu"])
def test_what_is_not_a_number_stays_so(target: Target, act: str) -> None:
    inputs, x = Inputs(), numbers(4, 3, 40)
    x[1, 7] = np.nan
    ops.activate(inputs.rows(x, "x"), act=act)
    result = cpu(inputs.program, [single_step(3)], target)
    np.testing.assert_array_equal(np.isnan(result), np.isnan(x))


@pytest.mark.parametrize("style", ["halves", "middle", "pairs"])
@quickly
@given(
    seed=seeds, tokens=counts, heads=st.integers(1, 3), width=st.sampled_from([3, 8, 32, 50, 64]), part=st.booleans()
)
def test_rope(target: Target, style: str, seed: int, tokens: int, heads: int, width: int, part: bool) -> None:
    """The whole head rotates (of an odd one all but a channel), or its first half."""
    pairs = max(1, width // 4) if part else width // 2
    inputs = Inputs()
    x = inputs.rows(numbers(seed, tokens, heads * width), "x").reshape("T", heads, width)
    table = Constant("table", np.random.default_rng(seed).normal(size=(tokens, 2, pairs)).astype(np.float32))
    ops.rope(x, inputs.positions, table, style=style).reshape("T", heads * width)
    check(inputs, tokens, target)


@quickly
@given(seed=seeds, tokens=counts, width=widths)
def test_rows(target: Target, seed: int, tokens: int, width: int) -> None:
    inputs = Inputs()
    ops.rows(inputs.rows(numbers(seed, tokens, width), "x"), inputs.logit_rows)
    check(inputs, tokens, target, tolerance=0)


@quickly
@given(seed=seeds, tokens=counts, width=widths)
def test_reorder(target: Target, seed: int, tokens: int, width: int) -> None:
    inputs, order = Inputs(), np.random.default_rng(seed).permutation(width).astype(np.int32)
    ops.reorder(inputs.rows(numbers(seed, tokens, width), "x"), Constant("order", order))
    check(inputs, tokens, target, tolerance=0)


@pytest.mark.parametrize("encoding", RUNNABLE)
@settings(quickly, max_examples=5)
@given(seed=seeds, tokens=counts, outputs=st.integers(1, 70), blocks=st.integers(1, 3))
def test_linear_of_f32(target: Target, encoding: str, seed: int, tokens: int, outputs: int, blocks: int) -> None:
    """Any number of outputs and, of floats, of inputs."""
    inputs, values = Inputs(), ENCODINGS[encoding].values
    width = 37 * blocks - 5 if values == 1 else blocks * values
    x = inputs.rows(numbers(seed, tokens, width), "x")
    ops.linear(x, weight(numbers(seed + 1, outputs, width), encoding))
    check(inputs, tokens, target, tolerance=1e-5)


@pytest.mark.parametrize("encoding", INTEGER)
@settings(quickly, max_examples=5)
@given(seed=seeds, tokens=counts, outputs=st.integers(1, 70), blocks=st.integers(1, 3))
def test_linear_of_int8(target: Target, encoding: str, seed: int, tokens: int, outputs: int, blocks: int) -> None:
    """int8 activations: NumPy's meaning of `quantize`, then a product."""
    inputs, width = Inputs(), blocks * ENCODINGS[encoding].values
    x, w = numbers(seed, tokens, width), weight(numbers(seed + 1, outputs, width), encoding)
    ops.linear(inputs.rows(x, "x"), w)
    steps = [single_step(tokens)]
    got = [cpu(inputs.program, steps, target, threads=n, precision="int8") for n in (1, 2, 5)]
    # Rounding to int8 happens in float32, so its oracle does too; the product in float64.
    want = ops.quantize.meaning(x).astype(np.float64) @ w.decode().astype(np.float64).T
    np.testing.assert_allclose(got[0], want, rtol=1e-5, atol=1e-5 * np.abs(want).max())
    for other in got[1:]:
        np.testing.assert_array_equal(got[0].view(np.int32), other.view(np.int32))


@pytest.mark.parametrize("encoding", INTEGER)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_shows_in_its_row_alone(target: Target, encoding: str, value: float) -> None:
    """Rounded to int8, one NaN among numbers would be just another number."""
    x, w = numbers(1, 3, ENCODINGS[encoding].values), weight(numbers(2, 20, ENCODINGS[encoding].values), encoding)
    results = []
    for last in (x[1, 17], np.float32(value)):
        x[1, 17] = last
        inputs = Inputs()
        ops.linear(inputs.rows(x, "x"), w)
        results.append(cpu(inputs.program, [single_step(3)], target, precision="int8"))
    assert np.isnan(results[1][1]).all()
    np.testing.assert_array_equal(results[0][[0, 2]].view(np.int32), results[1][[0, 2]].view(np.int32))
