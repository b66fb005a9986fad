"""SafeTensors files, judged by the format's own library: what it writes is read, what is wrong is one error."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from safetensors.numpy import save_file
from tests.support.folders import header_of, raw_file, write_tensors

from sotol.errors import FormatError, ModelNotFoundError
from sotol.formats.folder import Folder
from sotol.formats.safetensors import read_safetensors, shards_of

ARRAYS = nps.arrays(
    st.sampled_from(["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]),
    nps.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8), ARRAYS, max_size=6))
def test_what_the_library_writes(tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("x") / "x.safetensors"
    tensors.pop("__metadata__", None)
    save_file(tensors, path, {"format": "np"})
    weights = read_safetensors(path)
    assert weights.keys() == {name for name, array in tensors.items() if array.size}
    for name, weight in weights.items():
        assert weight.shape == (tensors[name].shape or (1,))
        with np.errstate(over="ignore"):
            expected = tensors[name].reshape(weight.shape).astype(np.float32)
        np.testing.assert_array_equal(weight.decode(), expected)


def test_our_files_are_valid(tmp_path: Path) -> None:
    """The writer of these tests, and spaces behind the header."""
    header, data = header_of({"a": np.arange(6.0).reshape(2, 3), "b": np.array(7, np.int8)})
    path = raw_file(tmp_path / "x.safetensors", header, data, pad=5)
    with safetensors.safe_open(path, "numpy") as judge:
        for name, weight in read_safetensors(path).items():
            np.testing.assert_array_equal(weight.decode(), judge.get_tensor(name).reshape(weight.shape))


def test_bfloat16_and_eight_bit_floats(tmp_path: Path) -> None:
    header = {
        "a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]},
        "b": {"dtype": "F8_E4M3", "shape": [3], "data_offsets": [4, 7]},
    }
    weights = read_safetensors(raw_file(tmp_path / "x.safetensors", header, b"\x80\x3f\x00\xc0\x01\x02\x03"))
    assert weights["a"].decode().tolist() == [1.0, -2.0]
    assert (weights["b"].encoding.name, weights["b"].encoding.decode) == ("F8_E4M3", None)


# ---- files that are not valid

ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "size", "message"),
    [
        ({"a": ONE}, 7, "its tensors end at byte 8 of the numbers, which are 7"),
        ({"a": ONE}, 9, "its tensors end at byte 8 of the numbers, which are 9"),
        ({"a": ONE, "b": ONE}, 8, "tensor 'b' overlaps the one before it: it begins at 0, not at 8"),
        ({"a": ONE, "b": {**ONE, "data_offsets": [4, 12]}}, 12, "tensor 'b' overlaps the one before it"),
        ({"a": ONE, "b": {**ONE, "data_offsets": [12, 20]}}, 20, "tensor 'b' does not follow the one before it"),
        ({"a": {**ONE, "data_offsets": [4, 12]}}, 12, "tensor 'a' does not follow the one before it"),
        ({"a": {**ONE, "data_offsets": [8, 0]}}, 8, "tensor 'a' is F32 of shape [2], 8 bytes, but"),
        ({"a": {**ONE, "data_offsets": [0, 4]}}, 8, "tensor 'a' is F32 of shape [2], 8 bytes, but its data_offsets"),
        ({"a": {**ONE, "data_offsets": [0, 2**64]}}, 8, "tensor 'a' has the data_offsets [0, 18446744073709551616]"),
        ({"a": {**ONE, "data_offsets": [-8, 0]}}, 8, "tensor 'a' has the data_offsets [-8, 0]"),
        ({"a": {**ONE, "data_offsets": [0, 8, 8]}}, 8, "tensor 'a' has the data_offsets [0, 8, 8]"),
        ({"a": {**ONE, "data_offsets": [False, 8]}}, 8, "tensor 'a' has the data_offsets [False, 8]"),
        ({"a": {**ONE, "data_offsets": [0, 8.0]}}, 8, "tensor 'a' has the data_offsets [0, 8.0]"),
        ({"a": {**ONE, "shape": 2}}, 8, "tensor 'a' has the shape 2"),
        ({"a": {**ONE, "shape": [-2]}}, 8, "tensor 'a' has the shape [-2]"),
        ({"a": {**ONE, "shape": [1] * 9 + [2]}}, 8, "tensor 'a' has the shape [1, 1,"),
        ({"a": {**ONE, "shape": [2**62, 2**62]}}, 8, "tensor 'a' has the shape [4611686018427387904,"),
        ({"a": {**ONE, "shape": [2**62, 2**62, 0], "data_offsets": [0, 0]}}, 0, "tensor 'a' has the shape [46116"),
        ({"a": {**ONE, "dtype": "F31"}}, 8, "tensor 'a' has the unknown dtype 'F31'; known are F64, F32"),
        ({"a": {**ONE, "dtype": ["F32"]}}, 8, "tensor 'a' has the unknown dtype"),
        ({"a": {"dtype": "F32", "shape": [2]}}, 8, "tensor 'a' is not described by dtype, shape and data_offsets"),
        ({"a": {**ONE, "more": 1}}, 8, "tensor 'a' is not described by dtype, shape and data_offsets"),
        ({"a": 1}, 8, "tensor 'a' is not described by"),
        ({"": ONE}, 8, "tensor '' has a name of 0 characters"),
        ({"a": ONE, "__metadata__": {"x": 1}}, 8, "the header's __metadata__ is not an object of texts"),
        ({"a": ONE, "__metadata__": []}, 8, "the header's __metadata__ is not an object of texts"),
        (b"[]", 8, "byte 8 is not {"),
        (b' {"a": 1}', 8, "byte 8 is not {"),
        (b'{"a": 1}\n', 8, "the header does not end with }"),
        (b'{"a": 1, "a": 2}', 8, "the header: has the key 'a' twice"),
        (b'{"a": NaN}', 8, "the header: has NaN"),
        (b'{"a": "\xff"}', 8, "the header: is not UTF-8 at byte 7"),
    ],
)
def test_what_is_refused(header: object, size: int, message: str, tmp_path: Path) -> None:
    path = raw_file(tmp_path / "x.safetensors", header, bytes(size))
    with pytest.raises(FormatError, match="^" + re.escape(f"{path}: {message}")) as error:
        read_safetensors(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, (1 << 25) + 1, 24])
def test_a_header_that_is_longer_than_the_file(length: int, tmp_path: Path) -> None:
    path = raw_file(tmp_path / "x.safetensors", {"a": 1}, length=length)
    with pytest.raises(FormatError, match=f"the header's length is {length}"):
        read_safetensors(path)


@pytest.mark.parametrize("data", [b"", b"\x02\0\0\0\0\0\0\0", b"GGUF\3\0\0\0\0\0\0\0\0"])
def test_what_is_no_such_file(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=re.escape(str(path))):
        read_safetensors(path)
    with pytest.raises(ModelNotFoundError):
        read_safetensors(tmp_path / "y.safetensors")


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (1_000_000, r"the header's length is \d+, more than the 33554432"),
        (300_000, "the header has 300000 tensors, more than"),
    ],
)
def test_more_tensors_than_any_model_has(count: int, message: str, tmp_path: Path) -> None:
    """They are counted before they are read."""
    each = ",".join(f'"{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}' for i in range(count))
    path = raw_file(tmp_path / "x.safetensors", b"{" + each.encode() + b"}", b"")
    with pytest.raises(FormatError, match=message):
        read_safetensors(path)


# ---- which files are a model's


def write_index(folder: Path, table: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))


def shard(folder: Path, name: str, *tensors: str) -> None:
    write_tensors(folder / name, {tensor: np.ones(2, np.float32) for tensor in tensors})


def test_the_order_in_which_files_are_looked_for(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    with pytest.raises(FormatError, match=r"has no \.safetensors file"):
        shards_of(folder)
    shard(tmp_path, "only.safetensors", "a")
    assert shards_of(folder) == (["only.safetensors"], None)
    shard(tmp_path, "other.safetensors", "a")
    with pytest.raises(FormatError, match=r"only\.safetensors, other\.safetensors: more than one file"):
        shards_of(folder)
    for i in (1, 2):
        shard(tmp_path, f"model-0000{i}-of-00002.safetensors", "a")
    assert shards_of(folder)[0] == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    write_index(tmp_path, {"a": "other.safetensors"})
    assert shards_of(folder) == (["other.safetensors"], {"a": "other.safetensors"})
    shard(tmp_path, "model.safetensors", "a")
    assert shards_of(folder) == (["model.safetensors"], None)


def test_a_shard_without_an_index_that_is_missing(tmp_path: Path) -> None:
    shard(tmp_path, "model-00001-of-00003.safetensors", "a")
    with pytest.raises(FormatError, match=r"model-00002-of-00003\.safetensors of 3 shards is missing"):
        shards_of(Folder(tmp_path))
    (tmp_path / "model-00001-of-00003.safetensors").rename(tmp_path / "model-00001-of-99999.safetensors")
    with pytest.raises(FormatError, match="has 99999 shards; sotol reads up to"):
        shards_of(Folder(tmp_path))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"a": "gone.safetensors"}, "weight_map names gone.safetensors, which is missing"),
        ({"a": "../x.safetensors"}, "names the file '../x.safetensors', which can't be a file of this folder"),
        ({"a": "/x.safetensors"}, "names the file '/x.safetensors', which can't be"),
        ({"a": "sub/x.safetensors"}, "names the file 'sub/x.safetensors', which can't be"),
        ({"a": "config.json"}, "weight_map names 'config.json', which is no .safetensors file"),
        ({"a": 1}, "weight_map names no file for 'a'"),
        ({}, "weight_map is missing, empty or not an object"),
        ([], "weight_map is missing, empty or not an object"),
        ({str(i): f"{i}.safetensors" for i in range(5000)}, "weight_map names 5000 files"),
    ],
)
def test_an_index_that_is_wrong(table: object, message: str, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for place in (tmp_path, tmp_path / "sub"):
        shard(place, "x.safetensors", "a")
    write_index(tmp_path, table)
    with pytest.raises(FormatError, match=re.escape(message)):
        shards_of(Folder(tmp_path))
