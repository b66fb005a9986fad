"""Numbers that no kernel reads become float32 as they are asked for."""

from pathlib import Path

import numpy as np
import pytest
from tests.support.folders import raw_file, write_tensors

from sotol.formats import Weight
from sotol.formats.files import files_of
from sotol.formats.plain_numbers import as_float32
from sotol.formats.safetensors import read_safetensors


@pytest.mark.parametrize("dtype", ["f8", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"])
def test_every_kind_of_number(dtype: str, tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(-(2**31), 2**31, (5, 7)).astype(dtype)
    weight = read_safetensors(write_tensors(tmp_path / "x.safetensors", {"w": values}))["w"]
    converted = as_float32(weight)
    assert (converted.encoding.name, converted.shape) == ("F32", (5, 7))
    np.testing.assert_array_equal(converted.decode(), values.astype(np.float32))
    np.testing.assert_array_equal(converted.part(2, 4).decode(), values[2:4].astype(np.float32))
    assert files_of([converted]) == files_of([weight])


def test_a_number_beyond_float32_is_an_infinity(tmp_path: Path) -> None:
    weight = read_safetensors(write_tensors(tmp_path / "x.safetensors", {"w": np.array([1e300, -1e300, 0.1])}))["w"]
    np.testing.assert_array_equal(as_float32(weight).decode(), np.array([np.inf, -np.inf, 0.1], np.float32))


def test_any_byte_but_zero_is_true(tmp_path: Path) -> None:
    header = {"w": {"dtype": "BOOL", "shape": [3], "data_offsets": [0, 3]}}
    weight = read_safetensors(raw_file(tmp_path / "x.safetensors", header, b"\x00\x01\xed"))["w"]
    assert as_float32(weight).decode().tolist() == [0, 1, 1]


def test_what_kernels_read_stays_as_it_is() -> None:
    weight = Weight.from_values("w", np.ones(4, np.float32), "BF16")
    assert as_float32(weight) is weight
