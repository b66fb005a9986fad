"""Text of arguments as JSON of the declared types."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sotol.answers.tools import Tool
from sotol.answers.values import as_json, escaped, types_of

SCHEMA = {
    "$defs": {
        "Color": {"enum": ["red", 3, None]},
        "loop": {"$ref": "#/$defs/loop"},
        "a/b": {"type": "null"},
        **{str(i): {"oneOf": [{"$ref": f"#/$defs/{i + 1}"}] * 9} for i in range(30)},
        "30": {"type": "null"},
    },
    "properties": {
        "text": {"type": "string"},
        "both": {"type": ["string", "null"]},
        "any": {},
        "color": {"$ref": "#/$defs/Color"},
        "one": {"anyOf": [{"type": "integer"}, {"$ref": "#/$defs/a~1b"}]},
        "constant": {"const": True},
        "loop": {"$ref": "#/$defs/loop"},
        "lost": {"$ref": "#/$defs/none"},
        "bomb": {"anyOf": [{"$ref": "#/$defs/0"}] * 9},
        "wrong": 3,
        "odd": {"type": {}, "enum": 3, "anyOf": 3},
    },
}


@pytest.mark.parametrize(
    ("parameter", "types"),
    [
        ("text", {"string"}),
        ("both", {"string", "null"}),
        ("any", set()),
        ("color", {"string", "integer", "null"}),
        ("one", {"integer", "null"}),
        ("constant", {"boolean"}),
        ("loop", set()),
        ("lost", set()),
        ("bomb", {"null"}),
        ("wrong", set()),
        ("odd", set()),
        ("nowhere", set()),
    ],
)
def test_types(parameter: str, types: set[str]) -> None:
    assert types_of(Tool("f", SCHEMA), parameter) == types
    assert types_of(Tool("f", {}), parameter) == set()


@pytest.mark.parametrize(
    ("text", "types", "wanted"),
    [
        ("2", {"string"}, '"2"'),
        ("2", {"integer"}, "2"),
        ("2", {"number"}, "2"),
        (" 2.50\n", {"number"}, "2.50"),
        ("2", set(), "2"),
        ("2", {"string", "null"}, '"2"'),
        ("null", {"string", "null"}, "null"),
        ("None", {"null", "string"}, "null"),
        ("True", {"boolean"}, "true"),
        ("false", set(), "false"),
        ("True", {"string"}, '"True"'),
        ("two", {"integer"}, '"two"'),
        ("[1, {}]", {"array"}, "[1, {}]"),
        ("[1", {"array"}, '"[1"'),
        ("[1]", {"object"}, "[1]"),
        ('{"a": "é"}', {"object"}, '{"a": "é"}'),
        ('"quoted"', {"string"}, '"\\"quoted\\""'),
        ('"quoted"', set(), '"\\"quoted\\""'),
        (" a\n", {"string", "integer"}, '" a\\n"'),
        ("", {"integer"}, '""'),
        ("['a', {'b': True}]", {"array"}, '["a", {"b": true}]'),
        ("['a'", {"array"}, "\"['a'\""),
        ("f()", {"object"}, '"f()"'),
        ("NaN", {"number"}, '"NaN"'),
        ("-Infinity", set(), '"-Infinity"'),
        ("[" * 10**5, {"array"}, f'"{"[" * 10**5}"'),
    ],
)
def test_values(text: str, types: set[str], wanted: str) -> None:
    assert as_json(text, frozenset(types)) == wanted


@given(st.text(), st.frozensets(st.sampled_from(["string", "integer", "number", "array", "null", "boolean"])))
def test_any_text_becomes_json(text: str, types: frozenset[str]) -> None:
    value = json.loads(as_json(text, types), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    if types == {"string"}:
        assert value == text


@given(st.lists(st.text()))
def test_texts_are_escaped_in_any_cuts(parts: list[str]) -> None:
    assert json.loads(f'"{"".join(map(escaped, parts))}"') == "".join(parts)
