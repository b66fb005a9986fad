"""Importance matrices in files: what is written comes back, llama.cpp's older form is read, broken files are told."""

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from sotol.errors import FormatError, SotolError
from sotol.formats import read_gguf
from sotol.formats.gguf_writer import write_gguf
from sotol.formats.weights import Weight
from sotol.tools.importance import Importance, read_importance, write_importance

SUMS = {
    "blk.0.attn_q.weight": np.array([[8, 2, 0, 4]], np.float32),
    "blk.0.ffn_up_exps.weight": np.array([[1, 2], [3, 4], [0, 0]], np.float32),
}
COUNTS = {"blk.0.attn_q.weight": np.array([4], np.float32), "blk.0.ffn_up_exps.weight": np.array([1, 2, 0], np.float32)}
MATRIX = Importance(SUMS, COUNTS, 3, 512, ("text.txt",))


def dat(entries: int = 1, values: bytes = struct.pack("<3f", 2, 4, 6), calls: int = 2, tail: bytes = b"") -> bytes:
    """A file of the older form."""
    name = b"blk.0.attn_q.weight"
    head = struct.pack("<ii", entries, len(name)) + name + struct.pack("<ii", calls, 3)
    return head + values + tail


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    write_importance(tmp_path / "i.gguf", MATRIX)
    found = read_importance(tmp_path / "i.gguf")
    assert (found.chunks, found.chunk_size, found.datasets) == (3, 512, ("text.txt",))
    assert found.file == str(tmp_path / "i.gguf")
    for name in SUMS:
        ours, theirs = MATRIX.of(name), found.of(name)
        assert ours is not None
        np.testing.assert_array_equal(ours, theirs)


def test_tensors_as_llama_cpp_has_them(tmp_path: Path) -> None:
    write_importance(tmp_path / "i.gguf", MATRIX)
    checkpoint = read_gguf(tmp_path / "i.gguf")
    assert checkpoint.metadata["general.type"] == "imatrix"
    assert checkpoint.types["imatrix.datasets"] == "string[]"
    assert checkpoint.types["imatrix.chunk_count"] == "uint32"
    assert checkpoint.weights["blk.0.ffn_up_exps.weight.in_sum2"].shape == (3, 2)
    assert checkpoint.weights["blk.0.ffn_up_exps.weight.counts"].shape == (3, 1)


def test_the_gguf_package_reads_it(tmp_path: Path) -> None:
    write_importance(tmp_path / "i.gguf", MATRIX)
    reader = gguf.GGUFReader(tmp_path / "i.gguf")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert reader.fields["imatrix.datasets"].contents() == ["text.txt"]
    assert list(tensors["blk.0.ffn_up_exps.weight.in_sum2"].shape) == [2, 3]  # columns first
    assert list(tensors["blk.0.ffn_up_exps.weight.counts"].shape) == [1, 3]
    np.testing.assert_array_equal(tensors["blk.0.attn_q.weight.in_sum2"].data, SUMS["blk.0.attn_q.weight"])


def test_means_of_squares() -> None:
    """An expert that no token took counts 1 everywhere."""
    assert MATRIX.of("blk.0.attn_q.weight") is not None
    assert list(MATRIX.of("blk.0.attn_q.weight")) == [2, 0.5, 0, 1]  # type: ignore[arg-type]
    assert list(MATRIX.of("blk.0.ffn_up_exps.weight")) == [1, 2, 1.5, 2, 1, 1]  # type: ignore[arg-type]
    assert MATRIX.of("output.weight") is None


def test_the_older_form(tmp_path: Path) -> None:
    path = tmp_path / "i.dat"
    path.write_bytes(dat(tail=struct.pack("<ii", 7, 5) + b"a.txt"))
    found = read_importance(path)
    assert list(found.of("blk.0.attn_q.weight")) == [1, 2, 3]  # type: ignore[arg-type]
    assert (found.chunks, found.datasets) == (7, ("a.txt",))
    path.write_bytes(dat())  # llama.cpp before it noted the text
    assert read_importance(path).datasets == ()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\1",
        b"GGUF",
        dat(entries=0),
        dat(entries=2),
        dat(entries=1 << 30),
        dat()[:-1],
        dat(tail=b"\1\0\0\0\xff\xff\xff\x7f"),
        dat(values=struct.pack("<3f", 1, float("nan"), 1)),
        dat(values=struct.pack("<3f", 1, -1, 1)),
    ],
)
def test_broken_files(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "i.dat"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"i\.dat"):
        read_importance(path)


@pytest.mark.parametrize(("sums", "counts"), [(1.0, 1e-45), (1.0, 0.5), (float("inf"), 1.0), (-1.0, 1.0)])
def test_numbers_that_are_no_sums_and_counts(tmp_path: Path, sums: float, counts: float) -> None:
    """Of a weight whose name has two lines, which the message has not."""
    weights = [
        Weight.from_values("a\nb.weight.in_sum2", np.full((1, 4), sums, np.float32), "F32"),
        Weight.from_values("a\nb.weight.counts", np.full((1, 1), counts, np.float32), "F32"),
    ]
    write_gguf(tmp_path / "i.gguf", {"general.type": "imatrix"}, weights)
    with pytest.raises(FormatError, match=r"i\.gguf: a b\.weight has numbers that are no sums of squares") as caught:
        read_importance(tmp_path / "i.gguf")
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(SotolError, match="there is no such file"):
        read_importance(tmp_path / "i.gguf")


def test_a_model_is_no_importance_matrix(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", {"general.type": "model"}, [Weight.from_values("a", np.ones(4, np.float32), "F32")])
    with pytest.raises(FormatError, match="no importance matrix"):
        read_importance(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("sums", "counts"), [("F16", "F32"), ("F32", "F16")], ids=["sums that are not F32", "counts that are not F32"]
)
def test_tensors_of_another_form(tmp_path: Path, sums: str, counts: str) -> None:
    weights = [
        Weight.from_values("a.weight.in_sum2", np.ones((1, 4), np.float32), sums),
        Weight.from_values("a.weight.counts", np.ones((1, 1), np.float32), counts),
    ]
    write_gguf(tmp_path / "i.gguf", {"general.type": "imatrix"}, weights)
    with pytest.raises(FormatError, match="not F32"):
        read_importance(tmp_path / "i.gguf")


def test_sums_without_counts(tmp_path: Path) -> None:
    weights = [Weight.from_values("a.weight.in_sum2", np.ones((1, 4), np.float32), "F32")]
    write_gguf(tmp_path / "i.gguf", {"general.type": "imatrix"}, weights)
    with pytest.raises(FormatError, match="has no counts"):
        read_importance(tmp_path / "i.gguf")
