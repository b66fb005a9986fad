"""What a conversion does to weights: to their numbers, by NumPy, in any encoding and by any run of rows."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sotol.errors import FormatError, ModelError
from sotol.formats import Weight, read_gguf, write_gguf
from sotol.formats.files import files_of
from sotol.models.binding.changes import (
    by_part,
    decay_rates,
    head_rows,
    in_model_order,
    in_turn,
    pairs_together,
    plus_one,
    tiled_heads,
    tiled_inputs,
    times,
    turned_heads,
    undone,
)
from sotol.models.binding.sources import as_floats
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


@pytest.mark.parametrize(("encoding", "heads"), [("Q8_0", 12), ("Q4_K", 16)])
def test_inputs_of_heads_that_are_no_whole_blocks(encoding: str, heads: int) -> None:
    """Heads of 16: no bit moves, and activations will be put into the order that numbers have."""
    tile, letters = tiled_inputs("g", "v", "e"), {**LETTERS, "e": 16, "v": heads}
    columns = matrix(5, 16 * heads, encoding=encoding)
    changed = tile(columns, letters)
    assert changed.order is not None
    np.testing.assert_array_equal(changed.rows(), columns.rows())
    plain = tile(Weight.from_values("w", columns.decode(), "F32"), letters)
    assert plain.order is None
    np.testing.assert_array_equal(changed.decode(), plain.decode())
    np.testing.assert_array_equal(undone(tile)(changed, letters).decode(), columns.decode())


def test_inputs_of_an_order_of_their_own_keep_it() -> None:
    order = np.random.default_rng(2).permutation(64).astype(np.int32)
    weight = replace(matrix(24, 64), order=order)
    changed = pairs_together(weight, LETTERS)
    assert changed.order is order
    np.testing.assert_array_equal(changed.decode(), heads_paired(weight.decode()))


@pytest.mark.parametrize("width", [32, 31])
def test_heads_whose_inputs_have_an_order_of_their_own(width: int) -> None:
    """No block moves: only the order is another, so heads need not be whole blocks."""
    tile, letters = tiled_inputs("g", "v", "e"), {**LETTERS, "e": width}
    stored = matrix(5, 192, encoding="Q8_0") if width == 32 else matrix(5, 186)
    weight = replace(stored, order=np.random.default_rng(2).permutation(stored.shape[1]).astype(np.int32))
    plain = Weight.from_values("w", weight.decode(), "F32")
    changed = tile(weight, letters)
    np.testing.assert_array_equal(changed.rows(), weight.rows())
    np.testing.assert_array_equal(changed.decode(), tile(plain, letters).decode())
    np.testing.assert_array_equal(undone(tile)(changed, letters).decode(), weight.decode())


@pytest.mark.parametrize("encoding", ["F32", "BF16", "Q8_0"])
def test_rows_of_heads_and_their_transpose(encoding: str) -> None:
    """Three heads of 8 rows each, of which 2 to 6 are wanted."""
    weight = matrix(24, 64, encoding=encoding)
    heads = weight.decode().reshape(3, 8, 64)[:, 2:7]
    for apart, shape in ((True, (3, 5, 64)), (False, (15, 64))):
        rows = head_rows(weight, 3, 2, 7, apart=apart)
        assert (rows.encoding, rows.shape) == (weight.encoding, shape)
        np.testing.assert_array_equal(rows.decode(), heads.reshape(shape))
    turned = turned_heads(weight, 3, 2, 7)
    assert (turned.encoding.name, turned.shape) == ("BF16" if encoding == "BF16" else "F32", (3, 64, 5))
    np.testing.assert_array_equal(turned.decode(), heads.swapaxes(1, 2))


def test_plus_one() -> None:
    weight = matrix(24, encoding="BF16")
    changed = plus_one(weight, LETTERS)
    assert changed.encoding.name == "F32"
    np.testing.assert_array_equal(changed.decode(), weight.decode() + 1)


@given(st.data())
def test_any_run_of_rows(data: st.DataObject) -> None:
    weight = matrix(24, 32)
    whole = weight.part(0, 24)
    changed = data.draw(
        st.sampled_from(
            [pairs_together(weight, LETTERS), pairs_together(whole, LETTERS), turned_heads(weight, 3, 1, 8)]
        )
    )
    first = data.draw(st.integers(0, changed.row_count))
    end = data.draw(st.integers(first, changed.row_count))
    np.testing.assert_array_equal(changed.rows(first, end), changed.rows()[first:end])


def test_a_file_is_read_when_rows_are_wanted(tmp_path: Path) -> None:
    """And that it was cut short meanwhile is an error like any other."""
    path = tmp_path / "m.gguf"
    write_gguf(path, {}, [matrix(192, 64)])
    weight = read_gguf(path).weights["w"]
    changes = [pairs_together(weight, LETTERS), tiled_inputs("g", "v", "e")(weight, {**LETTERS, "v": 2})]
    changes += [head_rows(weight, 3, 0, 9), turned_heads(weight, 3, 0, 9)]
    assert all(files_of([changed]) == files_of([weight]) for changed in changes)
    os.truncate(path, 1000)
    for changed in changes:
        with pytest.raises(FormatError, match="was changed while it was read"):
            changed.rows()


@pytest.mark.parametrize("encoding", ["F32", "Q8_0"])
def test_a_change_is_undone(encoding: str) -> None:
    rows, columns, vector = matrix(192, 64, encoding=encoding), matrix(5, 192, encoding=encoding), matrix(24)
    letters = {**LETTERS, "d": 64}
    for change, weight in (
        (pairs_together, rows),
        (pairs_together, matrix(192)),
        (tiled_heads("g", "v", "e"), rows),
        (tiled_inputs("g", "v", "e"), columns),
    ):
        changed = change(weight, letters)
        assert not np.array_equal(changed.decode(), weight.decode())
        np.testing.assert_array_equal(undone(change)(changed, letters).decode(), weight.decode())
    np.testing.assert_allclose(
        undone(plus_one)(plus_one(vector, letters), letters).decode(), vector.decode(), atol=1e-7
    )


def test_a_change_that_can_not_be_undone_is_named() -> None:
    def odd_change(weight: Weight, _: object) -> Weight:
        return weight

    with pytest.raises(ModelError, match="can't undo the change odd_change of weights"):
        undone(odd_change)


@pytest.mark.parametrize("encoding", ["F32", "BF16", "Q8_0"])
def test_tiled_heads_may_come_after_other_rows(encoding: str) -> None:
    weight = matrix(10 + 192, 32, encoding=encoding)
    changed, values = tiled_heads("g", "v", "e")(weight, LETTERS).decode(), weight.decode()
    np.testing.assert_array_equal(changed[:10], values[:10])
    np.testing.assert_array_equal(changed[10:], heads_tiled(values[10:]))
    each = matrix(6)  # a number for each head
    np.testing.assert_array_equal(tiled_heads("g", "v")(each, LETTERS).decode(), each.decode()[[0, 3, 1, 4, 2, 5]])


@pytest.mark.parametrize("encoding", ["F32", "Q8_0"])
def test_rows_by_part(encoding: str) -> None:
    """Three times two rows of one part and four of the other: first all six of the one."""
    weight = matrix(18, 32, encoding=encoding)
    order = [0, 1, 6, 7, 12, 13, *range(2, 6), *range(8, 12), *range(14, 18)]
    changed = by_part(weight, 3, (2, 4))
    np.testing.assert_array_equal(changed.decode(), weight.decode()[order])
    np.testing.assert_array_equal(changed.part(6, 10).decode(), weight.decode()[2:6])
    bias = matrix(18)
    np.testing.assert_array_equal(by_part(bias, 3, (2, 4)).decode(), bias.decode()[order])


def test_rates_of_decay_are_minus_powers_of_e() -> None:
    weight = matrix(5, encoding="BF16")
    changed = decay_rates(weight, LETTERS)
    assert changed.encoding.name == "F32"
    np.testing.assert_allclose(changed.decode(), -np.exp(weight.decode()), rtol=1e-6)
    both = in_turn(decay_rates, plus_one)(weight, LETTERS)
    np.testing.assert_array_equal(both.decode(), changed.decode() + np.float32(1))


@pytest.mark.parametrize("encoding", ["F32", "BF16", "Q8_0", "Q4_K"])
def test_floats_are_in_the_models_order_of_inputs(encoding: str) -> None:
    """And so are matrices that are transposed: their inputs become rows."""
    values = np.random.default_rng(3).normal(size=(6, 256)).astype(np.float32)
    stored = Weight.from_values("w", values, encoding)
    shuffled = replace(stored, order=np.random.default_rng(4).permutation(256).astype(np.int32))
    for weight in (stored, shuffled):
        floats = as_floats(weight)
        assert (floats.encoding.name, floats.order) == ("F32", None)
        np.testing.assert_array_equal(floats.decode(), weight.decode())
        np.testing.assert_array_equal(floats.part(2, 5).decode(), weight.decode()[2:5])
        assert in_model_order(weight).order is None
        assert (in_model_order(weight) is weight) == (weight is stored)
        np.testing.assert_array_equal(in_model_order(weight).decode(), weight.decode())
        apart = head_rows(weight, 2, 1, 3, apart=True)
        assert apart.order is None  # a product of heads has no place for one
        np.testing.assert_array_equal(apart.decode(), weight.decode().reshape(2, 3, 256)[:, 1:])
        np.testing.assert_array_equal(head_rows(weight, 2, 1, 3).decode(), weight.decode()[[1, 2, 4, 5]])
        turned = turned_heads(weight, 2, 1, 3).decode()
        np.testing.assert_array_equal(turned, weight.decode().reshape(2, 3, 256)[:, 1:].transpose(0, 2, 1))


@pytest.mark.parametrize("encoding", ["F32", "BF16", "Q8_0"])
def test_rows_times_factors(encoding: str) -> None:
    """One for all, or one for each, in F32, by any run of rows."""
    weight, each = matrix(6, 32, encoding=encoding), np.linspace(0.5, 3, 6, dtype=np.float32)
    np.testing.assert_array_equal(times(weight, 0.75).decode(), weight.decode() * np.float32(0.75))
    multiplied = times(weight, each)
    assert multiplied.encoding.name == "F32"
    np.testing.assert_array_equal(multiplied.part(2, 5).decode(), weight.decode()[2:5] * each[2:5, None])
    np.testing.assert_array_equal(times(matrix(7), 0.3).decode(), matrix(7).decode() * np.float32(0.3))
