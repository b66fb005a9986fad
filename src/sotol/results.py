"""What a request gives: small records that a caller can keep, print or turn into JSON (`dataclasses.asdict`)."""

from dataclasses import dataclass

from sotol.engine.sequence import FinishReason, Timings

__all__ = ["Completion", "FinishReason", "Timings", "TokenLogprob", "TopLogprob", "Usage"]


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
    """Token counts."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished generation.

    tokens: generated ids, without the model's end-of-generation token. finish_reason: "stop" (the model ended, or a
    stop string came) or "length" (max_tokens, or the end of the context). logprobs: one per token, if asked for.
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    logprobs: tuple[TokenLogprob, ...] | None
    usage: Usage
    timings: Timings
