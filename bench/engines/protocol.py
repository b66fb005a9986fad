"""What an engine under measurement does. S sequences of equal length, K steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Engine", "Ids", "Setup"]

Ids = Sequence[int]


@dataclass(frozen=True, slots=True)
class Setup:
    """How an engine is to be loaded."""

    model: str  # path of a GGUF file
    threads: int
    context: int  # tokens of one sequence
    sequences: int  # that run at once


class Engine(Protocol):
    """A loaded model. An error of any kind means that it can't do what was asked."""

    about: str  # version, and what it makes of this CPU

    def prefill(self, ids: Ids) -> float:
        """Seconds of a prompt in an empty cache, with logits for its last token."""

    def decode(self, prompts: Sequence[Ids], answers: Sequence[Ids]) -> float:
        """Seconds of K steps, each a token for each of S sequences with its logits, behind prompts that do not count.

        prompts: [S, T]; answers: [K, S]. Engines that choose their own tokens take only the number of steps.
        """

    def first(self, ids: Ids) -> int:
        """The likeliest token behind a prompt."""

    def memory(self) -> Mapping[str, int]:
        """Known parts of the memory in use, in bytes; may be empty."""
