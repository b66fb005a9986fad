"""The IQ encodings of one to three bits: their grids, the signs that they leave out, and what their encoders find."""

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sotol.quant import ENCODINGS, GRID_FITS
from sotol.quant.grid_search import grid_rows, nearest_run
from sotol.quant.grids import GRIDS, digits_of
from sotol.quant.iquants import even_signs, signs_at

NORMAL = np.random.default_rng(7).standard_normal((16, 1024)).astype(np.float32)
# The encodings, and the root mean square of their errors on normal weights: what the search finds now.
ERRORS = {"IQ2_XXS": 0.33, "IQ2_XS": 0.29, "IQ2_S": 0.242, "IQ3_XXS": 0.181, "IQ3_S": 0.132, "IQ1_S": 0.455,
          "IQ1_M": 0.42}  # fmt: skip
THEIRS = {"iq2_xxs": "IQ2_XXS", "iq2_xs": "IQ2_XS", "iq2_s": "IQ2_S", "iq3_xxs": "IQ3_XXS", "iq3_s": "IQ3_S",
          "iq1": "IQ1_S"}  # fmt: skip


def coded(name: str, x: np.ndarray) -> np.ndarray:
    encoding = ENCODINGS[name]
    assert encoding.encode is not None
    assert encoding.decode is not None
    return encoding.decode(encoding.encode(x)).astype(np.float64)


@pytest.mark.parametrize("name", GRIDS)
def test_grids_are_ggufs(name: str) -> None:
    judge = getattr(gguf.quants, THEIRS[name])
    judge.init_grid()
    digits = digits_of(name)
    assert digits.shape == judge.grid_shape
    np.testing.assert_array_equal(np.array(judge.grid_map)[digits], judge.grid.reshape(judge.grid_shape))


def test_the_eighth_sign_makes_their_number_even() -> None:
    signs = np.unpackbits(even_signs()[:, None], axis=1)
    assert (signs.sum(1) % 2 == 0).all()
    np.testing.assert_array_equal(even_signs() & 127, np.arange(128))


def test_signs_are_spread_over_bytes() -> None:
    spread = signs_at(3)[[0b1000_0001]].view(np.uint8)
    assert spread.tolist() == [8, 0, 0, 0, 0, 0, 0, 8]


@given(x=hnp.arrays(np.float32, (7, 4), elements=st.floats(-10, 80, width=16)))
def test_the_nearest_run(x: np.ndarray) -> None:
    fit, one = GRID_FITS["IQ3_XXS"], np.ones(7, np.float32)
    numbers = np.array(fit.tables[0], np.float32)
    distances = ((x[:, None].astype(np.float64) - numbers[digits_of("iq3_xxs")]) ** 2).sum(-1)
    first, second, _ = nearest_run(fit, np.ascontiguousarray(x.T), np.ones((4, 7), np.float32), one, fit.tables[0])
    found = distances[np.arange(7), grid_rows("iq3_xxs").ranks[second, first]]
    np.testing.assert_allclose(found, distances.min(-1), rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("name", ERRORS)
def test_error_on_normal_weights(name: str) -> None:
    assert np.sqrt(np.mean((coded(name, NORMAL) - NORMAL) ** 2)) < ERRORS[name]


@pytest.mark.parametrize("name", ERRORS)
@settings(max_examples=20)
@given(x=hnp.arrays(np.float32, (2, 256), elements=st.floats(-100, 100, width=32)))
def test_encoding_is_better_than_nothing(name: str, x: np.ndarray) -> None:
    """The squared error of a block is at most that of zeros, up to the rounding of scales."""
    error, whole = ((coded(name, x) - x) ** 2).sum(-1), (x.astype(np.float64) ** 2).sum(-1)
    assert (error <= 1.01 * whole + 1e-9).all()


@pytest.mark.parametrize("name", ERRORS)
def test_zeros_stay_zeros(name: str) -> None:
    assert not coded(name, np.zeros(512, np.float32)).any()


@pytest.mark.parametrize("name", ERRORS)
def test_many_blocks_are_encoded_as_each_alone(name: str) -> None:
    encode = ENCODINGS[name].encode
    assert encode is not None
    x = np.random.default_rng(3).standard_normal((258, 256)).astype(np.float32)
    stored = encode(x)
    assert np.array_equal(stored[[0, 255, 256, 257]], np.stack([encode(x[i]) for i in (0, 255, 256, 257)]))
