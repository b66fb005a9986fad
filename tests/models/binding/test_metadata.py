"""Metadata with types and ranges: what is wrong is named."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sotol.errors import ModelError
from sotol.models.binding.metadata import Metadata

KINDS = ("sliding", "full")


def fields(value: object) -> Metadata:
    return Metadata({"arch.key": value}, "arch")


@given(st.integers(1, 2**31 - 1))
def test_whole_numbers_and_lists_of_one_number_are_read(value: int) -> None:
    assert fields(value).integer("key") == fields([value] * 3).integer("key") == value


@pytest.mark.parametrize("value", [0, -1, 2**31, True, 1.0, "1", [1, 2], []])
def test_other_things_are_no_whole_number(value: object) -> None:
    with pytest.raises(ModelError, match=re.escape(f"arch.key is {str(value)[:40]!r}, not a whole number")):
        fields(value).integer("key")


def test_least_and_default() -> None:
    assert fields(0).integer("key", least=0) == 0
    assert fields(5).integer("other", 7) == 7
    assert fields(5).has("key")
    assert not fields(5).has("other")


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ModelError, match=r"metadata arch\.other is missing"):
        fields(5).integer("other")


@pytest.mark.parametrize("value", [0, 0.0, -1.0, float("inf"), float("nan"), True, "1", [1.0]])
def test_other_things_are_no_positive_number(value: object) -> None:
    with pytest.raises(ModelError, match=r"arch\.key is .*, not a positive number"):
        fields(value).number("key")


def test_numbers() -> None:
    assert fields(2).number("key") == 2.0
    assert fields(0.0).number("key", zero=True) == 0.0
    assert fields(0.0).number("other", 0.5) == 0.5


def test_lists_of_numbers() -> None:
    assert fields([1, 2.5]).numbers("key", 2) == (1.0, 2.5)
    for wrong in ([1.0], [1.0, 0.0], [1.0, -2.0], [1.0, float("nan")], [1.0, True], [1.0, "2"], 1.0, "ab"):
        with pytest.raises(ModelError, match=r"arch\.key is .*, not 2 positive numbers"):
            fields(wrong).numbers("key", 2)


def test_text() -> None:
    assert fields("yarn").text("key", "none") == "yarn"
    assert fields("yarn").text("other", "none") == "none"
    with pytest.raises(ModelError, match=r"arch\.key is '5', not text"):
        fields(5).text("key", "none")


@given(st.integers(0, 9), st.integers(1, 30))
def test_a_period_leaves_out_each_nth_layer(period: int, layers: int) -> None:
    flags = fields(period).layer_flags("key", layers, 6, KINDS)
    assert flags == tuple(period == 0 or (i + 1) % period != 0 for i in range(layers))


@given(st.lists(st.booleans(), min_size=1, max_size=9))
def test_a_list_says_it_for_each_layer(flags: list[bool]) -> None:
    assert fields(flags).layer_flags("key", len(flags), 6, KINDS) == tuple(flags)
    assert fields([int(flag) for flag in flags]).layer_flags("key", len(flags), 6, KINDS) == tuple(flags)


@pytest.mark.parametrize("value", [[True], ["a", "b"], -1, "x", 2.0])
def test_other_things_are_no_layer_flags(value: Any) -> None:
    with pytest.raises(ModelError, match=r"metadata arch\.key is"):
        fields(value).layer_flags("key", 2, 6, KINDS)


@given(st.integers(0, 9), st.lists(st.integers(0, 2**31 - 1), min_size=3, max_size=3))
def test_a_number_for_each_layer(one: int, each: list[int]) -> None:
    assert fields(one).integers("key", 3, least=0) == (one,) * 3
    assert fields(each).integers("key", 3, least=0) == tuple(each)
    assert fields(each).integers("key", 2, least=0) == tuple(each[:2])
    assert fields(each).integers("other", 2, 7) == (7, 7)


@pytest.mark.parametrize("value", [[1, 2], [1, 2, 0], [1, 2, True], [1, 2, 3.0], [], "abc", 0])
def test_other_things_are_no_numbers_of_layers(value: Any) -> None:
    with pytest.raises(ModelError, match=r"metadata arch\.key is .*, not a whole number"):
        fields(value).integers("key", 3)


PLACES = {"key": ("new.inner", "old"), "kinds": ("layer_types",)}


def config(**values: object) -> Metadata:
    return Metadata(values, "arch", PLACES)


def test_a_config_has_keys_in_other_places() -> None:
    """The first place that says something counts; null says nothing."""
    assert config(new={"inner": 3}, old=4).integer("key") == 3
    assert config(new={"inner": None}, old=4).integer("key") == 4
    assert config(new=None, old=4).integer("key") == 4
    assert config(new=[], old=4).has("key")
    assert not config(new={}, key=4).has("key")
    assert not config(**{"arch.key": 4}).has("key")
    assert config(old=4).integer("unknown", 5) == 5


def test_what_is_wrong_in_a_config_has_its_name_there() -> None:
    with pytest.raises(ModelError, match=r"^config\.json's new\.inner is missing"):
        config().integer("key")
    with pytest.raises(ModelError, match=r"^config\.json's new\.inner is 'x', not a whole number"):
        config(old="x").integer("key")


def test_kinds_of_layers() -> None:
    assert config(layer_types=["sliding", "full"]).layer_flags("kinds", 2, 6, KINDS) == (True, False)
    with pytest.raises(ModelError, match=r"config\.json's layer_types is .*, not truth values of 2 layers"):
        config(layer_types=["sliding", "chunked"]).layer_flags("kinds", 2, 6, KINDS)


def test_what_a_config_must_not_say() -> None:
    config(act="silu").expect("act", "silu")
    config(act=None).expect("act", "silu")
    config().expect("act", "silu")
    Metadata({"act": "relu"}, "arch").expect("act", "silu")  # a GGUF file has no such key
    with pytest.raises(ModelError, match=r"^config\.json's act is 'relu': sotol runs arch with 'silu' or 'swish'$"):
        config(act="relu").expect("act", "silu", "swish")
