"""What a request of /v1/messages may say."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from sotol.server.problems import Problem

__all__ = ["Block", "CountRequest", "Message", "MessagesRequest", "Tool"]

Json = dict[str, JsonValue]


class Strict(BaseModel):
    """A record of a request: nothing unknown, nothing converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Block(BaseModel):
    """A content block; `conversation` knows the types."""

    model_config = ConfigDict(extra="allow", strict=True)
    type: str


class Message(Strict):
    """A message."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class Tool(BaseModel):
    """A tool that the client runs. Fields that are about caching and loading are without effect here."""

    model_config = ConfigDict(extra="allow", strict=True)
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.:/-]{1,128}$")]
    description: str | None = None
    input_schema: Json | None = None
    type: str | None = None


class ToolChoice(Strict):
    """Whether to call tools, and which."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Strict):
    """Whether to think before the answer. budget_tokens: of thoughts, which are closed there."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    display: Literal["summarized", "omitted"] | None = None


class OutputFormat(Strict):
    """A schema that the answer follows."""

    type: Literal["json_schema"]
    schema_: Json = Field(alias="schema")


class OutputConfig(Strict):
    """How the answer is to be."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class CountRequest(Strict):
    """What counts for the length of a prompt."""

    model: Annotated[str, Field(max_length=256)]
    messages: Annotated[list[Message], Field(min_length=1)]
    system: str | list[Block] | None = None
    tools: Annotated[list[Tool], Field(max_length=1024)] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    # Without effect on the text: caches, tiers and places of the service.
    cache_control: Json | None = None
    context_management: Json | None = None
    inference_geo: str | None = None
    service_tier: str | None = None
    speed: Literal["standard", "fast"] | None = None
    user_profile_id: str | None = None
    workspace_id: str | None = None

    def check(self) -> None:
        """Problem for what sotol lacks, or what does not go together."""
        edits = (self.context_management or {}).get("edits") or []
        for edit in edits if isinstance(edits, list) else []:
            kind = edit.get("type") if isinstance(edit, dict) else None
            if not str(kind).startswith("clear_thinking"):  # the template does that
                raise Problem(400, f"edits of type {str(kind)[:60]!r} are not supported", param="context_management")
        for i, tool in enumerate(self.tools or ()):
            if tool.type not in (None, "custom"):
                message = f"tools of type {tool.type[:60]!r} are not supported: declare it with an input_schema"
                raise Problem(400, message, param=f"tools.{i}.type")
            if tool.input_schema is None:
                raise Problem(400, "Field required", param=f"tools.{i}.input_schema")
        choice = self.tool_choice
        if choice is not None and choice.type in ("any", "tool") and not self.tools:
            raise Problem(400, "tool_choice may only be specified while providing tools", param="tool_choice")
        if choice is not None and choice.type == "tool" and choice.name not in {tool.name for tool in self.tools or ()}:
            raise Problem(400, f"Tool {str(choice.name)[:128]!r} not found in provided tools", param="tool_choice")

    @property
    def thinks(self) -> bool:
        """Whether thinking was asked for; the service's default is not to."""
        return self.thinking is not None and self.thinking.type != "disabled"

    def template(self) -> dict[str, Any]:
        """What the template takes besides, by the names that templates have for it."""
        effort = self.output_config.effort if self.output_config else None
        return {"enable_thinking": self.thinks, **({} if effort is None else {"reasoning_effort": effort})}


class MessagesRequest(CountRequest):
    """A request for a message."""

    max_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)]
    stream: bool | None = None
    stop_sequences: Annotated[list[Annotated[str, Field(max_length=1024)]], Field(max_length=64)] | None = None
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    metadata: Json | None = None
    diagnostics: Json | None = None
    container: None = None

    def check(self) -> None:
        """As above."""
        super().check()
        budget = self.thinking.budget_tokens if self.thinking else None
        if self.thinks and budget is None and self.thinking is not None and self.thinking.type == "enabled":
            raise Problem(400, "Field required", param="thinking.enabled.budget_tokens")
        if budget is not None and budget >= self.max_tokens:
            raise Problem(400, "`max_tokens` must be greater than `thinking.budget_tokens`", param="max_tokens")
        if any(not stop.strip() for stop in self.stop_sequences or ()):
            raise Problem(400, "each stop sequence must contain non-whitespace", param="stop_sequences")

    def changes(self) -> dict[str, Any]:
        """Fields of `Sampling` that the request sets, None for those that it does not."""
        format_ = self.output_config.format if self.output_config else None
        return {
            "max_tokens": self.max_tokens,
            "thinking_budget": self.thinking.budget_tokens if self.thinking and self.thinks else None,
            "stop": self.stop_sequences or None,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "schema": format_.schema_ if format_ else None,
        }
