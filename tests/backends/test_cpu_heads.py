"""Products with a matrix of each head, and heads put together and taken apart, against the ops' meanings."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.single_op import Inputs, cpu, reference, single_step, weight

from sotol.backends.cpu.target import Target
from sotol.errors import ModelError
from sotol.program import ops
from sotol.quant import ENCODINGS, Float32Array

# The products are those of `ops.linear`, whose tests have every encoding.
INTEGER = ["Q8_0", "Q4_1", "Q4_K"]

quickly = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
seeds = st.integers(0, 2**31)
widths = st.sampled_from([1, 5, 16, 33, 64, 100])


def numbers(seed: int, *shape: int) -> Float32Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def check(inputs: Inputs, tokens: int, target: Target, tolerance: float) -> None:
    """The CPU's result against the meaning in float64; and the same bits on 1, 2 and 5 threads."""
    steps = [single_step(tokens)]
    got = [cpu(inputs.program, steps, target, threads=n) for n in (1, 2, 5)]
    want = reference(inputs.program, steps).reshape(got[0].shape)
    np.testing.assert_allclose(got[0], want, rtol=tolerance, atol=tolerance * np.abs(want).max())
    for other in got[1:]:
        np.testing.assert_array_equal(got[0].view(np.int32), other.view(np.int32))


@pytest.mark.parametrize("encoding", ["F32", "BF16", *INTEGER])
@settings(quickly, max_examples=4)
@given(seed=seeds, tokens=st.integers(1, 40), heads=st.integers(1, 5), outputs=st.integers(1, 70), odd=st.booleans())
def test_products_of_f32(
    target: Target, encoding: str, seed: int, tokens: int, heads: int, outputs: int, odd: bool
) -> None:
    """Any number of results: what is behind a head's last one is the next head's first."""
    values = ENCODINGS[encoding].values
    width = (37 if odd else 64) if values == 1 else (1 + odd) * values
    inputs = Inputs()
    x = inputs.rows(numbers(seed, tokens, heads * width), "x").reshape("T", heads, width)
    w = weight(numbers(seed + 1, heads, outputs, width), encoding)
    ops.head_linear(x, w).reshape("T", heads * outputs)
    check(inputs, tokens, target, 1e-5)


@pytest.mark.parametrize("encoding", INTEGER)
@settings(quickly, max_examples=4)
@given(seed=seeds, tokens=st.integers(1, 40), heads=st.integers(1, 5), outputs=st.integers(1, 70))
def test_products_of_int8(target: Target, encoding: str, seed: int, tokens: int, heads: int, outputs: int) -> None:
    width = ENCODINGS[encoding].values
    values, w = numbers(seed, tokens, heads * width), weight(numbers(seed + 1, heads, outputs, width), encoding)
    inputs = Inputs()
    ops.head_linear(inputs.rows(values, "x").reshape("T", heads, width), w).reshape("T", heads * outputs)
    got = [cpu(inputs.program, [single_step(tokens)], target, threads=n, precision="int8") for n in (1, 2, 5)]
    rounded = ops.quantize.meaning(values).astype(np.float64).reshape(tokens, heads, width)
    want = np.einsum("thn,hmn->thm", rounded, w.decode().astype(np.float64)).reshape(tokens, -1)
    np.testing.assert_allclose(got[0], want, rtol=1e-5, atol=1e-5 * np.abs(want).max())
    for other in got[1:]:
        np.testing.assert_array_equal(got[0].view(np.int32), other.view(np.int32))


@pytest.mark.parametrize(("encoding", "precision"), [("F32", "f32"), ("Q8_0", "f32"), ("Q4_K", "int8")])
def test_the_bits_of_a_token_are_its_own(target: Target, encoding: str, precision: str) -> None:
    """300 tokens together, more than a piece has, against some of them alone."""
    heads, width, outputs, tokens = 3, 256, 40, 300
    x, w = numbers(1, tokens, heads * width), weight(numbers(2, heads, outputs, width), encoding)

    def product(rows: slice) -> Float32Array:
        inputs = Inputs()
        each = inputs.rows(x[rows], "x").reshape("T", heads, width)
        ops.head_linear(each, w).reshape("T", heads * outputs)
        return cpu(inputs.program, [single_step(len(x[rows]))], target, threads=2, precision=precision)

    together = product(slice(0, tokens))
    for first, count in ((0, 1), (127, 2), (200, 7), (299, 1)):
        alone = product(slice(first, first + count))
        np.testing.assert_array_equal(together[first : first + count].view(np.int32), alone.view(np.int32))


@quickly
@given(seed=seeds, tokens=st.integers(1, 21), heads=st.integers(1, 5), first=widths, second=widths)
def test_join(target: Target, seed: int, tokens: int, heads: int, first: int, second: int) -> None:
    inputs = Inputs()
    x, y = (
        inputs.rows(numbers(seed + i, tokens, heads * width), f"x{i}").reshape("T", heads, width)
        for i, width in enumerate((first, second))
    )
    ops.join(x, y).reshape("T", heads * (first + second))
    check(inputs, tokens, target, 0)


@quickly
@given(seed=seeds, tokens=st.integers(1, 21), begin=st.sampled_from([0, 1, 16, 30]), count=widths, behind=widths)
def test_part(target: Target, seed: int, tokens: int, begin: int, count: int, behind: int) -> None:
    inputs = Inputs()
    ops.part(inputs.rows(numbers(seed, tokens, begin + count + behind), "x"), begin=begin, n=count)
    check(inputs, tokens, target, 0)


@pytest.mark.parametrize(("begin", "count"), [(-1, 5), (30, 11), (0, 0), (41, 1)])
def test_parts_that_are_not_there_are_refused(target: Target, begin: int, count: int) -> None:
    inputs = Inputs()
    ops.part(inputs.rows(numbers(0, 3, 40), "x"), begin=begin, n=count)
    with pytest.raises(ModelError, match=rf"part needs numbers that there are: not {count} from {begin} on"):
        cpu(inputs.program, [single_step(3)], target)


def test_int8_for_float_heads_is_refused(target: Target) -> None:
    inputs = Inputs()
    x = ops.quantize(inputs.rows(numbers(0, 3, 64), "x").reshape("T", 2, 32))
    ops.head_linear(x, weight(numbers(1, 2, 16, 32))).reshape("T", 32)
    with pytest.raises(ModelError, match="head_linear can't read int8"):
        cpu(inputs.program, [single_step(3)], target)
