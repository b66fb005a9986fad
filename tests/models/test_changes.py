"""What a conversion does to weights: to their numbers, by NumPy, in any encoding and by any run of rows."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sotol.errors import FormatError
from sotol.formats import Weight, read_gguf, write_gguf
from sotol.formats.files import files_of
from sotol.models.changes import pairs_together, plus_one, tiled_heads, tiled_inputs
from sotol.quant import Float32Array

LETTERS = {"H": 3, "d": 8, "g": 2, "v": 6, "e": 32}


def matrix(*shape: int, encoding: str = "F32") -> Weight:
    return Weight.from_values("w", np.random.default_rng(1).standard_normal(shape).astype(np.float32), encoding)


def heads_paired(x: Float32Array) -> Float32Array:
    """By the words: channel i of a head comes to 2 i, channel i + half of it to 2 i + 1."""
    out = np.empty_like(x)
    for head in range(3):
        for i in range(4):
            out[8 * head + 2 * i] = x[8 * head + i]
            out[8 * head + 2 * i + 1] = x[8 * head + 4 + i]
    return out


def heads_tiled(x: Float32Array) -> Float32Array:
    """By the words: head j of group g comes to j * groups + g."""
    out = np.empty_like(x)
    for group in range(2):
        for j in range(3):
            before, after = group * 3 + j, j * 2 + group
            out[32 * after : 32 * after + 32] = x[32 * before : 32 * before + 32]
    return out


@pytest.mark.parametrize("encoding", ["F32", "BF16", "Q8_0"])
def test_pairs_together(encoding: str) -> None:
    weight, bias = matrix(24, 64, encoding=encoding), matrix(24)
    changed = pairs_together(weight, LETTERS)
    assert (changed.name, changed.encoding, changed.shape) == ("w", weight.encoding, (24, 64))
    np.testing.assert_array_equal(changed.decode(), heads_paired(weight.decode()))
    np.testing.assert_array_equal(pairs_together(bias, LETTERS).decode(), heads_paired(bias.decode()))


@pytest.mark.parametrize("encoding", ["F32", "BF16", "Q8_0"])
def test_tiled_heads_and_inputs(encoding: str) -> None:
    rows, columns = matrix(192, 64, encoding=encoding), matrix(5, 192, encoding=encoding)
    np.testing.assert_array_equal(tiled_heads("g", "v", "e")(rows, LETTERS).decode(), heads_tiled(rows.decode()))
    changed = tiled_inputs("g", "v", "e")(columns, LETTERS)
    assert changed.encoding is columns.encoding
    np.testing.assert_array_equal(changed.decode(), heads_tiled(columns.decode().T).T)
    with pytest.raises(ValueError, match="w: heads of 32 are not whole blocks of Q4_K"):
        tiled_inputs("g", "v", "e")(matrix(5, 768, encoding="Q4_K"), {**LETTERS, "v": 24})


def test_plus_one() -> None:
    weight = matrix(24, encoding="BF16")
    changed = plus_one(weight, LETTERS)
    assert changed.encoding.name == "F32"
    np.testing.assert_array_equal(changed.decode(), weight.decode() + 1)


@given(st.data())
def test_any_run_of_rows(data: st.DataObject) -> None:
    weight = matrix(24, 32)
    changed = data.draw(st.sampled_from([pairs_together(weight, LETTERS), pairs_together(weight.part(0, 24), LETTERS)]))
    first = data.draw(st.integers(0, 24))
    end = data.draw(st.integers(first, 24))
    np.testing.assert_array_equal(changed.rows(first, end), changed.rows()[first:end])


def test_a_file_is_read_when_rows_are_wanted(tmp_path: Path) -> None:
    """And that it was cut short meanwhile is an error like any other."""
    path = tmp_path / "m.gguf"
    write_gguf(path, {}, [matrix(192, 64)])
    weight = read_gguf(path).weights["w"]
    changes = [pairs_together(weight, LETTERS), tiled_inputs("g", "v", "e")(weight, {**LETTERS, "v": 2})]
    assert all(files_of([changed]) == files_of([weight]) for changed in changes)
    os.truncate(path, 1000)
    for changed in changes:
        with pytest.raises(FormatError, match="was changed while it was read"):
            changed.rows()
