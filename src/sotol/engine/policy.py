"""Scheduling policy: which request comes first, and how much prefill a step may do. The scheduler carries it out."""

import math
from collections.abc import Hashable
from typing import NamedTuple

__all__ = ["NO_TERMS", "Pace", "Terms"]


class Terms(NamedTuple):
    """What a request may ask of the scheduler.

    client: capacity is shared fairly between clients; None: the requests of one submission are a client. priority:
    higher ones start first and are preempted last. deadline: on the clock of `time.monotonic()`; a request that has not
    finished by then fails, and among equal priorities the earlier deadline starts first.
    """

    client: Hashable = None
    priority: int = 0
    deadline: float = math.inf


NO_TERMS = Terms()


class Pace:
    """How many prompt tokens a step may prefill beside decoding sequences, so that these are hardly delayed.

    A mixed step should take `slowdown` times as long as one that only decodes. Where many wait for their first token,
    beside those that decode, what prefill adds may be longer in proportion: they wait, too. Steps that only decode are
    measured now and then, by the number of sequences. The number of prompt tokens is set by feedback, from one mixed
    step to the next, since what a token costs depends on how many there are and on the context before them.
    """

    WAITING = 4.0  # who waits for a first token counts as so many who wait for their next ones

    FRESH = 0.2  # the weight of the newest measurement
    OUTLIER = 2.0  # a measurement counts as so many times the known one at most: the system may have held it up
    # The most that one step changes the number of prompt tokens; both alike, or a speed that varies would move it.
    SLOWER, FASTER = 0.8, 1.25
    LEAST = 4  # prompt tokens in a step, so that prefill always makes progress
    MIXED = 32  # steps with prompts, after which one that only decodes is measured again

    def __init__(self, slowdown: float, step_tokens: int) -> None:
        self._slowdown, self._most = slowdown, step_tokens
        self._decoding: dict[int, float] = {}  # seconds of a step, by the bit length of how many sequences decode
        self._tokens = max(1.0, step_tokens / 4)  # of prompts, where no more wait than decode
        self._share = 1.0  # how much those that wait count, to each that decodes, at least 1: in the current step
        self._mixed = 0  # steps since one only decoded

    def prompt_tokens(self, waiting: int, decoding: int) -> int:
        """Prompt tokens for a step in which sequences decode and `waiting` others wait for their first token.

        0: to measure a step that only decodes. Before the first measurement, a quarter of what a step can take.
        """
        self._share = 1.0
        if not self._decoding:
            return int(self._tokens)
        if decoding.bit_length() not in self._decoding or self._mixed >= self.MIXED:
            return 0
        self._share = max(1.0, self.WAITING * waiting / decoding)
        return min(self._most, int(self._tokens * self._share))

    def note(self, decoding: int, prompt_tokens: int, seconds: float) -> None:
        """Record the time of the current step: how many sequences decode, how many tokens of prompts are prefilled."""
        size = decoding.bit_length()
        if not prompt_tokens:
            known = self._decoding.get(size, seconds)
            self._decoding[size] = known + self.FRESH * (min(seconds, self.OUTLIER * known) - known)
            self._mixed = 0
            return
        self._mixed += 1
        alone = self._decoding.get(size)
        if alone is not None:
            change = alone * (1 + (self._slowdown - 1) * self._share) / max(seconds, 1e-9)
            tokens = prompt_tokens / self._share
            if change < 1 or tokens >= int(self._tokens):  # a step with fewer does not tell that more are fine
                wanted = tokens * min(max(change, self.SLOWER), self.FASTER)
                self._tokens = min(float(self._most), max(float(self.LEAST), wanted))
