"""SafeTensors files that are written, read by our reader and by the format's own library."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from sotol.errors import SotolError
from sotol.formats.checkpoint_folder import read_shards
from sotol.formats.folder import Folder
from sotol.formats.safetensors import INDEX, shards_of
from sotol.formats.safetensors_writer import NewTensor, write_safetensors
from sotol.quant import Float32Array

ARRAYS = {
    name: np.random.default_rng(i).standard_normal(shape).astype(np.float32)
    for i, (name, shape) in enumerate({"a.weight": (4, 8), "b.bias": (5,), "c": (2, 3, 4), "d": (16, 16)}.items())
}


def tensor(name: str, values: Float32Array) -> NewTensor:
    rows = np.ascontiguousarray(values.reshape(len(values), -1)).view(np.uint8)
    return NewTensor(name, "F32", values.shape, lambda: iter(rows))


def test_one_file(tmp_path: Path) -> None:
    tensors = [tensor(name, values) for name, values in ARRAYS.items()]
    assert write_safetensors(tmp_path, tensors, 1 << 20) == (tmp_path / "model.safetensors",)
    found = load_file(tmp_path / "model.safetensors")
    assert list(found) == sorted(ARRAYS)
    for name, values in ARRAYS.items():
        np.testing.assert_array_equal(found[name], values)
    length = int.from_bytes((tmp_path / "model.safetensors").read_bytes()[:8], "little")
    assert length % 8 == 0


def test_shards_with_an_index(tmp_path: Path) -> None:
    tensors = [tensor(name, values) for name, values in ARRAYS.items()]
    paths = write_safetensors(tmp_path, tensors, 200)
    assert [path.name for path in paths] == [*(f"model-{i:05}-of-00003.safetensors" for i in (1, 2, 3)), INDEX]
    folder = Folder(tmp_path)
    weights = read_shards(folder, *shards_of(folder))
    for name, values in ARRAYS.items():
        np.testing.assert_array_equal(weights[name].decode(), values)
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(values.nbytes for values in ARRAYS.values())


def test_what_can_not_be_written(tmp_path: Path) -> None:
    one = tensor("a", ARRAYS["d"])
    with pytest.raises(ValueError, match="two tensors have one name"):
        write_safetensors(tmp_path, [one, one], 1 << 20)
    short = one._replace(pieces=lambda: iter([np.zeros(64, np.uint8)]))
    with pytest.raises(ValueError, match="tensor 'a' has 1024 bytes, and 64 were given"):
        write_safetensors(tmp_path, [short], 1 << 20)
    with pytest.raises(SotolError, match=r"writing .*: No such file or directory"):
        write_safetensors(tmp_path / "none", [one], 1 << 20)
    assert not list(tmp_path.iterdir())
