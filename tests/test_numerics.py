"""sotol.numerics against the platform's long double (64-bit mantissa), and against known bits."""

import hashlib
import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sotol import numerics

wide = pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="long double is no wider than double here")


def ulps(got: np.ndarray, exact: np.ndarray) -> float:
    """The largest error in units of the last place."""
    return float(np.max(np.abs((got.astype(np.longdouble) - exact) / np.spacing(np.abs(exact.astype(np.float64))))))


def samples(low: float, high: float, n: int = 200_000) -> np.ndarray:
    return np.random.default_rng(7).uniform(low, high, n)


@wide
@pytest.mark.parametrize(("low", "high", "bound"), [(-708, 709.7, 1), (-1, 1, 1), (-1e-9, 1e-9, 1), (-745, -708, 2)])
def test_exp_is_within_its_bound(low: float, high: float, bound: float) -> None:
    x = samples(low, high)
    assert ulps(numerics.exp(x), np.exp(x.astype(np.longdouble))) < bound


@wide
@pytest.mark.parametrize(("low", "high"), [(-744, 709), (-0.7, 0.7), (-1e-6, 1e-6)])
def test_log_is_within_one_ulp(low: float, high: float) -> None:
    x = np.exp(samples(low, high))
    assert ulps(numerics.log(x), np.log(x.astype(np.longdouble))) < 1


@wide
@pytest.mark.parametrize("angle", [1e-8, 1, 10, 1e4, 1e7])
def test_sine_and_cosine_are_within_one_ulp(angle: float) -> None:
    x = samples(-angle, angle)
    sine, cosine = numerics.sincos(x)
    assert ulps(sine, np.sin(x.astype(np.longdouble))) < 1
    assert ulps(cosine, np.cos(x.astype(np.longdouble))) < 1


@wide
def test_reduction_stays_accurate_beside_multiples_of_half_pi() -> None:
    x = np.rint(samples(1, 6.3e6)) * (np.pi / 2)
    sine, cosine = numerics.sincos(x)
    assert ulps(sine, np.sin(x.astype(np.longdouble))) < 1.5  # long double's own pi runs out of digits here
    assert ulps(cosine, np.cos(x.astype(np.longdouble))) < 1.5


def test_special_values() -> None:
    np.testing.assert_array_equal(
        numerics.exp([np.inf, -np.inf, np.nan, 710, -746, 0, -0.0]), [np.inf, 0, np.nan, np.inf, 0, 1, 1]
    )
    np.testing.assert_array_equal(
        numerics.log([0, -0.0, -1, -np.inf, np.inf, np.nan, 1]), [-np.inf, -np.inf, np.nan, np.nan, np.inf, np.nan, 0]
    )
    assert numerics.log(5e-324) == pytest.approx(math.log(5e-324), rel=1e-15)
    assert numerics.exp(np.ones((2, 0))).shape == (2, 0)
    assert numerics.log([]).shape == (0,)
    assert float(numerics.sin(1.0)) == pytest.approx(math.sin(1))
    assert float(numerics.cos(1.0)) == pytest.approx(math.cos(1))
    for bad in (np.nan, 1.1e7, -np.inf):
        with pytest.raises(ValueError, match="beyond 1e\\+07 radians"):
            numerics.sincos([0.0, bad])


def test_the_bits_are_the_same_everywhere() -> None:
    """A digest of results over a fixed grid: it must not change with the CPU, the operating system or NumPy."""
    x = (np.arange(4096) - 2048) * 0.171875
    sine, cosine = numerics.sincos(x * 1000)
    parts = [numerics.exp(x), numerics.log(np.abs(x) + 0.0078125), sine, cosine, numerics.total(sine.reshape(64, 64))]
    digest = hashlib.sha256(b"".join(p.astype("<f8").tobytes() for p in parts)).hexdigest()
    assert digest == "8c64f4d1c1a2efcbbb44d08f0789010543dbde8486be217608639a2897a1d442"


@given(hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, min_side=0), elements=st.floats(-1e6, 1e6)), st.data())
def test_total_is_close_to_the_exact_sum_and_leaves_its_argument(x: np.ndarray, data: st.DataObject) -> None:
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    before = x.copy()
    got = numerics.total(x, axis)
    np.testing.assert_array_equal(x, before)
    exact = np.apply_along_axis(math.fsum, axis, x) if x.size else x.sum(axis)
    np.testing.assert_allclose(got, exact, rtol=0, atol=1e-8)


def test_total_adds_in_the_documented_order() -> None:
    values = [1e16, 1.0, -1e16, 3.0, 0.5]
    tree = ((1e16 + 3.0) + (-1e16)) + (1.0 + 0.5)
    assert struct.pack("d", float(numerics.total(values))) == struct.pack("d", tree)
