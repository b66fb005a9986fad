"""What a request gives: small records that a caller can keep, print or turn into JSON (`dataclasses.asdict`).

Only `Completion.parsed` may be an object that JSON does not know: it is what a caller's class makes it.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from sotol.answers.pieces import Piece, ToolCall
from sotol.engine.sequence import Timings

__all__ = ["Completion", "Delta", "FinishReason", "Timings", "TokenLogprob", "ToolCall", "TopLogprob", "Usage"]

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True)
class TopLogprob:
    """A token that could have come, and the natural logarithm of its probability."""

    token: int
    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A generated token, its log-probability, and the likeliest tokens at its place, best first."""

    token: int
    text: str
    logprob: float
    top: tuple[TopLogprob, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts.

    cached_tokens: of the prompt's, those that were known and not computed again. reasoning_tokens: of the completion's,
    those with which the model thought, markers included.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Of prompt and answer together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished generation; `str()` of it is its text.

    text: what the answer says, without the reasoning and the calls of an answer to a `Turn`, which are apart: the tools
    that the model calls, in order. tokens: all generated ids, without the model's end-of-generation token.
    finish_reason: "stop" (the model ended, or a stop string came), "tool_calls" (the same, and it calls tools) or
    "length" (max_tokens, or the end of the context). logprobs: one per token, if asked for. seed: the one that was
    asked for or drawn; with it and the same options the same text comes again. stopped_by: the stop string that ended
    it, if one did. parsed: an object of the class that is the answer's schema; None without one, and if the answer was
    cut, or the class refuses it.
    """

    text: str
    tokens: tuple[int, ...] = field(repr=False)
    finish_reason: FinishReason
    logprobs: tuple[TokenLogprob, ...] | None = field(repr=False)
    usage: Usage
    timings: Timings = field(repr=False)
    seed: int
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    stopped_by: str | None = None
    parsed: Any = field(default=None, repr=False)

    def __str__(self) -> str:
        return self.text


class Delta(NamedTuple):
    """What an event of a stream gives. tokens: how many it has. logprobs: theirs, if asked for."""

    pieces: tuple[Piece, ...]
    logprobs: tuple[TokenLogprob, ...]
    tokens: int
