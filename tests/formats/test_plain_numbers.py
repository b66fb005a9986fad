"""Numbers of all types in SafeTensors become float32."""

from pathlib import Path

import numpy as np
import pytest
from tests.support.folders import raw_file, write_tensors

from sotol.formats.safetensors import read_safetensors
from sotol.quant import recode


@pytest.mark.parametrize("dtype", ["f8", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"])
def test_every_kind_of_number(dtype: str, tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(-(2**31), 2**31, (5, 7)).astype(dtype)
    weight = read_safetensors(write_tensors(tmp_path / "x.safetensors", {"w": values}))["w"]
    np.testing.assert_array_equal(weight.decode(), values.astype(np.float32))
    np.testing.assert_array_equal(weight.part(2, 4).decode(), values[2:4].astype(np.float32))
    np.testing.assert_array_equal(recode(weight.encoding, weight.rows()).view("<f4"), values.astype(np.float32))


def test_a_number_beyond_float32_is_an_infinity(tmp_path: Path) -> None:
    weight = read_safetensors(write_tensors(tmp_path / "x.safetensors", {"w": np.array([1e300, -1e300, 0.1])}))["w"]
    np.testing.assert_array_equal(weight.decode(), np.array([np.inf, -np.inf, 0.1], np.float32))


def test_any_byte_but_zero_is_true(tmp_path: Path) -> None:
    header = {"w": {"dtype": "BOOL", "shape": [3], "data_offsets": [0, 3]}}
    weight = read_safetensors(raw_file(tmp_path / "x.safetensors", header, b"\x00\x01\xed"))["w"]
    assert weight.decode().tolist() == [0, 1, 1]
