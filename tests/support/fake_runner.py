"""A runner without a model, for tests of scheduling: its logits depend on the tokens so far, and on nothing else.

It finds those tokens in a cache with a slot for each, through the block tables of the step, as attention finds keys. So
a wrong table, position or shared block changes what is generated, and `alone` says what should have been.
"""

import zlib
from collections.abc import Callable, Sequence

import numpy as np

from sotol.engine.options import Sampling
from sotol.engine.sampling import Sampler, pick
from sotol.engine.sequence import Event, Generation, Scoring
from sotol.engine.stops import StopMatcher
from sotol.program.step import BLOCK_TOKENS, Limits, Step
from sotol.quant import Float32Array

__all__ = ["VOCABULARY", "FakeRunner", "Numbers", "alone", "generation", "logits_after", "scores", "scoring"]

VOCABULARY = 32


class FakeRunner:
    """Counts steps; `failure` is raised by the next step; `before` is called in each, on the engine's thread."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.steps = 0
        self.failure: Exception | None = None
        self.before: Callable[[Step], None] = lambda _step: None
        self._cache = np.full(limits.blocks * BLOCK_TOKENS, -1, np.int32)
        self._logits = np.zeros((limits.rows, VOCABULARY), np.float32)

    def run(self, step: Step) -> Float32Array:
        step.check(self.limits, VOCABULARY)
        self.steps += 1
        self.before(step)
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        slots = step.slots
        assert len(np.unique(slots)) == len(slots), "two tokens of a step share a slot"
        self._cache[slots] = step.tokens
        self._logits[:] = np.nan  # what the last step gave is valid no more
        for i, row in enumerate(step.logit_rows):
            sequence = int(np.searchsorted(step.starts, row, "right")) - 1
            past = np.arange(step.positions[row] + 1)
            at = step.blocks[sequence, past // BLOCK_TOKENS] * BLOCK_TOKENS + past % BLOCK_TOKENS
            self._logits[i] = logits_after(self._cache[at].tolist())
        return self._logits[: len(step.logit_rows)]


def logits_after(tokens: Sequence[int]) -> Float32Array:
    """The fake model itself: [V]."""
    seed = zlib.crc32(np.array(tokens, np.int32).tobytes())
    return (3 * np.random.default_rng(seed).normal(size=VOCABULARY)).astype(np.float32)


class Numbers:
    """A decoder for tokens without text: token 7 is "7,"."""

    def push(self, token: int) -> str:
        return f"{token},"

    def finish(self) -> str:
        return ""


def generation(
    tokens: Sequence[int],
    deliver: Callable[[Event], None],
    *,
    new: int = 5,
    ends: Sequence[int] = (),
    sampling: Sampling | None = None,
) -> Generation:
    """A request for `new` tokens, greedy unless told otherwise."""
    sampling = sampling or Sampling(temperature=0)
    sampler = Sampler(sampling, VOCABULARY, tokens)
    stops = StopMatcher(sampling.stop)
    return Generation(list(tokens), sampler, Numbers(), stops, frozenset(ends), len(tokens) + new, deliver)


def alone(
    tokens: Sequence[int], new: int, *, ends: Sequence[int] = (), sampling: Sampling | None = None
) -> tuple[list[int], str]:
    """The generated tokens and the reason of the end, without scheduling."""
    sampler = Sampler(sampling or Sampling(temperature=0), VOCABULARY, tokens)
    out: list[int] = []
    while len(out) < new:
        token = pick(logits_after([*tokens, *out])[None], [sampler])[0].token
        if token in ends:
            return out, "stop"
        out.append(token)
    return out, "length"


def scores(tokens: Sequence[int]) -> Float32Array:
    """[T, V] of a text."""
    return np.stack([logits_after(tokens[: i + 1]) for i in range(len(tokens))])


def scoring(tokens: Sequence[int], parts: list[object]) -> Scoring:
    """A request for a text's logits; what it delivers is added to `parts`."""
    return Scoring(list(tokens), parts.append)
