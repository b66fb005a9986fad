"""One request: its tokens, its blocks of the cache, how its next token is chosen. Knows nothing of other requests."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from sotol.engine.sampling import Picked, Sampler
from sotol.engine.stops import StopMatcher

__all__ = ["Chunk", "Decoder", "Event", "Failed", "FinishReason", "Finished", "Generation", "Scoring", "Timings"]

FinishReason: TypeAlias = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds of a request: waiting for its turn, until the first token, and from there to the last."""

    queued: float
    prefill: float
    decode: float


class Chunk(NamedTuple):
    """A token and the text that became certain with it."""

    text: str
    picked: Picked


class Finished(NamedTuple):
    """The end of a request: text that was held back, and why it ended."""

    text: str
    reason: FinishReason
    timings: Timings


class Failed(NamedTuple):
    """The request can't go on."""

    error: Exception


Event = Chunk | Finished | Failed
Float32Array = npt.NDArray[np.float32]


class Decoder(Protocol):
    """What turns ids into text as they come."""

    def push(self, token: int) -> str: ...
    def finish(self) -> str: ...


@dataclass(slots=True, eq=False)
class Generation:
    """A prompt that is being continued. `tokens` is all of it; the first `cached` of them are in the cache."""

    tokens: list[int]
    sampler: Sampler
    decoder: Decoder
    stops: StopMatcher
    end_tokens: frozenset[int]
    limit: int  # of len(tokens)
    deliver: Callable[[Event], None]
    cached: int = 0
    blocks: list[int] = field(default_factory=list)
    cancelled: bool = False
    done: bool = False
    _submitted: float = field(default_factory=perf_counter)
    _started: float = 0.0
    _first: float = 0.0

    def rows_wanted(self, count: int) -> Sequence[int]:
        """Of the next `count` tokens, those whose logits are needed."""
        return (count - 1,) if self.cached + count == len(self.tokens) else ()

    def start(self) -> None:
        """The first step begins."""
        self._started = self._started or perf_counter()

    def accept(self, picked: Picked) -> None:
        """Take the next token: emit its text, and see whether the request ends with it."""
        now = perf_counter()
        self._first = self._first or now
        if picked.token in self.end_tokens:
            self.finish("stop")
            return
        self.tokens.append(picked.token)
        text, stopped = self.stops.push(self.decoder.push(picked.token), picked.token)
        self.deliver(Chunk(text, picked))
        if stopped:
            self.finish("stop")
        elif len(self.tokens) >= self.limit:
            self.finish("length")

    def finish(self, reason: FinishReason) -> None:
        """End the request."""
        self.done = True
        text, stopped = self.stops.push(self.decoder.finish())
        if not stopped:
            text += self.stops.finish()
        now = perf_counter()
        timings = Timings(self._started - self._submitted, self._first - self._started, now - self._first)
        self.deliver(Finished(text, reason, timings))

    def fail(self, error: Exception) -> None:
        """End the request with an error."""
        self.done = True
        self.deliver(Failed(error))


@dataclass(slots=True, eq=False)
class Scoring:
    """A text whose every token's logits are wanted; nothing is generated."""

    tokens: list[int]
    deliver: Callable[[Float32Array | Failed | None], None]  # rows in order, then None
    cached: int = 0
    blocks: list[int] = field(default_factory=list)
    cancelled: bool = False
    done: bool = False
    _delivered: int = 0

    def rows_wanted(self, count: int) -> Sequence[int]:
        """Of the next `count` tokens, those whose logits are needed: all that were not delivered before."""
        return range(min(max(self._delivered - self.cached, 0), count), count)

    def start(self) -> None:
        """The first step begins."""

    def accept(self, rows: Float32Array) -> None:
        """Take the logits that this step gave [rows, V]."""
        self._delivered += len(rows)
        self.deliver(rows.copy())
        if self._delivered == len(self.tokens):
            self.done = True
            self.deliver(None)

    def fail(self, error: Exception) -> None:
        """End the request with an error."""
        self.done = True
        self.deliver(Failed(error))
