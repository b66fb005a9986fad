"""One conversation in the forms that clients of OpenAI's API write, in mappings, dataclasses and other objects."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["FORMS", "TOOL", "USER", "Pydantic", "call", "calling", "part"]

TOOL = {"type": "function", "function": {"name": "sum", "parameters": {"type": "object", "properties": {}}}}
USER = {"role": "user", "content": "one two"}


def part(text: str, kind: str = "text") -> dict[str, Any]:
    return {"type": kind, "text": text}


def call(arguments: Any, **more: Any) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": "sum", "arguments": arguments}, **more}


def calling(said: Any = None, calls: Any = None, **answer: Any) -> list[dict[str, Any]]:
    """Somebody asks, the model calls, the tool answers, the model speaks."""
    asked = {"role": "assistant", "tool_calls": [call('{"a": [1, "é"]}')] if calls is None else calls}
    if said != "absent":
        asked["content"] = said
    replied = {"role": "tool", "tool_call_id": "call_1", "content": "3", **answer}
    return [
        USER,
        asked,
        {k: v for k, v in replied.items() if v is not None},
        {"role": "assistant", "content": "Three."},
    ]


@dataclass
class Said:
    role: str
    content: Any
    more: dict[str, int] = field(default_factory=dict)


class Pydantic:
    """As the `openai` package's objects."""

    def __init__(self, **fields: Any) -> None:
        self._fields = fields

    def model_dump(self) -> dict[str, Any]:
        return self._fields


class Role(StrEnum):
    USER = "user"


# One conversation in several forms, the plainest first.
FORMS: dict[str, list[Any]] = {
    "text": [
        [USER],
        [{"role": "user", "content": [part("one two")]}],
        [{"role": "user", "content": [part("one two", "input_text")]}],
        [{"role": "user", "content": [{"text": "one two"}]}],
        [Said("user", "one two")],
        [Said("user", [Pydantic(type="text", text="one two")])],
        [Pydantic(role="user", content="one two", name=None, tool_calls=None)],
        [{"role": Role.USER, "content": "one two", "tool_calls": []}],
    ],
    "nothing said": [
        [{"role": "user", "content": ""}],
        [{"role": "user", "content": None}],
        [{"role": "user"}],
        [{"role": "user", "content": []}],
    ],
    "system": [
        [{"role": "system", "content": "S"}, USER],
        [{"role": "system", "content": [part("S")]}, USER],
        [{"role": "system", "content": (part("S", "input_text"),), "name": None}, USER],
    ],
    "answer": [
        [USER, {"role": "assistant", "content": "a"}, USER],
        [USER, {"role": "assistant", "content": "a", "tool_calls": []}, USER],
        [USER, {"role": "assistant", "content": "a", "tool_calls": None, "function_call": None, "refusal": None}, USER],
        [USER, {"role": "assistant", "content": [part("a", "output_text")]}, USER],
        [USER, {"role": "assistant", "content": None, "refusal": "a"}, USER],
        [USER, {"role": "assistant", "content": [{"type": "refusal", "refusal": "a"}]}, USER],
        [USER, Pydantic(role="assistant", content="a", refusal=None, audio=None, annotations=None), USER],
    ],
    "call": [
        calling(""),
        calling(None),
        calling("absent"),
        calling([]),
        calling(None, [call({"a": [1, "é"]})]),
        calling(None, [call('{"a": [1, "é"]}', index=None)]),
        calling(None, [{"id": "call_1", "function": {"name": "sum", "arguments": {"a": [1, "é"]}}}]),
        calling(None, [{"id": "call_1", "name": "sum", "arguments": {"a": [1, "é"]}}]),
        calling(None, [Pydantic(**call('{"a": [1, "é"]}'))]),
        calling(None, name="sum"),
        calling(None, tool_call_id=None),
        calling(None, content=[part("3")]),
    ],
}
