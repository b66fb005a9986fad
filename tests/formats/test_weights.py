"""Weights hold together: name, encoding, shape and bytes."""

import mmap
import sys
from pathlib import Path

import numpy as np
import pytest

import sotol.formats
from sotol.errors import ModelError
from sotol.formats import Weight
from sotol.formats.weights import release_pages
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


@pytest.mark.parametrize(("start", "end"), [(0, 1 << 20), (5, (1 << 20) - 7), (100, 200), (4096, 4097)])
def test_released_pages_are_read_again(tmp_path: Path, start: int, end: int) -> None:
    path, written = tmp_path / "weights", np.random.default_rng(0).integers(0, 256, 1 << 20, np.uint8)
    written.tofile(path)
    with path.open("rb") as file:
        mapped = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    release_pages(mapped[start:end].reshape(1, -1))
    np.testing.assert_array_equal(mapped, written)
    release_pages(written)  # of no file: nothing happens


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_released_pages_leave_memory(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    np.ones(64 << 20, np.uint8).tofile(path)
    with path.open("rb") as file:
        mapped = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    assert mapped.sum() == len(mapped)
    before = resident_of_files()
    release_pages(mapped)
    assert before - resident_of_files() > 60 << 20


def resident_of_files() -> int:
    """Bytes of files that are in this process's memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssFile"))
