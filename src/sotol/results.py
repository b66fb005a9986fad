"""What a request gives: small records that a caller can keep, print or turn into JSON (`dataclasses.asdict`)."""

from dataclasses import dataclass, field

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
    """Token counts. cached_tokens: of the prompt's, those that were known and not computed again."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Of prompt and answer together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished generation; `str()` of it is its text.

    tokens: generated ids, without the model's end-of-generation token. finish_reason: "stop" (the model ended, or a
    stop string came) or "length" (max_tokens, or the end of the context). logprobs: one per token, if asked for. seed:
    the one that was asked for or drawn; with it and the same options the same text comes again.
    """

    text: str
    tokens: tuple[int, ...] = field(repr=False)
    finish_reason: FinishReason
    logprobs: tuple[TokenLogprob, ...] | None = field(repr=False)
    usage: Usage
    timings: Timings = field(repr=False)
    seed: int

    def __str__(self) -> str:
        return self.text
