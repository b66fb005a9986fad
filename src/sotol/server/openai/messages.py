"""The fields of a conversation in chat completions, and what of them sotol can do."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from sotol.server.openai.fields import Strict
from sotol.server.problems import Problem

__all__ = ["Message", "ResponseFormat", "Tool", "ToolChoice", "chosen_tools", "format_of", "plain_messages"]

NAME = r"^[a-zA-Z0-9_.:/-]{1,128}$"
Name = Annotated[str, Field(pattern=NAME)]
TEXTS = ("text", "refusal", "input_text", "output_text")


class Part(BaseModel):
    """A part of a message's content."""

    model_config = ConfigDict(extra="allow", strict=True)
    type: str


class Message(BaseModel):
    """A message. Fields that a template may know, as reasoning_content, pass through."""

    model_config = ConfigDict(extra="allow", strict=True)
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    tool_calls: list[dict[str, JsonValue]] | None = None
    tool_call_id: str | None = None


class Function(Strict):
    """A function that the model may call. parameters: a JSON schema of its arguments."""

    name: Name
    description: str | None = None
    parameters: dict[str, JsonValue] | None = None
    strict: bool | None = None


class Tool(Strict):
    """A tool; functions are those there are."""

    type: Literal["function"]
    function: Function


class NamedFunction(Strict):
    """Names a function."""

    name: Name


class NamedTool(Strict):
    """The one tool to call."""

    type: Literal["function"]
    function: NamedFunction


class AllowedTools(Strict):
    """Which of the tools may be called."""

    mode: Literal["auto", "required"]
    tools: list[NamedTool]


class AllowedChoice(Strict):
    """A choice among some of the tools."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


ToolChoice = Literal["none", "auto", "required"] | NamedTool | AllowedChoice


class JsonSchema(Strict):
    """A schema that the answer follows. Whether it is strict makes no difference: it always is."""

    name: Annotated[str, Field(max_length=256)] | None = None
    description: str | None = None
    schema_: dict[str, JsonValue] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Strict):
    """What an answer must be. schema: llama-server's, with json_object."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    schema_: dict[str, JsonValue] | None = Field(None, alias="schema")


def format_of(given: ResponseFormat | None) -> tuple[str, Any] | None:
    """The field of `Sampling` that a response_format asks for, with its value."""
    if given is None or given.type == "text":
        return None
    if given.type == "json_object":
        return ("json", True) if given.schema_ is None else ("schema", given.schema_)
    schema = given.json_schema.schema_ if given.json_schema else given.schema_
    if schema is None:
        raise Problem(
            400, "Missing required parameter: 'response_format.json_schema.schema'", param="response_format",
            code="missing_required_parameter",
        )  # fmt: skip
    return "schema", schema


def plain_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages as `LLM.turn` takes them. Problem for content that is not text."""
    for i, message in enumerate(messages):
        for j, part in enumerate(message.content if isinstance(message.content, list) else ()):
            if part.type not in TEXTS:
                raise Problem(
                    400,
                    f"messages[{i}].content[{j}] is of type {part.type[:60]!r}: this model takes text only",
                    param=f"messages[{i}].content[{j}].type",
                )
    return [message.model_dump(exclude_none=True) for message in messages]


def chosen_tools(
    tools: Sequence[Tool] | None, choice: ToolChoice | None
) -> tuple[list[dict[str, Any]] | None, str | dict[str, Any]]:
    """The tools to tell the model of, and which to call, as `LLM.turn` takes them. Problem for unknown names."""
    listed = [tool.model_dump(exclude_none=True) for tool in tools or ()]
    names = {tool["function"]["name"] for tool in listed}
    if choice is None or choice == "none" or choice == "auto":
        return listed or None, choice or "auto"
    if not listed:
        raise Problem(400, "'tool_choice' is only allowed when 'tools' are specified", param="tool_choice")
    if choice == "required":
        return listed, "required"
    named = choice.allowed_tools.tools if isinstance(choice, AllowedChoice) else [choice]
    wanted = [tool.function.name for tool in named]
    if unknown := [name for name in wanted if name not in names]:
        raise Problem(400, f"'tool_choice' names {unknown[0]!r}, which is not among 'tools'", param="tool_choice")
    if isinstance(choice, AllowedChoice):
        return [tool for tool in listed if tool["function"]["name"] in wanted], choice.allowed_tools.mode
    return listed, {"type": "function", "function": {"name": wanted[0]}}
