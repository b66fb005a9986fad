"""What a request of /v1/responses may say."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from sotol.server.openai.fields import Strict, Text
from sotol.server.problems import Problem

__all__ = ["Function", "Item", "ResponseRequest"]

Json = dict[str, JsonValue]
Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.:/-]{1,128}$")]
SEEDS = 2**63


class Item(BaseModel):
    """An item of the input; `items` knows the types."""

    model_config = ConfigDict(extra="allow", strict=True)
    type: str | None = None


class Function(Strict):
    """A function that the model may call."""

    type: Literal["function"]
    name: Name
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None


class NamedTool(Strict):
    """Names a function."""

    type: Literal["function"]
    name: Name


class AllowedTools(Strict):
    """A choice among some of the tools."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[NamedTool]


class Format(Strict):
    """What the answer must be."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: Json | None = Field(None, alias="schema")
    strict: bool | None = None


class TextConfig(Strict):
    """Of what is said."""

    format: Format | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class Reasoning(Strict):
    """How to think. Summaries are not written: the reasoning itself is given."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class StreamOptions(Strict):
    """Of a stream; lengths are not obfuscated."""

    include_obfuscation: bool | None = None


class ResponseRequest(Strict):
    """A request for a response. Samplers beside temperature and top_p are extensions."""

    model: Text | None = None
    input: str | Annotated[list[Item], Field(min_length=1)]
    instructions: str | None = None
    previous_response_id: Text | None = None
    tools: Annotated[list[Function], Field(max_length=1024)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | AllowedTools | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    text: TextConfig | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    include: list[Text] | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    metadata: dict[str, str] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    background: bool | None = None
    chat_template_kwargs: Json | None = None
    top_k: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repeat_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    seed: Annotated[int, Field(ge=-1, lt=SEEDS)] | None = None
    # Without effect on the answer.
    max_tool_calls: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    prompt_cache_key: Text | None = None
    prompt_cache_retention: Text | None = None
    safety_identifier: Text | None = None
    service_tier: Text | None = None
    user: Text | None = None

    def check(self) -> None:
        """Problem for what sotol lacks."""
        if self.background:
            raise Problem(400, "background is not supported: stream the response instead", param="background")
        if self.truncation == "auto":
            raise Problem(400, "truncation is not supported: a prompt is never cut silently", param="truncation")

    @property
    def logprobs(self) -> int | None:
        """Alternatives of each token that the answer tells."""
        asked = "message.output_text.logprobs" in (self.include or ())
        return (self.top_logprobs or 0) if asked or self.top_logprobs else None

    def changes(self) -> dict[str, Any]:
        """Fields of `Sampling` that the request sets, None for those that it does not."""
        format_ = self.text.format if self.text else None
        if format_ is not None and format_.type == "json_schema" and format_.schema_ is None:
            raise Problem(400, "Missing required parameter: 'text.format.schema'", param="text.format.schema")
        return {
            **{
                name: getattr(self, name)
                for name in ("temperature", "top_p", "top_k", "min_p", "repeat_penalty", "frequency_penalty",
                             "presence_penalty", "seed", "logprobs")
            },
            "max_tokens": self.max_output_tokens,
            "json": True if format_ is not None and format_.type == "json_object" else None,
            "schema": format_.schema_ if format_ is not None and format_.type == "json_schema" else None,
        }  # fmt: skip

    def template(self) -> dict[str, JsonValue] | None:
        """What the template takes besides."""
        effort = self.reasoning.effort if self.reasoning else None
        told: Json = {} if effort is None else {"reasoning_effort": effort}
        return {**told, **(self.chat_template_kwargs or {})} or None
