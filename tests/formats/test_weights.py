"""Weights: name, encoding, shape and bytes must fit each other."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sotol.formats
from sotol.errors import ModelError
from sotol.formats import Weight
from sotol.formats.files import files_of, in_memory
from sotol.models.binding.sources import as_floats
from sotol.quant import ENCODINGS, UInt8Array


def test_exported_names_exist() -> None:
    assert all(hasattr(sotol.formats, name) for name in sotol.formats.__all__)


def test_rows_and_numbers() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 64)).astype(np.float32)
    weight = Weight.from_values("w", x, "Q8_0")
    assert weight.shape == (2, 3, 64)
    assert weight.rows().shape == (6, 68)
    assert np.shares_memory(weight.rows(), weight.rows(1, 4))
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
        Weight.from_bytes("w", ENCODINGS["Q4_0"], shape, np.zeros(size, np.uint8))


def matrix(*shape: int, encoding: str = "Q8_0") -> Weight:
    return Weight.from_values("w", np.random.default_rng(1).standard_normal(shape).astype(np.float32), encoding)


def test_numbers_are_in_the_order_of_inputs() -> None:
    order = np.array([2, 0, 1], np.int32)
    weight = Weight.from_values("w", np.array([[30, 10, 20], [6, 4, 5]], np.float32), "F32")
    assert replace(weight, order=order).decode().tolist() == [[10, 20, 30], [4, 5, 6]]
    assert replace(weight, order=order).part(1, 2).decode().tolist() == [[4, 5, 6]]


def test_experts_have_orders_of_their_own() -> None:
    orders = np.array([[2, 0, 1], [0, 1, 2], [1, 2, 0]], np.int32)
    values = np.arange(18, dtype=np.float32).reshape(3, 2, 3)
    experts = replace(Weight.from_values("w", values, "F32"), order=orders)
    expected = np.stack([values[i][:, np.argsort(orders[i])] for i in range(3)])
    np.testing.assert_array_equal(experts.decode(), expected)
    np.testing.assert_array_equal(experts.part(1, 3).decode(), expected[1:])
    np.testing.assert_array_equal(experts.expert(2).decode(), expected[2])
    np.testing.assert_array_equal(experts.expert(2).part(1, 2).decode(), expected[2, 1:])
    np.testing.assert_array_equal(as_floats(experts).decode(), expected)
    np.testing.assert_array_equal(
        as_floats(experts.part(1, 3)).rows(1, 3).view(np.float32), expected.reshape(-1, 3)[3:5]
    )


def test_identity_is_not_the_name() -> None:
    one, other = matrix(2, 32), matrix(2, 32)
    assert one == one
    assert one != other
    assert len({one, other, one}) == 2


@given(st.data())
def test_a_run_of_rows_is_those_rows(data: st.DataObject) -> None:
    weight = matrix(5, 3, 64)
    first = data.draw(st.integers(0, 15))
    end = data.draw(st.integers(first, 15))
    np.testing.assert_array_equal(weight.rows(first, end), weight.rows()[first:end])


@given(st.data())
def test_a_part_of_a_part_is_a_part(data: st.DataObject) -> None:
    """Of rows, of experts and, in whole blocks, of a vector's numbers."""
    weight = data.draw(st.sampled_from([matrix(7, 64), matrix(5, 3, 32), matrix(6 * 32)]))
    unit = 32 if len(weight.shape) == 1 else 1
    count = weight.shape[0] // unit
    a = data.draw(st.integers(0, count - 1))
    b = data.draw(st.integers(a + 1, count))
    c = data.draw(st.integers(0, b - a - 1))
    d = data.draw(st.integers(c + 1, b - a))
    part = weight.part(a * unit, b * unit)
    assert part.name == f"w[{a * unit}:{b * unit}]"
    np.testing.assert_array_equal(part.decode(), weight.decode()[a * unit : b * unit])
    again = part.part(c * unit, d * unit)
    np.testing.assert_array_equal(again.decode(), weight.decode()[(a + c) * unit : (a + d) * unit])
    assert again.nbytes == again.rows().size


def test_experts() -> None:
    weight, biases = matrix(4, 3, 64), matrix(4, 32, encoding="F32")
    assert (weight.row_count, weight.row_bytes, weight.nbytes) == (12, 68, 12 * 68)
    for i in range(4):
        assert weight.expert(i).shape == (3, 64)
        np.testing.assert_array_equal(weight.expert(i).decode(), weight.decode()[i])
        assert biases.expert(i).shape == (32,)
        np.testing.assert_array_equal(biases.part(1, 4).expert(max(i - 1, 0)).decode(), biases.decode()[max(i, 1)])


@pytest.mark.parametrize("bad", [(-1, 2), (2, 2), (3, 1), (0, 5)])
def test_parts_and_rows_that_are_not_there(bad: tuple[int, int]) -> None:
    weight = matrix(4, 64)
    with pytest.raises(ValueError, match=rf"^w: part {bad[0]} to {bad[1]} of 4$"):
        weight.part(*bad)
    if bad != (2, 2):  # no rows are rows
        with pytest.raises(ValueError, match=rf"^w: rows {bad[0]} to {bad[1]} of 4$"):
            weight.rows(*bad)
    with pytest.raises(ValueError, match="w: part 4 to 5 of 4"):
        weight.expert(4)
    with pytest.raises(ValueError, match="w: a vector has no experts"):
        matrix(64).expert(0)
    with pytest.raises(ValueError, match="w: numbers 16 to 32 are not whole blocks of Q8_0"):
        matrix(64).part(16, 32)


class Doubled:
    """Q8_0 rows whose factors and numbers are stored apart, as in other formats, and joined on demand."""

    def __init__(self, factors: UInt8Array, numbers: UInt8Array) -> None:
        self.arrays = (factors, numbers)  # [rows, 2], [rows, 32]
        self.asked: list[tuple[int, int]] = []

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.arrays[0]), 34

    def rows(self, first: int, end: int) -> UInt8Array:
        self.asked.append((first, end))
        return np.concatenate([part[first:end] for part in self.arrays], axis=1)


def test_rows_may_be_made_of_several_tensors() -> None:
    plain = matrix(40, 32)
    source = Doubled(plain.rows()[:, :2].copy(), plain.rows()[:, 2:].copy())
    weight = Weight("w", ENCODINGS["Q8_0"], (40, 32), source)
    np.testing.assert_array_equal(weight.part(7, 20).decode(), plain.decode()[7:20])
    assert source.asked == [(7, 20)]
    assert files_of([weight]) == []
    np.testing.assert_array_equal(in_memory(weight.part(3, 9)).decode(), plain.decode()[3:9])
    with pytest.raises(ValueError, match=r"w: Q8_0 of shape .* is 40 rows of 34 bytes, .* at row 1 of 40 rows of 34"):
        Weight("w", ENCODINGS["Q8_0"], (40, 32), source, start=1)
    with pytest.raises(ValueError, match=r"w: Q4_0 of shape .* is 40 rows of 18 bytes, which are not at row 0 of 40"):
        Weight("w", ENCODINGS["Q4_0"], (40, 32), source)


def test_encodings_that_are_only_described() -> None:
    weight = Weight.from_bytes("w", ENCODINGS["Q8_1"], (2, 32), np.zeros(80, np.uint8))
    with pytest.raises(
        ModelError, match="w is stored as Q8_1, which sotol can't decode; it can F32, F16, BF16, F64, I8"
    ):
        weight.decode()
    for name in ("Q8_1", "I8", "Q9"):
        with pytest.raises(ValueError, match=f"w: no encoder for '{name}'; there is one for F32"):
            Weight.from_values("w", np.zeros(32, np.float32), name)
