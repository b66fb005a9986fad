"""TQ1_0, TQ2_0, Q1_0, Q2_0: ternary weights come back exactly, the bytes are GGML's."""

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sotol.quant import ENCODINGS


def encoded(name: str, x: np.ndarray) -> np.ndarray:
    encode = ENCODINGS[name].encode
    assert encode is not None
    return encode(x)


def coded(name: str, x: np.ndarray) -> np.ndarray:
    decode = ENCODINGS[name].decode
    assert decode is not None
    return decode(encoded(name, x))


@pytest.mark.parametrize("name", ["TQ1_0", "TQ2_0"])
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-6, 1e-2, 1.0, 1000.0]))
def test_encode_equals_gguf(name: str, seed: int, scale: float) -> None:
    x = (np.random.default_rng(seed).standard_normal((3, 512)) * scale).astype(np.float32)
    assert np.array_equal(encoded(name, x), gguf.quants.quantize(x, gguf.GGMLQuantizationType[name]))


@pytest.mark.parametrize("name", ["TQ1_0", "TQ2_0", "Q2_0"])
def test_halves_are_rounded_away_from_zero_and_nothing_below_them(name: str) -> None:
    x = np.zeros((1, 256), np.float32)
    half, below = np.float32(0.5), np.nextafter(np.float32(0.5), np.float32(0))
    x[0, ::64], x[0, 1::64], x[0, 2::64], x[0, 3::64], x[0, 4::64] = 1, half, -half, below, -below
    assert coded(name, x)[0, :5].tolist() == [1, 1, -1, 0, 0]


@pytest.mark.parametrize(("name", "steps"), [("TQ1_0", (-1, 0, 1)), ("TQ2_0", (-1, 0, 1)), ("Q1_0", (-1, 1))])
@given(picks=hnp.arrays(np.uint8, (2, 512)), exponent=st.integers(-14, 15))
def test_weights_of_such_models_come_back(name: str, steps: tuple[int, ...], picks: np.ndarray, exponent: int) -> None:
    """All of one magnitude, a float16, or 0."""
    x = np.array(steps, np.float32)[picks % len(steps)] * np.float32(1.25 * 2.0**exponent)
    np.testing.assert_array_equal(coded(name, x), x)


def test_a_block_of_q1_0_by_hand() -> None:
    """Bit j of byte n is weight 8 n + j; 0 is minus."""
    block = np.zeros(18, np.uint8)
    block[:2], block[2 + 3] = np.array([2.0], "<f2").view(np.uint8), 0b0100_0001
    decode = ENCODINGS["Q1_0"].decode
    assert decode is not None
    values = decode(block)
    assert np.flatnonzero(values == 2.0).tolist() == [24, 30]
    assert np.count_nonzero(values == -2.0) == 126


def test_a_block_of_q2_0_by_hand() -> None:
    """Bit pairs from the lowest: 0, 1, 2, 3 stand for -1, 0, 1, 2."""
    block = np.full(18, 0b0101_0101, np.uint8)
    block[:2], block[2 + 5] = np.array([0.5], "<f2").view(np.uint8), 0b11_10_01_00
    decode = ENCODINGS["Q2_0"].decode
    assert decode is not None
    values = decode(block)
    assert values[20:24].tolist() == [-0.5, 0, 0.5, 1]
    assert np.count_nonzero(values) == 3


@given(x=hnp.arrays(np.float32, (2, 128), elements=st.floats(-100, 100, width=32)))
def test_q1_0_is_the_best_of_its_kind(x: np.ndarray) -> None:
    """Signs, and the mean magnitude: no other factor has a smaller sum of squared errors."""
    error = ((coded("Q1_0", x).astype(np.float64) - x) ** 2).sum(-1)
    sign = np.where(x >= 0, 1.0, -1.0)
    for factor in (0.98, 1.02):
        other = factor * np.abs(x.astype(np.float64)).mean(-1, keepdims=True)
        assert (error <= ((other * sign - x) ** 2).sum(-1) * (1 + 1e-6) + 1e-9).all()


@given(x=hnp.arrays(np.float32, (2, 256), elements=st.floats(-100, 100, width=32)))
def test_two_bits_err_by_half_a_step(x: np.ndarray) -> None:
    for name in ("TQ1_0", "TQ2_0", "Q2_0"):
        largest = np.abs(x.reshape(2, -1, ENCODINGS[name].values)).max(-1, keepdims=True)
        error = np.abs(coded(name, x) - x).reshape(*largest.shape[:2], -1)
        assert (error <= largest * (0.5 + 2.0**-10) + 2.0**-24).all()
