"""A conversation of Anthropic's API as `LLM.turn` takes it: blocks become content, reasoning and calls."""

import json
from collections.abc import Sequence
from typing import Any

from sotol.server.anthropic.fields import Block, CountRequest, Message
from sotol.server.problems import Problem
from sotol.server.running import Chat

__all__ = ["chat_of"]

CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def chat_of(request: CountRequest) -> Chat:
    """What to answer. Problem for blocks that are malformed, or of a type that sotol does not take."""
    messages: list[dict[str, Any]] = []
    if request.system:
        messages.append({"role": "system", "content": _system("system", request.system)})
    for i, message in enumerate(request.messages):
        messages += _converted(f"messages.{i}.content", message)
    prefill = ""
    last = messages[-1]
    if last["role"] == "assistant" and "tool_calls" not in last:
        if request.thinks:
            raise Problem(400, "an answer that has begun can't be thought about: turn thinking off", param="messages")
        prefill = messages.pop()["content"]  # the answer continues it
    tools = [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                **({} if tool.description is None else {"description": tool.description}),
                "parameters": tool.input_schema,
            },
        }
        for tool in request.tools or ()
    ]
    choice = request.tool_choice
    named: Any = CHOICES.get(choice.type) if choice else "auto"
    if choice is not None and named is None:
        named = {"type": "function", "function": {"name": choice.name}}
    parallel = not (choice is not None and choice.disable_parallel_tool_use)
    return Chat(messages, tools or None, named, parallel, request.template(), prefill)


def _system(where: str, content: str | Sequence[Block]) -> str:
    if isinstance(content, str):
        return content
    return "\n\n".join(_text(f"{where}.{i}", block) for i, block in enumerate(content))


def _converted(where: str, message: Message) -> list[dict[str, Any]]:
    """One message; a user's gives one for each tool's result, too."""
    if message.role == "system":
        return [{"role": "system", "content": _system(where, message.content)}]
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    read = _assistant if message.role == "assistant" else _user
    return read(where, message.content)


def _user(where: str, blocks: Sequence[Block]) -> list[dict[str, Any]]:
    """Results of tools, and what is said besides, in the order of the blocks."""
    messages: list[dict[str, Any]] = []
    for i, block in enumerate(blocks):
        if block.type == "tool_result":
            messages.append(_result(f"{where}.{i}", block))
            continue
        text = _text(f"{where}.{i}", block)
        if messages and messages[-1]["role"] == "user":
            messages[-1]["content"] += "\n" + text
        else:
            messages.append({"role": "user", "content": text})
    return messages or [{"role": "user", "content": ""}]


def _result(where: str, block: Block) -> dict[str, Any]:
    """What a tool gave."""
    id_, content = _field(where, block, "tool_use_id", str), getattr(block, "content", None) or ""
    if isinstance(content, list):
        parts = []
        for i, part in enumerate(content):
            if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
                kind = part.get("type") if isinstance(part, dict) else part
                raise _unsupported(f"{where}.content.{i}", str(kind))
            parts.append(part["text"])
        content = "\n".join(parts)
    if not isinstance(content, str):
        raise Problem(400, "Input should be a valid string or list of blocks", param=f"{where}.content")
    if getattr(block, "is_error", None):
        content = f"Error: {content}"
    return {"role": "tool", "tool_call_id": id_, "content": content}


def _assistant(where: str, blocks: Sequence[Block]) -> list[dict[str, Any]]:
    """What the model said, thought and called."""
    texts, thoughts, calls = list[str](), list[str](), list[dict[str, Any]]()
    for i, block in enumerate(blocks):
        here = f"{where}.{i}"
        if block.type == "thinking":
            thoughts.append(_field(here, block, "thinking", str))
        elif block.type == "tool_use":
            arguments = json.dumps(_field(here, block, "input", dict), ensure_ascii=False)
            function = {"name": _field(here, block, "name", str), "arguments": arguments}
            calls.append({"id": _field(here, block, "id", str), "type": "function", "function": function})
        elif block.type != "redacted_thinking":  # which nobody but the service that wrote it can read
            texts.append(_text(here, block))
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts)}
    if any(thoughts):
        message["reasoning_content"] = "".join(thoughts)
    return [{**message, "tool_calls": calls} if calls else message]


def _text(where: str, block: Block) -> str:
    if block.type != "text":
        raise _unsupported(where, block.type)
    return str(_field(where, block, "text", str))


def _field(where: str, block: Block, name: str, kind: type) -> Any:
    value = getattr(block, name, None)
    if value is None:
        raise Problem(400, "Field required", param=f"{where}.{block.type}.{name}")
    if not isinstance(value, kind):
        what = "string" if kind is str else "dictionary"
        raise Problem(400, f"Input should be a valid {what}", param=f"{where}.{block.type}.{name}")
    return value


def _unsupported(where: str, kind: str) -> Problem:
    return Problem(400, f"blocks of type {kind[:60]!r} are not supported: this model takes text only", param=where)
