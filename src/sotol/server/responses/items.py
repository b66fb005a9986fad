"""Items of a response's input and output, and the messages that they are to a model."""

from collections.abc import Mapping, Sequence
from typing import Any

from sotol.server.answering import token
from sotol.server.problems import Problem
from sotol.server.responses.fields import ResponseRequest

__all__ = ["input_items", "messages_of", "tools_of"]

TEXTS = ("input_text", "output_text", "text", "refusal")
ROLES = ("user", "assistant", "system", "developer")
Item = Mapping[str, Any]


def input_items(request: ResponseRequest) -> list[dict[str, Any]]:
    """The input as items, each with an id. Problem for a type that sotol does not take."""
    if isinstance(request.input, str):
        content = [{"type": "input_text", "text": request.input}]
        return [{"type": "message", "role": "user", "content": content, "id": f"msg_{token()}", "status": "completed"}]
    return [_checked(f"input[{i}]", item.model_dump(exclude_none=True)) for i, item in enumerate(request.input)]


def _checked(where: str, item: dict[str, Any]) -> dict[str, Any]:
    kind = item.get("type") or ("message" if "role" in item else None)
    match kind:
        case "message":
            if item.get("role") not in ROLES:
                raise Problem(400, f"Invalid value: {str(item.get('role'))[:60]!r}", param=f"{where}.role")
            kind_of_text = "output_text" if item["role"] == "assistant" else "input_text"
            content = _content(f"{where}.content", item.get("content"), kind_of_text)
            item, prefix = {**item, "content": content}, "msg"
        case "function_call":
            _texts(where, item, "call_id", "name", "arguments")
            prefix = "fc"
        case "function_call_output":
            _texts(where, item, "call_id")
            item["output"] = _content(f"{where}.output", item.get("output"), "input_text")
            item["output"] = "\n".join(part["text"] for part in item["output"])
            prefix = "fco"
        case "reasoning":
            prefix = "rs"
        case _:
            message = f"items of type {str(kind)[:60]!r} are not supported by this server"
            raise Problem(400, message, param=f"{where}.type")
    return {"id": f"{prefix}_{token()}", "status": "completed", **item, "type": kind}


def _content(where: str, content: object, kind: str) -> list[dict[str, Any]]:
    """Parts of text."""
    if isinstance(content, str):
        return [{"type": kind, "text": content}]
    if not isinstance(content, list):
        raise Problem(400, f"Invalid '{where}': give a text or a list of parts", param=where)
    parts = []
    for i, part in enumerate(content):
        found = part.get("type") if isinstance(part, dict) else None
        if found not in TEXTS:
            raise Problem(
                400, f"{where}[{i}] is of type {str(found)[:60]!r}: this model takes text only", param=f"{where}[{i}]"
            )
        text = part.get("refusal" if found == "refusal" else "text")
        if not isinstance(text, str):
            raise Problem(400, f"Missing required parameter: '{where}[{i}].text'", param=f"{where}[{i}].text")
        parts.append({**part, "text": text})
    return parts


def _texts(where: str, item: Item, *names: str) -> None:
    for name in names:
        if not isinstance(item.get(name), str):
            raise Problem(400, f"Missing required parameter: '{where}.{name}'", param=f"{where}.{name}")


def messages_of(items: Sequence[Item], instructions: str | None) -> list[dict[str, Any]]:
    """The conversation. What the model thought, said and called in a row is one message of its own."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": instructions}] if instructions else []
    own: dict[str, Any] | None = None  # the message that the model's next items belong to

    def mine() -> dict[str, Any]:
        nonlocal own
        if own is None:
            own = {"role": "assistant", "content": ""}
            messages.append(own)
        return own

    for item in items:
        match item["type"]:
            case "reasoning":
                texts = [part.get("text", "") for part in item.get("content") or item.get("summary") or ()]
                message = mine()
                message["reasoning_content"] = message.get("reasoning_content", "") + "".join(texts)
            case "function_call":
                function = {"name": item["name"], "arguments": item["arguments"]}
                call = {"id": item["call_id"], "type": "function", "function": function}
                mine().setdefault("tool_calls", []).append(call)
            case "function_call_output":
                messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": item["output"]})
                own = None
            case _:
                text = "".join(part["text"] for part in item["content"])
                if item["role"] != "assistant":
                    messages.append({"role": item["role"], "content": text})
                    own = None
                elif "tool_calls" in mine():
                    own = {"role": "assistant", "content": text}
                    messages.append(own)
                else:
                    mine()["content"] += text
    return messages


def tools_of(request: ResponseRequest) -> tuple[list[dict[str, Any]] | None, Any]:
    """The tools to tell the model of, and which to call, as `LLM.turn` takes them."""
    listed: list[dict[str, Any]] = []
    for tool in request.tools or ():
        function = tool.model_dump(exclude_none=True, exclude={"type"})
        listed.append({"type": "function", "function": function})
    choice = request.tool_choice
    if choice is None or isinstance(choice, str):
        if choice == "required" and not listed:
            raise Problem(400, "'tool_choice' is only allowed when 'tools' are specified", param="tool_choice")
        return listed or None, choice or "auto"
    names = [choice.name] if choice.type == "function" else [tool.name for tool in choice.tools]
    known = {tool["function"]["name"] for tool in listed}
    if unknown := [name for name in names if name not in known]:
        raise Problem(400, f"'tool_choice' names {unknown[0]!r}, which is not among 'tools'", param="tool_choice")
    if choice.type == "function":
        return listed, {"type": "function", "name": choice.name}
    return [tool for tool in listed if tool["function"]["name"] in names], choice.mode
