"""Options by name, with values as text."""

from dataclasses import fields
from typing import Any

import pytest

from sotol import Sampling
from sotol.cli.options import Effort
from sotol.cli.parameters import LOADING, known, merged, parse_bias, parse_memory, parse_parameter, parse_template
from sotol.tokenizers.effort import LEVELS


def test_every_option_of_sampling_has_its_name() -> None:
    shown = [field for field in fields(Sampling) if field.name != "n"]  # `sotol run` gives one answer
    assert known() == [*(field.name for field in shown), *LOADING]
    for field in shown:
        texts = {"stop": "x", "logit_bias": "1=2", "ignore_eos": "true", "json": "true", "schema": "name, age int"}
        text = texts.get(field.name, "1")
        name, value = parse_parameter(field.name, text)
        assert name == field.name
        Sampling.of(**{name: value})


@pytest.mark.parametrize(
    ("name", "text", "own", "value"),
    [
        ("temp", "0.5", "temperature", 0.5),
        ("Top-K", "7", "top_k", 7),
        ("num_ctx", "2048", "ctx", 2048),
        ("num_thread", "0", "threads", None),
        ("num_predict", "-1", "max_tokens", -1),
        ("seed", "-2", "seed", -2),
        ("ignore_eos", "Off", "ignore_eos", False),
        ("stop", "a b", "stop", ["a b"]),
        ("json", "on", "json", True),
        ("regex", "a b+", "regex", "a b+"),
        ("grammar", "none", "grammar", None),
        ("schema", '{"type": "null"}', "schema", '{"type": "null"}'),
        ("logit_bias", "3=-inf", "logit_bias", {3: float("-inf")}),
        ("parallel", "4", "sequences", 4),
        ("num_batch", "128", "step_tokens", 128),
        ("kv-memory", "2GB", "kv_memory", 2 * 10**9),
        ("prefix_cache", "off", "prefix_cache", False),
        ("backend", "reference", "backend", "reference"),
    ],
)
def test_values(name: str, text: str, own: str, value: object) -> None:
    assert parse_parameter(name, text) == (own, value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("tmp", "1", "no parameter 'tmp': did you mean temp"),
        ("nonsense", "1", "no parameter 'nonsense': the parameters are temperature, "),
        ("top_k", "many", "top_k is 'many'; it must be a whole number"),
        ("min_p", "", "min_p is ''; it must be a number"),
        ("ignore_eos", "maybe", "ignore_eos is 'maybe'; it must be true or false"),
        ("logit_bias", "x", "--logit-bias is 'x'"),
        ("sequences", "few", "sequences is 'few'; it must be a whole number"),
        ("kv_memory", "much", "kv_memory is 'much'; it must be a size as 2GB, or a share as 25%"),
        ("n", "2", "no parameter 'n'"),
    ],
)
def test_what_is_none(name: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_parameter(name, text)


@pytest.mark.parametrize(
    ("text", "memory"),
    [
        ("1000000", 10**6), ("0", 0), ("5B", 5), ("1.5 kB", 1500), ("300m", 300 * 10**6), ("2GB", 2 * 10**9),
        (" 2 gib ", 2**31), ("1Ti", 2**40), ("25%", 0.25), ("12.5 %", 0.125), ("100%", 1.0),
    ],
)  # fmt: skip
def test_sizes_and_shares(text: str, memory: float) -> None:
    assert parse_memory(text) == memory
    assert type(parse_memory(text)) is type(memory)


@pytest.mark.parametrize(
    "text", ["", "GB", "%", "-1GB", "1e9", "2 GBs", "1ib", "2%%", "1..5G", "9" * 400, "٢GB", "inf"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=r"it must be a size as 2GB, or a share as 25%"):
        parse_memory(text)


def test_several_values() -> None:
    pairs: list[tuple[str, Any]] = [
        ("seed", 1), ("stop", ["a"]), ("seed", 2), ("stop", ["b"]), ("logit_bias", {1: 2.0}), ("logit_bias", {3: 4.0}),
    ]  # fmt: skip
    assert merged(pairs) == {"seed": 2, "stop": ["a", "b"], "logit_bias": {1: 2.0, 3: 4.0}}


def test_biases() -> None:
    assert parse_bias(["1=2.5", "3=-inf"]) == {1: 2.5, 3: float("-inf")}
    for wrong in ("", "1", "=1", "a=1", "1=b"):
        with pytest.raises(ValueError, match="--logit-bias is"):
            parse_bias([wrong])


def test_variables_of_a_template() -> None:
    given = ["a=true", "b=text", "c=[1, 2]", "d=", "e=x=y"]
    assert parse_template(given) == {"a": True, "b": "text", "c": [1, 2], "d": "", "e": "x=y"}
    for wrong in ("", "a", "=1", "a b=1", "messages=1", "self=1"):
        with pytest.raises(ValueError, match="it must be NAME=VALUE"):
            parse_template([wrong])


def test_levels_of_effort_are_those_of_templates() -> None:
    assert tuple(Effort) == LEVELS
