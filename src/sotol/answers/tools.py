"""The tools that a conversation declares, as far as an answer is read by them: their names and parameters."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from sotol.errors import plain

__all__ = ["AUTO", "Choice", "Tool", "ToolChoice", "chosen", "declared"]

ToolChoice: TypeAlias = str | Mapping[str, Any]
MODES = ("auto", "none", "required")


class Tool(NamedTuple):
    """A function that the model may call. parameters: a JSON schema of its arguments, an object; {} allows any."""

    name: str
    parameters: Mapping[str, Any]


class Choice(NamedTuple):
    """Whether the model calls: as it likes ("auto"), not at all, or certainly; and the only tool that it may call."""

    mode: Literal["auto", "none", "required"] = "auto"
    name: str | None = None


AUTO = Choice()


def declared(tools: Sequence[Mapping[str, Any]] | None) -> tuple[Tool, ...]:
    """Tools from their descriptions in the form of OpenAI's APIs ({"type": "function", "function": {"name": …}}, or
    flat), or Anthropic's (`input_schema`). ValueError names what is wrong.
    """
    found: dict[str, Tool] = {}
    for i, description in enumerate(tools or ()):
        function = description.get("function", description)
        name = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(name, str) or not name:
            raise ValueError(f"tools[{i}] has no name: give {{'type': 'function', 'function': {{'name': …}}}}")
        parameters = function.get("parameters", function.get("input_schema"))
        if parameters is not None and not isinstance(parameters, Mapping):
            raise ValueError(f"the parameters of tools[{i}], {plain(name, 60)}, are no mapping: give a JSON schema")
        if name in found:
            raise ValueError(f"tools[{i}] is a second {plain(name, 60)}: each tool needs a name of its own")
        found[name] = Tool(name, parameters or {})
    return tuple(found.values())


def chosen(choice: ToolChoice, tools: Sequence[Tool]) -> Choice:
    """A `tool_choice` in the form of OpenAI's APIs, checked: "auto", "none", "required", or a tool by its name,
    {"type": "function", "function": {"name": …}} or {"type": "function", "name": …}. ValueError says what is wrong.
    """
    if isinstance(choice, str) and choice in MODES:
        if choice == "required" and not tools:
            raise ValueError("tool_choice is 'required', but there are no tools: declare some")
        return Choice(choice)  # type: ignore[arg-type]  # one of MODES
    function = choice.get("function", choice) if isinstance(choice, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise ValueError(
            f"tool_choice is {plain(repr(choice), 100)}; it must be 'auto', 'none', 'required', or"
            " {'type': 'function', 'function': {'name': …}}"
        )
    if name not in {tool.name for tool in tools}:
        raise ValueError(
            f"tool_choice names {plain(repr(name), 60)}, which is none of the tools:"
            f" {plain(', '.join(tool.name for tool in tools), 200) or 'there are none'}"
        )
    return Choice("required", name)
