"""What requests of Ollama's API may say. As there, fields that nobody knows are ignored, and null is the default."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from sotol.server.problems import Problem
from sotol.server.times import seconds_of

__all__ = ["ChatRequest", "GenerateRequest", "Message", "PullRequest", "Request", "ShowRequest"]

Json = dict[str, JsonValue]
Whole = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
Images = list[JsonValue]
Stop = Annotated[str, Field(max_length=1024)]


class Loose(BaseModel):
    """A record of a request."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class Options(Loose):
    """Options of a request; those about loading a model, as num_gpu, are ignored: it is loaded."""

    # Samplers that sotol lacks, and the values that turn them off.
    OFF: ClassVar[dict[str, float]] = {"typical_p": 1, "tfs_z": 1, "mirostat": 0}
    num_ctx: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    num_predict: Annotated[int, Field(ge=-2, le=2**31 - 1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_k: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repeat_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    repeat_last_n: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=64)] | None = None
    typical_p: float | None = None
    tfs_z: float | None = None
    mirostat: int | None = None


class Request(Loose):
    """What chat and generate share."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    stream: bool | None = None
    options: Options | None = None
    format: Literal["", "json"] | Json | None = None
    keep_alive: float | str | None = None
    think: bool | Literal["low", "medium", "high", "max"] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    def changes(self, context: int) -> dict[str, Any]:
        """Fields of `Sampling` that the request sets, None for those that it does not. context: the model's."""
        given = self.options or Options()
        for name, off in Options.OFF.items():
            if getattr(given, name) not in (None, off):
                raise Problem(400, f"{name} is not supported by this server: leave it out", param=f"options.{name}")
        if given.num_ctx is not None and given.num_ctx > context:
            raise Problem(
                400,
                f"num_ctx is {given.num_ctx}, but the model is loaded with a context of {context} tokens:"
                " ask for less, or load it with a larger one",
                param="options.num_ctx",
            )
        names = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "repeat_last_n", "frequency_penalty",
                 "presence_penalty")  # fmt: skip
        seed = given.seed
        return {
            **{name: getattr(given, name) for name in names},
            "seed": seed if seed is None or seed >= -1 else seed % 2**63,
            "max_tokens": given.num_predict,
            "stop": ([given.stop] if isinstance(given.stop, str) else given.stop) or None,
            "json": True if self.format == "json" else None,
            "schema": self.format if isinstance(self.format, dict) else None,
            "logprobs": self.top_logprobs or 0 if self.logprobs or self.top_logprobs else None,
        }

    def told(self) -> dict[str, Any] | None:
        """What the template takes besides."""
        if self.think is None:
            return None
        effort = {"reasoning_effort": self.think} if isinstance(self.think, str) else {}
        return {"enable_thinking": self.think is not False, **effort}

    @property
    def keeps(self) -> float | None:
        """Seconds that the model is to stay loaded after this, math.inf for a negative time; None: not said."""
        given = self.keep_alive
        if given is None:
            return None
        seconds = seconds_of(given)
        if seconds is None:
            raise Problem(400, 'keep_alive must be a number of seconds, or a time as "5m"', param="keep_alive")
        return seconds


class Message(BaseModel):
    """A message."""

    model_config = ConfigDict(extra="ignore", strict=True)
    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    images: Images | None = None
    tool_calls: list[Json] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class Tool(BaseModel):
    """A function that the model may call."""

    model_config = ConfigDict(extra="allow", strict=True)
    type: Literal["function"] = "function"
    function: Json


class ChatRequest(Request):
    """/api/chat"""

    messages: list[Message] | None = None
    tools: Annotated[list[Tool], Field(max_length=1024)] | None = None


class GenerateRequest(Request):
    """/api/generate"""

    prompt: str | None = None
    system: str | None = None
    raw: bool | None = None
    suffix: str | None = None
    template: str | None = None
    context: list[Whole] | None = None
    images: Images | None = None

    def check(self) -> None:
        """Problem for what sotol lacks."""
        if self.suffix:
            raise Problem(400, "suffix is not supported: no model here fills in the middle", param="suffix")
        if self.template:
            raise Problem(400, "template is not supported: use raw to write the prompt yourself", param="template")
        if self.context:
            raise Problem(400, "context is not supported: use /api/chat for conversations", param="context")
        if self.images:
            raise Problem(400, "images are not supported: this model takes text only", param="images")


class PullRequest(Loose):
    """/api/pull"""

    model: str | None = None
    name: str | None = None
    stream: bool | None = None


class ShowRequest(Loose):
    """/api/show; name is what model was called before."""

    model: str | None = None
    name: str | None = None
