"""Finding special tokens in text: at each place the longest of many texts, in time linear in the text.

Vocabularies have thousands of special tokens, and most runs look for few of them: so nothing is built but a sorted
list. A place where one may begin costs at most the longest text.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator

__all__ = ["Longest"]

WINDOW = 32  # characters looked at first; few special tokens are longer


class Longest:
    """Finds texts, leftmost first and of those the longest; without texts it finds nothing."""

    def __init__(self, texts: Iterable[str]) -> None:
        """texts: none empty."""
        self._texts = sorted(set(texts))
        # The lengths of all texts that each begins with, its own last. They come before it in the order.
        self._lengths: list[tuple[int, ...]] = []
        open_: list[int] = []
        for i, text in enumerate(self._texts):
            while open_ and not text.startswith(self._texts[open_[-1]]):
                open_.pop()
            self._lengths.append((*(self._lengths[open_[-1]] if open_ else ()), len(text)))
            open_.append(i)
        # How a text begins, by its first two characters: spaces stand everywhere, two of them hardly anywhere.
        seconds: dict[str, set[str]] = {}
        for text in self._texts:
            seconds.setdefault(text[0], set()).add(text[1:2])
        begins = (
            re.escape(first) + ("" if "" in then else f"[{''.join(map(re.escape, then))}]")
            for first, then in seconds.items()
        )
        self._begins = re.compile("|".join(begins) or "(?!)")

    def search(self, text: str, at: int = 0, room: Callable[[int], int] | None = None) -> tuple[int, int] | None:
        """Where the first of the texts from `at` on begins and ends, the longest there.

        room: tells how long one that begins at a place may be; None: as long as it is.
        """
        while (match := self._begins.search(text, at)) is not None:
            start = match.start()
            size = self._length_at(text, start, len(text) if room is None else start + room(start))
            if size:
                return start, start + size
            at = start + 1
        return None

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """Where the texts begin and end in `text`."""
        at = 0
        while (found := self.search(text, at)) is not None:
            yield found
            at = found[1]

    def split(self, text: str) -> list[str]:
        """What lies between the texts, and at odd places the texts: joined, `text` again."""
        pieces, end = [], 0
        for start, stop in self.find(text):
            pieces += [text[end:start], text[start:stop]]
            end = stop
        return [*pieces, text[end:]]

    def _length_at(self, text: str, at: int, end: int) -> int:
        """The length of the longest text that stands here and ends before `end`; 0 if none does."""
        texts, window = self._texts, WINDOW
        while True:
            here = text[at : min(at + window, end)]
            place = bisect_right(texts, here)
            if place == len(texts) or len(here) < window or not texts[place].startswith(here):
                break
            window *= 2
        if not place:
            return 0
        # Every text that stands here comes before `here` in the order, and the last before it begins with all of them:
        # they are those that are no longer than what it has in common with the text.
        common = 0
        for one, other in zip(here, texts[place - 1], strict=False):
            if one != other:
                break
            common += 1
        lengths = self._lengths[place - 1]
        standing = bisect_right(lengths, common)
        return lengths[standing - 1] if standing else 0
