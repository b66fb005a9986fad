"""Engines that run one step when told: how their prompts and answers are timed."""

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Protocol

from bench.engines.protocol import Ids

__all__ = ["Stepper", "Stepping"]


class Stepper(Protocol):
    """One step at a time, done when the call returns."""

    about: str

    def clear(self) -> None:
        """Empty the cache."""

    def prompt(self, ids: Ids, sequence: int) -> None:
        """Run a prompt into a sequence that is empty, with logits for the last token."""

    def step(self, tokens: Ids, position: int) -> None:
        """Token s to sequence s, all at this position, with logits for each."""

    def rewind(self, position: int) -> None:
        """Forget all tokens from a position on."""

    def likeliest(self) -> int:
        """The token with the largest logit in the last row."""

    def memory(self) -> Mapping[str, int]:
        """As of `Engine`."""


class Stepping:
    """A stepper as an engine. Prompts stay in the cache for the next answer to them."""

    def __init__(self, stepper: Stepper) -> None:
        self._stepper = stepper
        self._held: Sequence[Ids] = ()
        self.about = stepper.about

    def prefill(self, ids: Ids) -> float:
        self._held = ()
        self._stepper.clear()
        begin = perf_counter()
        self._stepper.prompt(ids, 0)
        return perf_counter() - begin

    def decode(self, prompts: Sequence[Ids], answers: Sequence[Ids]) -> float:
        stepper, position = self._stepper, len(prompts[0])
        if self._held != prompts:
            stepper.clear()
            for sequence, ids in enumerate(prompts):
                stepper.prompt(ids, sequence)
            self._held = prompts
        stepper.step(answers[0], position)  # wakes the threads
        stepper.rewind(position)
        begin = perf_counter()
        for at, tokens in enumerate(answers, position):
            stepper.step(tokens, at)
        seconds = perf_counter() - begin
        stepper.rewind(position)
        return seconds

    def first(self, ids: Ids) -> int:
        self._stepper.prompt(ids, 0)
        return self._stepper.likeliest()

    def memory(self) -> Mapping[str, int]:
        return self._stepper.memory()
