"""The 32-weight encodings: the same bytes as the `gguf` package encodes, and errors within the formats' bounds."""

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sotol.quant import ENCODINGS

WEIGHTS = hnp.arrays(np.float32, (3, 64), elements=st.floats(-1000, 1000, width=32))
HALF = 2.0**-11  # relative error of a float16
TINY = 2.0**-25  # absolute error of a subnormal float16


def coded(name: str, x: np.ndarray) -> np.ndarray:
    """x encoded and decoded, in float64."""
    encoding = ENCODINGS[name]
    assert encoding.encode is not None
    assert encoding.decode is not None
    return encoding.decode(encoding.encode(x)).astype(np.float64)


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-6, 1e-2, 1.0, 1000.0]))
def test_encode_equals_gguf(name: str, seed: int, scale: float) -> None:
    x = (np.random.default_rng(seed).standard_normal((4, 96)) * scale).astype(np.float32)
    encode = ENCODINGS[name].encode
    assert encode is not None
    assert np.array_equal(encode(x), gguf.quants.quantize(x, gguf.GGMLQuantizationType[name]))


@pytest.mark.parametrize(("name", "bits"), [("Q4_0", 4), ("Q5_0", 5)])
@given(x=WEIGHTS)
def test_symmetric_bound(name: str, bits: int, x: np.ndarray) -> None:
    """Half a step, or a whole one for what lies opposite the largest weight; and the rounding of d to float16."""
    blocks = x.reshape(3, 2, 32).astype(np.float64)
    error = np.abs(coded(name, x).reshape(blocks.shape) - blocks)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1, keepdims=True), -1)
    step = np.abs(largest) / 2 ** (bits - 1)
    opposite = np.sign(blocks) != np.sign(largest)
    bound = np.where(opposite, step, step / 2) + np.abs(largest) * HALF + TINY * 2 ** (bits - 1)
    assert (error <= bound * (1 + 1e-5)).all()


@pytest.mark.parametrize(("name", "bits"), [("Q4_1", 4), ("Q5_1", 5)])
@given(x=WEIGHTS)
def test_ranged_bound(name: str, bits: int, x: np.ndarray) -> None:
    """Half a step; and the rounding of d and m to float16."""
    blocks = x.reshape(3, 2, 32).astype(np.float64)
    error = np.abs(coded(name, x).reshape(blocks.shape) - blocks)
    low, span = blocks.min(-1, keepdims=True), np.ptp(blocks, -1, keepdims=True)
    bound = span / (2**bits - 1) / 2 + (span + np.abs(low)) * HALF + TINY * 2**bits
    assert (error <= bound * (1 + 1e-5) + np.abs(blocks).max() * 1e-6).all()


@given(x=WEIGHTS)
def test_q8_0_bound(x: np.ndarray) -> None:
    """Half a step; and the rounding of d to float16."""
    blocks = x.reshape(3, 2, 32).astype(np.float64)
    error = np.abs(coded("Q8_0", x).reshape(blocks.shape) - blocks)
    largest = np.abs(blocks).max(-1, keepdims=True)
    assert (error <= (largest / 254 + largest * HALF + TINY * 127) * (1 + 1e-5)).all()


def test_q8_0_rounds_halves_away_from_zero_and_nothing_below_them() -> None:
    x = np.zeros((1, 32), np.float32)
    x[0, :6] = 127, 0.5, -0.5, np.nextafter(np.float32(0.5), np.float32(0)), 1.5, -126.5
    assert coded("Q8_0", x)[0, :6].tolist() == [127, 1, -1, 0, 2, -127]


def test_layout_of_a_block() -> None:
    """Q5_1 by hand: weight 0 is the low half of byte 0 and bit 0, weight 16 its high half and bit 16."""
    block = np.zeros(24, np.uint8)
    block[:4] = np.array([2.0, -1.0], "<f2").view(np.uint8)
    block[6], block[8] = 1, 0x5A
    split = ENCODINGS["Q5_1"].split
    decode = ENCODINGS["Q5_1"].decode
    assert split is not None
    assert decode is not None
    q = split(block).q
    assert (q[0, 0, 0], q[0, 0, 16], q.sum()) == (0xA, 0x15, 0xA + 0x15)
    assert decode(block)[[0, 16, 1]].tolist() == [19.0, 41.0, -1.0]
