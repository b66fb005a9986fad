"""Files in parts, as llama.cpp names them, and parts as one file: nothing is lost, nothing half done is left."""

from pathlib import Path

import gguf
import numpy as np
import pytest
from tests.support.checkpoints import mixed_encodings, random_checkpoint

from sotol.errors import SotolError
from sotol.formats import Checkpoint, read_gguf, write_gguf
from sotol.tools.parts import merge_parts, split_file


@pytest.fixture
def model(tmp_path: Path) -> Path:
    wide = {"embedding_length": 256, "feed_forward_length": 256, "attention.key_length": 128}
    checkpoint = mixed_encodings(random_checkpoint("llama", wide))
    more = {"general.alignment": 64, "tokenizer.ggml.tokens": ["a", b"\xff".decode(errors="surrogateescape")]}
    types = {"half": "float64", "few": "int16[]"}
    write_gguf(
        tmp_path / "m.gguf",
        {**checkpoint.metadata, **more, "half": 0.1, "few": [1, 2]},
        checkpoint.weights.values(),
        types=types,
    )
    return tmp_path / "m.gguf"


def same(one: Checkpoint, other: Checkpoint) -> None:
    assert (one.metadata, one.types) == (other.metadata, other.types)
    assert list(one.weights) == list(other.weights)
    for a, b in zip(one.weights.values(), other.weights.values(), strict=True):
        assert (a.encoding, a.shape) == (b.encoding, b.shape)
        assert np.array_equal(a.rows(), b.rows())


def test_to_parts_and_back_is_the_same_file(model: Path, tmp_path: Path) -> None:
    parts = split_file(model, tmp_path / "parts", part_weights=6)
    assert [part.name for part in parts] == [f"parts-{i:05}-of-00004.gguf" for i in range(1, 5)]
    assert [len(gguf.GGUFReader(part).tensors) for part in parts] == [6, 6, 6, 2]
    same(read_gguf(model), read_gguf(parts[2]))
    merged = merge_parts(parts[1], tmp_path / "again.gguf")
    assert merged.read_bytes() == model.read_bytes()


def test_parts_by_size_and_parts_of_parts(model: Path, tmp_path: Path) -> None:
    parts = split_file(model, tmp_path / "large", part_bytes=300_000)
    sizes = [sum(int(tensor.n_bytes) for tensor in gguf.GGUFReader(part).tensors) for part in parts]
    assert len(parts) > 1
    assert max(sizes) <= 300_000
    smaller = split_file(parts[0], tmp_path / "small", part_bytes=150_000, part_weights=3)
    assert len(smaller) > len(parts)
    same(read_gguf(model), read_gguf(smaller[0]))


def test_what_can_not_be_done_is_said(model: Path, tmp_path: Path) -> None:
    with pytest.raises(SotolError, match="20 weights are no more than one part may have: there is nothing to split"):
        split_file(model, tmp_path / "parts", part_weights=20)
    with pytest.raises(SotolError, match="is no part of a split model: there is nothing to merge"):
        merge_parts(model, tmp_path / "again.gguf")
    parts = split_file(model, tmp_path / "parts", part_weights=10)
    with pytest.raises(
        SotolError, match=r"parts-00001-of-00002\.gguf: is there already: give another path, or --force"
    ):
        split_file(model, tmp_path / "parts", part_weights=10)
    split_file(model, tmp_path / "parts", part_weights=10, force=True)
    with pytest.raises(SotolError, match=r"m\.gguf: is there already"):
        merge_parts(parts[0], model)
    parts[1].unlink()
    with pytest.raises(SotolError, match=r"parts-00002-of-00002\.gguf is missing beside it"):
        merge_parts(parts[0], tmp_path / "again.gguf")


def test_what_is_read_is_never_replaced(model: Path, tmp_path: Path) -> None:
    parts = split_file(model, tmp_path / "p", part_weights=8)
    before = [part.read_bytes() for part in parts]
    with pytest.raises(SotolError, match=r"p-00002-of-\d+\.gguf: is what is read, and would be lost"):
        merge_parts(parts[0], parts[1], force=True)
    with pytest.raises(SotolError, match=r"p-00001-of-\d+\.gguf: is what is read, and would be lost"):
        split_file(parts[0], tmp_path / "p", part_weights=8, force=True)
    assert [part.read_bytes() for part in parts] == before


def test_ctrl_c_leaves_no_part(model: Path, tmp_path: Path) -> None:
    def stop(_: str, done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        split_file(model, tmp_path / "parts", part_weights=2, progress=stop)
    assert list(tmp_path.iterdir()) == [model]
