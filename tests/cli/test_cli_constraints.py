"""What an answer must be, said on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Sotol

from sotol.cli.constraints import grammar_of, parse_schema


def short(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


@pytest.mark.parametrize(
    ("text", "properties"),
    [
        ("name", {"name": {"type": "string"}}),
        ("name, age int", {"name": {"type": "string"}, "age": {"type": "integer"}}),
        ("a float,b bool , c str", {"a": {"type": "number"}, "b": {"type": "boolean"}, "c": {"type": "string"}}),
        (
            "name: the full name, in capitals\nage int: in years\n",
            {
                "name": {"type": "string", "description": "the full name, in capitals"},
                "age": {"type": "integer", "description": "in years"},
            },
        ),
    ],
)
def test_fields_are_a_schema(text: str, properties: dict[str, Any]) -> None:
    assert json.loads(parse_schema(text)) == short(properties)


def test_a_schema_may_be_json_or_a_file(tmp_path: Path) -> None:
    text = ' {"type": "null"}'
    assert parse_schema(text) == text
    path = tmp_path / "schema"
    path.write_text(text)
    assert parse_schema(str(path)) == text


@pytest.mark.parametrize("text", ["", "no/such.json", "name age", "name integer", "a-b", "a,,b c"])
def test_what_is_no_schema(text: str) -> None:
    with pytest.raises(ValueError, match="it must be JSON, a file that there is, or fields: 'name, age int'"):
        parse_schema(text)


def test_a_field_has_one_meaning() -> None:
    with pytest.raises(ValueError, match="the schema has the field a twice"):
        parse_schema("a, a int")


def test_a_grammar_comes_from_a_file_or_from_the_line(tmp_path: Path) -> None:
    path = tmp_path / "grammar"
    path.write_text('root ::= "a"')
    assert grammar_of(str(path), None) == grammar_of(None, 'root ::= "a"') == 'root ::= "a"'
    assert grammar_of(None, None) is None
    with pytest.raises(ValueError, match="--grammar and --grammar-string are given"):
        grammar_of("a", "b")


@pytest.mark.parametrize(
    ("options", "begins", "ends"),
    [
        (("--schema", "colour, rgb int"), "{", "}"),
        (("--json-output",), "{", ""),
        (("--regex", "It is (blue|red), I think[.]"), "It is ", ", I think."),
        (("--grammar-string", 'root ::= "The " ("sky" | "sea") "!"'), "The s", "!"),
        (("-o", "regex", "[0-9]{3}x"), "", "x"),
    ],
)
def test_the_answer_is_what_it_must_be(sotol: Sotol, options: tuple[str, ...], begins: str, ends: str) -> None:
    said = sotol("run", "smollm2", "Name a colour", "--temp", "0", "-n", "40", *options)
    assert said.exit_code == 0, said.stderr
    assert said.stdout.startswith(begins)
    assert said.stdout.rstrip("\n").endswith(ends)
    if "--schema" in options:
        assert set(json.loads(said.stdout)) == {"colour", "rgb"}


def test_what_is_wrong_is_said_in_a_line(sotol: Sotol, tmp_path: Path) -> None:
    for options, message in [
        (("--regex", "(a"), "sotol: regex: unclosed group, at character 1 of (a\n"),
        (("--schema", '{"type": "object", "properties": {"a": {"not": {}}}}'),
         'sotol: schema at #/properties/a: "not" is not supported\n'),
        (("--regex", "a", "--json-output"), "sotol: json and regex are given; an answer can have one of json,"),
        (("--grammar", str(tmp_path / "none")), f"sotol: {tmp_path / 'none'} can't be read: no such file"),
    ]:  # fmt: skip
        said = sotol("run", "smollm2", "Hi", "-n", "3", *options)
        assert said.exit_code in (1, 2)
        assert said.stderr.startswith(message)
        assert said.stdout == ""
