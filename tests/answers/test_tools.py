"""Tools and choices of them, in the forms of the APIs that clients know."""

from typing import Any

import pytest

from sotol.answers.tools import Choice, Tool, chosen, declared

SCHEMA = {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    "description",
    [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA}},
        {"type": "function", "name": "f", "parameters": SCHEMA},
        {"name": "f", "input_schema": SCHEMA},
    ],
)
def test_descriptions(description: dict[str, Any]) -> None:
    assert declared([description]) == (Tool("f", SCHEMA),)


def test_no_tools() -> None:
    assert declared(None) == declared([]) == ()
    assert declared([{"name": "f"}, {"name": "g", "parameters": None}]) == (Tool("f", {}), Tool("g", {}))


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ([{}], r"tools\[0\] has no name"),
        ([{"name": "f"}, {"name": ""}], r"tools\[1\] has no name"),
        ([{"function": "f"}], r"tools\[0\] has no name"),
        ([{"function": {"name": 3}}], r"tools\[0\] has no name"),
        ([{"name": "f"}, {"name": "f"}], r"tools\[1\] is a second f"),
        ([{"name": "f", "parameters": []}], r"the parameters of tools\[0\], f, are no mapping"),
    ],
)
def test_wrong_descriptions(tools: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        declared(tools)


def test_choices() -> None:
    tools = declared([{"name": "f"}, {"name": "auto"}])
    assert [chosen(mode, tools) for mode in ("auto", "none", "required")] == [
        Choice("auto"), Choice("none"), Choice("required"),
    ]  # fmt: skip
    assert chosen({"type": "function", "function": {"name": "f"}}, tools) == Choice("required", "f")
    assert chosen({"type": "function", "name": "auto"}, tools) == Choice("required", "auto")
    assert chosen("none", ()) == Choice("none")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("f", "tool_choice is 'f'; it must be 'auto', 'none', 'required', or"),
        (3, "tool_choice is 3"),
        ({}, "tool_choice is {}"),
        ({"function": {"name": 3}}, "tool_choice is"),
        ({"function": {"name": "g"}}, "tool_choice names 'g', which is none of the tools: f"),
    ],
)
def test_wrong_choices(choice: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chosen(choice, (Tool("f", {}),))
    with pytest.raises(ValueError, match="there are no tools: declare some"):
        chosen("required", ())
