"""One request: its tokens, its cached memory, how its next token is chosen. Knows nothing of other requests."""

from collections import deque
from collections.abc import Callable, Hashable
from collections.abc import Sequence as List
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from sotol.arrays import Float32Array
from sotol.engine.constrain import Matcher
from sotol.engine.policy import NO_TERMS, Terms
from sotol.engine.sampling import Picked, Sampler
from sotol.engine.stops import StopMatcher
from sotol.engine.thinking import ThinkingBudget
from sotol.kv.memory import Held

__all__ = [
    "Decoder",
    "Event",
    "Failed",
    "FinishReason",
    "Finished",
    "Generation",
    "Scoring",
    "Sequence",
    "Timings",
    "TokenText",
]

FinishReason: TypeAlias = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds of a request: in the queue, until the first token, and from there to the last."""

    queued: float
    prefill: float
    decode: float


class TokenText(NamedTuple):
    """A token, and the text that can be released with it."""

    text: str
    picked: Picked


class Finished(NamedTuple):
    """The end of a request: the last text, and why it ended. reused: prompt tokens taken from the prefix cache.

    stop: the number of the stop that was found (`StopMatcher.found`).
    """

    text: str
    reason: FinishReason
    timings: Timings
    reused: int = 0
    stop: int | None = None


class Failed(NamedTuple):
    """The request has failed."""

    error: Exception


Event = TokenText | Finished | Failed


class Decoder(Protocol):
    """Turns ids into text one by one."""

    def push(self, token: int) -> str: ...
    def finish(self) -> str: ...


class Sequence(Protocol):
    """What the engine needs of a request.

    tokens: prompt and answer so far. limit: how many there may be at most. held: its blocks, while it runs. key: what
    the contents of its blocks depend on besides tokens (`Memory.open`). every_row: it wants the logits of every token.
    sampler: chooses the next token from a row of logits; None: the request takes rows of logits themselves. matcher:
    says what may be chosen. decided: the next token, if there is no choice. new: how many tokens the last step added.
    """

    tokens: list[int]
    held: Held | None
    key: Hashable
    terms: Terms
    every_row: bool
    done: bool
    cancelled: bool

    @property
    def limit(self) -> int: ...
    @property
    def sampler(self) -> Sampler | None: ...
    @property
    def matcher(self) -> Matcher | None: ...
    @property
    def decided(self) -> int | None: ...
    @property
    def new(self) -> int: ...
    @property
    def reusable(self) -> int:
        """How many of its first tokens may come from the prefix cache; the others must run: their rows are wanted."""
        ...

    def rows_wanted(self, count: int) -> List[int]:
        """Which of the next `count` tokens need a row of logits."""
        ...

    def start(self) -> None:
        """The scheduler has admitted it; more than once if it is preempted."""
        ...

    def accept(self, result: Any) -> None:
        """Take the result of a step: a Picked, or logits [rows, V]."""
        ...

    def complete(self) -> None:
        """Its answer is complete, and nothing may follow it."""
        ...

    def fail(self, error: Exception) -> None:
        """End the request with an error."""
        ...


@dataclass(slots=True, eq=False)
class Generation:
    """A request that continues a prompt."""

    tokens: list[int]
    sampler: Sampler
    decoder: Decoder
    stops: StopMatcher
    end_tokens: frozenset[int]
    limit: int  # the most tokens, prompt included
    deliver: Callable[[Event], None]
    terms: Terms = NO_TERMS
    key: Hashable = ()
    matcher: Matcher | None = None
    budget: ThinkingBudget | None = None
    held: Held | None = None
    every_row: bool = field(default=False, init=False)
    new: int = field(default=0, init=False)
    cancelled: bool = False
    done: bool = False
    _decided: deque[int] = field(default_factory=deque)
    _reused: int = 0
    _submitted: float = field(default_factory=perf_counter)
    _started: float = 0.0
    _first: float = 0.0

    @property
    def decided(self) -> int | None:
        """The next token, if its grammar or its budget leaves no choice, and its log-probability is wanted."""
        return self._decided[0] if self._decided else None

    @property
    def reusable(self) -> int:
        """All but the last token."""
        return len(self.tokens) - 1

    def rows_wanted(self, count: int) -> List[int]:
        """That of the last token, if it is among them."""
        return (count - 1,) if _length(self.held) + count == len(self.tokens) else ()

    def start(self) -> None:
        """Note the time and the cached prefix of its first admission."""
        if not self._started:
            self._started, self._reused = perf_counter(), _length(self.held)

    def accept(self, picked: Picked) -> None:
        """Take the next token, and those that must follow it: deliver their text, and finish if one is the last.

        Tokens without a choice are not chosen and run together, unless log-probabilities are wanted, for which each
        has to wait for its row: the same tokens, later.
        """
        now = perf_counter()
        self._first, self.new = self._first or now, 0
        if picked.token in self.end_tokens:
            self.finish("stop", picked.token)
            return
        if self._decided:
            self._decided.popleft()
        elif self.matcher is not None:
            self.matcher.accept(picked.token)
            self._decided.extend(self.matcher.forced())
        self._add(picked)
        if self.sampler.sampling.logprobs is None:
            while self._decided and not self.done:
                token = self._decided.popleft()
                if token in self.end_tokens:
                    self.finish("stop", token)
                    return
                self.sampler.accept(token)
                self._add(Picked(token, None, ()))

    def _add(self, picked: Picked) -> None:
        """Deliver a token's text, and finish if it is the last one."""
        self.tokens.append(picked.token)
        self.new += 1
        shown = self.decoder.push(picked.token)
        text, stopped = self.stops.push(shown, picked.token)
        self.deliver(TokenText(text, picked))
        if self.budget is not None and (closing := self.budget.take(shown)) and not self._decided:
            self._close_thoughts(closing)
        if stopped or (self.matcher is not None and not self._decided and self.matcher.over):
            self.finish("stop")
        elif len(self.tokens) >= self.limit:
            self.finish("length")

    def _close_thoughts(self, closing: list[int]) -> None:
        """The tokens that close its thoughts come next, and those that must follow them."""
        assert self.budget is not None
        self.budget.close()
        self._decided.extend(closing)
        if self.matcher is not None:
            for token in closing:
                self.matcher.accept(token)
            self._decided.extend(self.matcher.forced())

    def complete(self) -> None:
        """Its grammar allows nothing more."""
        self.finish("stop")

    def finish(self, reason: FinishReason, end: int | None = None) -> None:
        """End the request: deliver the text that was held back. end: the token that ends it, which may be a stop."""
        self.done = True
        text, stopped = self.stops.push(self.decoder.finish(), end)
        if not stopped:
            text += self.stops.finish()
        now = perf_counter()
        timings = Timings(self._started - self._submitted, self._first - self._started, now - self._first)
        self.deliver(Finished(text, reason, timings, self._reused, self.stops.found))

    def fail(self, error: Exception) -> None:
        """End the request with an error."""
        self.done = True
        self.deliver(Failed(error))


@dataclass(slots=True, eq=False)
class Scoring:
    """A request for the logits of every token of a text; nothing is generated."""

    tokens: list[int]
    deliver: Callable[[Float32Array | Failed | None], None]  # rows in order, then None
    terms: Terms = NO_TERMS
    key: Hashable = ()
    held: Held | None = None
    sampler: None = field(default=None, init=False)
    matcher: None = field(default=None, init=False)
    decided: None = field(default=None, init=False)
    new: int = field(default=0, init=False)
    every_row: bool = field(default=True, init=False)
    cancelled: bool = False
    done: bool = False
    _delivered: int = 0

    @property
    def limit(self) -> int:
        """Its own length: it does not grow."""
        return len(self.tokens)

    @property
    def reusable(self) -> int:
        """Tokens whose rows were delivered before it was preempted."""
        return self._delivered

    def rows_wanted(self, count: int) -> List[int]:
        """All rows that have not been delivered yet."""
        return range(min(max(self._delivered - _length(self.held), 0), count), count)

    def start(self) -> None:
        """Nothing to do."""

    def accept(self, rows: Float32Array) -> None:
        """Deliver the logits of a step [rows, V]."""
        self._delivered += len(rows)
        self.deliver(rows.copy())
        if self._delivered == len(self.tokens):
            self.done = True
            self.deliver(None)

    def complete(self) -> None:
        """It has no answer that could be."""

    def fail(self, error: Exception) -> None:
        """End the request with an error."""
        self.done = True
        self.deliver(Failed(error))


def _length(held: Held | None) -> int:
    """Tokens in memory."""
    return held.length if held is not None else 0
