"""How long a model may think: counts the tokens of its thoughts, and closes them when they are too many.

Works on text as the answer's reader has it, since marks may be tokens or not. Knows nothing of steps.
"""

from collections.abc import Sequence

__all__ = ["ThinkingBudget"]


class ThinkingBudget:
    """The thoughts of one answer.

    pairs: what they stand between, and the ids that close them. begun: the prompt has opened one. most: how many tokens
    they may have; what opens them, and what closes them, does not count.
    """

    def __init__(self, pairs: Sequence[tuple[str, str, list[int]]], most: int, *, begun: bool = False) -> None:
        self._pairs, self._left = pairs, most
        self._closers = tuple(close for _, close, _ in pairs) if begun else ()
        self._closing = pairs[0][2] if begun else []
        self._over = False
        self._seen = ""  # of the answer, before it thinks; and of what may be the beginning of a closer

    def take(self, text: str) -> list[int]:
        """A token's text: the ids that must follow it, if that was the last thought that there may be."""
        if self._over:
            return []
        self._seen += text
        if not self._closers:
            self._look()
            return []
        self._left -= 1
        if any(close in self._seen for close in self._closers):
            self._over = True
            return []
        self._seen = self._seen[-max(map(len, self._closers)) :]
        return self._closing if self._left <= 0 else []

    def close(self) -> None:
        """What closes them follows."""
        self._over = True

    def _look(self) -> None:
        """Whether it has begun to think, or will not."""
        seen = self._seen.lstrip()
        for begin, close, ids in self._pairs:
            if seen.startswith(begin.lstrip()):
                self._closers, self._closing, self._seen = (close,), ids, ""
                return
        self._over = not any(begin.lstrip().startswith(seen) for begin, _, _ in self._pairs)
