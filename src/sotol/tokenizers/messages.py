"""Normalises a conversation, before any template or preset sees it.

Clients of OpenAI's chat API (https://platform.openai.com/docs/api-reference/chat/create) write the same conversation
in many ways. Input may be mappings, dataclasses, or objects with `model_dump()` (pydantic's, as in the `openai`
package), nested in any way. The output has exact built-in types and one form:

- no value is None; a `refusal` is the content of a message without other content; reasoning has the names that
  templates use;
- `content` is always present: a text, or a list of parts, with texts as {"type": "text", "text": …}; null becomes "";
- `tool_calls` is never empty; each call has its type and function, and the older `function_call` becomes one;
- the answer of a tool has the role `tool`, and the name of the function if the call has it;
- roles of the API are trusted text (`provenance.py`), since it is the template that makes `<|user|>` of `user`.
  Everything else that the caller gives is untrusted.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sotol.errors import plain
from sotol.tokenizers.provenance import trusted, unmarked

__all__ = ["REASONING", "ROLES", "all_text", "normalized", "normalized_tools", "plain_data"]

ROLES = {role: trusted(role) for role in ("system", "developer", "user", "assistant", "tool")}
REASONING = ("reasoning_content", "thinking", "reasoning")  # keys of a message's reasoning, the standard one first
TEXTS = ("", "text", "input_text", "output_text")  # types of content parts that are text
DEEPEST = 64  # the most levels of lists and objects in the caller's data


def normalized(messages: object) -> list[dict[str, Any]]:
    """The messages, normalised. ValueError names the field that is wrong."""
    result = [_message(i, message) for i, message in enumerate(_sequence("messages", messages))]
    _name_answers(result)
    return result


def normalized_tools(tools: object) -> list[dict[str, Any]] | None:
    """Descriptions of tools as plain data; None if there are none. ValueError names what is wrong."""
    if tools is None:
        return None
    described = [plain_data(("tools", i), tool) for i, tool in enumerate(_sequence("tools", tools))]
    for i, tool in enumerate(described):
        if not isinstance(tool, dict):
            raise ValueError(f"tools[{i}] is {_kind(tool)}; it must be a mapping, a JSON schema of the tool")
    return described or None


def plain_data(path: tuple[object, ...], value: object, depth: int = 0) -> Any:
    """A copy of JSON-like data in exact built-in types, so that a template can't reach other objects.

    path: the keys that lead to it. ValueError names it for data of other types.
    """
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, str):
        return unmarked(value)
    if isinstance(value, (int, float)):
        return int(value) if isinstance(value, int) else float(value)
    if depth > DEEPEST:
        raise ValueError(f"{_name(path)} is nested more than {DEEPEST} levels deep")
    if isinstance(value, np.generic):
        return plain_data(path, value.item(), depth + 1)
    if isinstance(value, (list, tuple)):
        return [plain_data((*path, i), item, depth + 1) for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {
            key if type(key) is str else _key(path, key): plain_data((*path, key), item, depth + 1)
            for key, item in value.items()
        }
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return plain_data(path, fields, depth + 1)
    if callable(dump := getattr(value, "model_dump", None)) and not isinstance(value, type):
        return plain_data(path, dump(), depth + 1)
    raise ValueError(f"{_name(path)} is {_kind(value)}; chat templates take only text, numbers, lists and mappings")


def all_text(content: str | list[dict[str, Any]]) -> str | None:
    """The text of a message's content; None if a part is not text."""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content) if all(part["type"] == "text" for part in content) else None


def _message(i: int, given: object) -> dict[str, Any]:
    """One message, checked and normalised."""
    data = plain_data(("messages", i), given)
    if not isinstance(data, dict):
        raise ValueError(f"messages[{i}] is {_kind(given)}; it must be a mapping with role and content")
    role = data.get("role")
    if not isinstance(role, str) or not role:
        raise ValueError(f"messages[{i}]['role'] is {plain(repr(role), 60)}; it must be a string such as 'user'")
    message = {key: value for key, value in data.items() if value is not None or key == "content"}
    refusal = message.pop("refusal", "")
    message["content"] = _content(i, data.get("content")) or (refusal if isinstance(refusal, str) else "")
    function = message.pop("function_call", None)
    calls = message.pop("tool_calls", None) or ([{"function": function}] if function else [])
    if calls:
        message["tool_calls"] = _calls(i, calls)
    role = "tool" if role == "function" else role
    message["role"] = ROLES.get(role, role)
    reasoning = next((message[name] for name in REASONING if name in message), None)
    if reasoning is None:
        return message
    named = {"thinking": reasoning, **message, "reasoning_content": reasoning}
    return named if "reasoning" in named else {**named, "reasoning": reasoning}


def _content(i: int, content: object) -> str | list[dict[str, Any]]:
    """Text, or parts that each have a type; an empty list becomes ""."""
    if content is None or isinstance(content, str):
        return content or ""
    where = f"messages[{i}]['content']"
    if not isinstance(content, list):
        raise ValueError(f"{where} is {_kind(content)}; it must be a string, a list of parts or None")
    parts = []
    for j, part in enumerate(content):
        if not isinstance(part, dict) or not isinstance(part.get("type", ""), str):
            raise ValueError(f"{where}[{j}] is {_kind(part)}; it must be a mapping with a type")
        kind = part.get("type", "")
        field = "refusal" if kind == "refusal" else "text"
        if kind not in TEXTS and kind != "refusal":
            parts.append(part)
        elif isinstance(part.get(field), str):
            parts.append({"type": "text", "text": part[field]})
        else:
            raise ValueError(f"{where}[{j}][{field!r}] is {_kind(part.get(field))}; it must be a string")
    return parts or ""


def _calls(i: int, calls: object) -> list[dict[str, Any]]:
    """The calls of a message, each {"type", "function": {"name", "arguments"}} with any further keys."""
    where = f"messages[{i}]['tool_calls']"
    if not isinstance(calls, list):
        raise ValueError(f"{where} is {_kind(calls)}; it must be a list of mappings")
    result = []
    for j, given in enumerate(calls):
        call = {key: value for key, value in given.items() if value is not None} if isinstance(given, dict) else {}
        if "function" not in call and "name" in call:  # some models and clients write it like this
            call = {"function": {key: call.pop(key) for key in ("name", "arguments") if key in call}, **call}
        function = call.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ValueError(f"{where}[{j}] has no function with a name")
        arguments = function.get("arguments")
        call["function"] = {**function, "arguments": {} if arguments is None or arguments == "" else arguments}
        result.append({"type": "function", **call})
    return result


def _name_answers(messages: Sequence[dict[str, Any]]) -> None:
    """Give the answers of tools the names of their functions; one without an id answers the first open call."""
    waiting: dict[object, dict[str, Any]] = {}
    for message in messages:
        for call in message.get("tool_calls", ()):
            id_ = call.get("id")
            waiting[id_ if isinstance(id_, str) else len(waiting)] = call
        if message["role"] != "tool":
            continue
        wanted = message.get("tool_call_id")
        call = waiting.pop(wanted if isinstance(wanted, str) else next(iter(waiting), None), None)
        if call is not None:
            message.setdefault("name", call["function"]["name"])
            if "id" in call:
                message["tool_call_id"] = call["id"]


def _sequence(name: str, value: object) -> Sequence[object]:
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise ValueError(f"{name} is {_kind(value)}; it must be a list of mappings")
    return value


def _key(path: tuple[object, ...], key: object) -> Any:
    if key is None or isinstance(key, (str, int, float)):
        return plain_data(path, key)
    raise ValueError(f"{_name(path)} has a key that is {_kind(key)}; keys are text")


def _name(path: tuple[object, ...]) -> str:
    first, *rest = path
    return f"{first}" + "".join(f"[{plain(repr(key), 40)}]" for key in rest)


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
