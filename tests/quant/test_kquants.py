"""K-quants: errors within the formats' bounds, and a scale search that earns its keep."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sotol.quant import ENCODINGS
from sotol.quant.kquants import pack_scales, pack_signed_scales, split_scales, split_signed_scales

WEIGHTS = hnp.arrays(np.float32, (2, 256), elements=st.floats(-100, 100, width=32))
NORMAL = np.random.default_rng(7).standard_normal((32, 1024)).astype(np.float32)
TINY = 2.0**-25  # absolute error of a subnormal float16


def coded(name: str, x: np.ndarray) -> np.ndarray:
    """x encoded and decoded, in float64."""
    encoding = ENCODINGS[name]
    assert encoding.encode is not None
    assert encoding.decode is not None
    return encoding.decode(encoding.encode(x)).astype(np.float64)


def rms(name: str, x: np.ndarray) -> float:
    return float(np.sqrt(np.mean((coded(name, x) - x) ** 2)))


@given(scales=hnp.arrays(np.uint8, (3, 8), elements=st.integers(0, 63)), seed=st.integers(0, 99))
def test_packed_scales_come_back(scales: np.ndarray, seed: int) -> None:
    minimums = np.random.default_rng(seed).integers(0, 64, (3, 8), np.uint8)
    ours = split_scales(pack_scales(scales, minimums))
    assert np.array_equal(ours[0], scales)
    assert np.array_equal(ours[1], minimums)


@pytest.mark.parametrize(("name", "bits"), [("Q4_K", 4), ("Q5_K", 5)])
@given(x=WEIGHTS)
def test_line_bound(name: str, bits: int, x: np.ndarray) -> None:
    """A step and a quarter of the block's coarsest group, and half a step of its minimums (63 for the lowest).

    A step for what the fit may leave beyond its first or last number, and the quarter because scales, too, have only
    63 steps.
    """
    groups = x.reshape(2, 8, 32).astype(np.float64)
    error = np.abs(coded(name, x).reshape(groups.shape) - groups)
    low = np.minimum(groups.min(-1), 0)
    step = ((groups.max(-1) - low) / (2**bits - 1)).max(-1)
    bound = 1.25 * step + np.abs(low).max(-1) / 126 + np.abs(groups).max((-1, -2)) * 2.0**-10 + TINY * 63 * 2**bits
    assert (error <= bound[:, None, None]).all()


@given(x=WEIGHTS)
def test_q6_k_bound(x: np.ndarray) -> None:
    """A step and a half of the block's coarsest group: one for what lies opposite its largest weight."""
    error = np.abs(coded("Q6_K", x) - x).reshape(2, 256)
    step = np.abs(x).max(-1) / 32
    assert (error <= (1.5 * step + TINY * 128 * 32)[:, None]).all()


@given(scales=hnp.arrays(np.int8, (3, 16), elements=st.integers(-32, 31)))
def test_packed_signed_scales_come_back(scales: np.ndarray) -> None:
    np.testing.assert_array_equal(split_signed_scales(pack_signed_scales(scales)), scales)


@given(x=WEIGHTS)
def test_q2_k_bound(x: np.ndarray) -> None:
    """A step and a half of the block's coarsest group, and half a step of its minimums (15 for the lowest)."""
    groups = x.reshape(2, 16, 16).astype(np.float64)
    error = np.abs(coded("Q2_K", x).reshape(groups.shape) - groups)
    low = np.minimum(groups.min(-1), 0)
    step = ((groups.max(-1) - low) / 3).max(-1)
    bound = 1.5 * step + np.abs(low).max(-1) / 30 + np.abs(groups).max((-1, -2)) * 2.0**-10 + TINY * 15 * 4
    assert (error <= bound[:, None, None]).all()


@given(x=WEIGHTS)
def test_q3_k_bound(x: np.ndarray) -> None:
    """A step and a half of the block's coarsest group: one for what lies opposite its largest weight."""
    error = np.abs(coded("Q3_K", x) - x).reshape(2, 256)
    assert (error <= (1.5 * np.abs(x).max(-1) / 4 + TINY * 32 * 4)[:, None]).all()


@pytest.mark.parametrize(("name", "most", "finer"), [("Q2_K", 0.277, "Q3_K"), ("Q3_K", 0.155, "Q4_K")])
def test_error_of_few_bits_on_normal_weights(name: str, most: float, finer: str) -> None:
    assert rms(finer, NORMAL) < rms(name, NORMAL) < most


@pytest.mark.parametrize(
    ("name", "coarser", "most"), [("Q4_K", "Q4_1", 0.0725), ("Q5_K", "Q5_1", 0.0368), ("Q6_K", "Q5_1", 0.018)]
)
def test_error_on_normal_weights(name: str, coarser: str, most: float) -> None:
    """K-quants err less than the older encodings of no fewer bits, by what their search finds."""
    assert rms(name, NORMAL) < most
    assert rms(name, NORMAL) < rms(coarser, NORMAL)


def spread(x: np.ndarray, top: int) -> np.ndarray:
    """x as lines over the range of each 32 numbers, with scales and minimums of 6 bits: no search."""
    groups = x.reshape(-1, 8, 32)
    low = np.minimum(groups.min(-1), 0)
    scale, minimum = (groups.max(-1) - low) / top, -low
    d, m = (values.max(-1, keepdims=True) / 63 for values in (scale, minimum))
    step, bottom = (d * np.rint(scale / d))[..., None], (m * np.rint(minimum / m))[..., None]
    result: np.ndarray = np.clip(np.rint((groups + bottom) / step), 0, top) * step - bottom
    return result.reshape(x.shape)


@pytest.mark.parametrize(("name", "top"), [("Q4_K", 15), ("Q5_K", 31)])
def test_the_search_beats_spreading_the_range(name: str, top: int) -> None:
    assert rms(name, NORMAL) < 0.95 * float(np.sqrt(np.mean((spread(NORMAL, top) - NORMAL) ** 2)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K") for value in (0.0, 1.0, -1.0, 1e-30)),
        *((name, 5e6) for name in ("Q3_K", "Q4_K", "Q5_K", "Q6_K")),
    ],
)
def test_constant_blocks(name: str, value: float) -> None:
    x = np.full(512, value, np.float32)
    assert np.allclose(coded(name, x), x, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"])
def test_many_blocks_are_encoded_as_each_alone(name: str) -> None:
    encode = ENCODINGS[name].encode
    assert encode is not None
    x = np.random.default_rng(3).standard_normal((2050, 256)).astype(np.float32)
    stored = encode(x)
    assert np.array_equal(stored[[0, 2047, 2048, 2049]], np.stack([encode(x[i]) for i in (0, 2047, 2048, 2049)]))
