"""Weights hold together: name, encoding, shape and bytes."""

import numpy as np
import pytest

import sotol.formats
from sotol.errors import ModelError
from sotol.formats import Weight
from sotol.quant import ENCODINGS


def test_exported_names_exist() -> None:
    assert all(hasattr(sotol.formats, name) for name in sotol.formats.__all__)


def test_rows_and_numbers() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 64)).astype(np.float32)
    weight = Weight.from_values("w", x, "Q8_0")
    assert weight.shape == (2, 3, 64)
    assert weight.rows().shape == (6, 68)
    assert np.shares_memory(weight.rows(), weight.data)
    assert weight.decode().shape == (2, 3, 64)
    assert np.abs(weight.decode() - x).max() < 0.02


@pytest.mark.parametrize(
    ("shape", "size", "message"),
    [
        ((), 18, r"w: shape \(\) does not suit Q4_0, whose rows are one or more blocks of 32"),
        ((2, 0), 18, r"w: shape \(2, 0\) does not suit"),
        ((2, 33), 36, r"w: shape \(2, 33\) does not suit"),
        ((2, 32), 35, r"w: Q4_0 of shape \(2, 32\) is 36 flat bytes, not uint8 of shape \(35,\)"),
    ],
)
def test_shape_and_bytes_must_belong_together(shape: tuple[int, ...], size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Weight("w", ENCODINGS["Q4_0"], shape, np.zeros(size, np.uint8))


def test_encodings_that_are_only_described() -> None:
    weight = Weight("w", ENCODINGS["MXFP4"], (2, 32), np.zeros(34, np.uint8))
    with pytest.raises(ModelError, match="w is stored as MXFP4, which sotol can't decode; it can F32, F16, BF16, Q4_0"):
        weight.decode()
    for name in ("MXFP4", "Q9"):
        with pytest.raises(ValueError, match=f"w: no encoder for '{name}'; there is one for F32"):
            Weight.from_values("w", np.zeros(32, np.float32), name)
