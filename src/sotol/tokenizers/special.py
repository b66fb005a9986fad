"""Finding special tokens in text: at each place the longest of many texts, in time linear in the text.

Vocabularies have thousands of special tokens, and most runs look for few of them: so nothing is built but a sorted
list. A place where one may begin costs no more than comparing with a few texts, and the length of texts is bounded.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator

from sotol.tokenizers.characters import character_class

__all__ = ["Longest"]

LONGEST = 4096  # characters: longer texts, which no model has, are not looked for. To compare takes as long as they are
WINDOW = 32  # characters looked at first; few special tokens are longer
FEW = 64  # characters that texts begin with: of as many, what follows each of them is looked at too


class Longest:
    """Finds texts, leftmost first and of those the longest; without texts it finds nothing.

    Texts of more than 4096 characters are never found.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        """texts: none empty."""
        self._texts = sorted({text for text in texts if len(text) <= LONGEST})
        # The lengths of all texts that each begins with, its own last. They come before it in the order.
        self._lengths: list[tuple[int, ...]] = []
        open_: list[int] = []
        for i, text in enumerate(self._texts):
            while open_ and not text.startswith(self._texts[open_[-1]]):
                open_.pop()
            self._lengths.append((*(self._lengths[open_[-1]] if open_ else ()), len(text)))
            open_.append(i)
        self._longest = max(map(len, self._texts), default=0)
        self._begins = _beginnings(self._texts)

    def search(self, text: str, at: int = 0, room: Callable[[int], int] | None = None) -> tuple[int, int] | None:
        """Where the first of the texts from `at` on begins and ends, the longest if several begin there; or None.

        room: given a place, the longest that a text which begins there may be. Shorter ones may be found instead.
        """
        begins = self._begins.search
        while (match := begins(text, at)) is not None:
            start = match.start()
            if size := self._length_at(text, start, LONGEST if room is None else room(start)):
                return start, start + size
            at = start + 1
        return None

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """Where the texts begin and end in `text`, from left to right; none overlap."""
        search, end = self.search, 0
        while (found := search(text, end)) is not None:
            yield found
            end = found[1]

    def split(self, text: str) -> list[str]:
        """What lies between the texts, and at odd places the texts: joined, `text` again."""
        search, pieces, end = self.search, list[str](), 0
        while (found := search(text, end)) is not None:
            pieces += (text[end : found[0]], text[found[0] : found[1]])
            end = found[1]
        return [*pieces, text[end:]]

    def _length_at(self, text: str, at: int, most: int) -> int:
        """The length of the longest text that stands here and is no longer than `most`; 0 if none does."""
        texts = self._texts
        here = text[at : at + WINDOW]
        place = bisect_right(texts, here)
        if self._longest > WINDOW and place < len(texts) and texts[place].startswith(here):  # the window is too small
            here = text[at : at + self._longest]
            place = bisect_right(texts, here)
        if not place:
            return 0
        # Every text that stands here comes before `here` in the order, and the last before it begins with all of them:
        # they are those that are no longer than what it has in common with the text.
        lengths = self._lengths[place - 1]
        standing = bisect_right(lengths, min(_common(here, texts[place - 1]), most))
        return lengths[standing - 1] if standing else 0


def _common(one: str, other: str) -> int:
    """How many characters two texts begin with in common."""
    size = min(len(one), len(other))
    for i in range(min(size, WINDOW)):
        if one[i] != other[i]:
            return i
    return bisect_left(range(size), True, min(size, WINDOW), key=lambda i: one[: i + 1] != other[: i + 1])


def _beginnings(texts: list[str]) -> re.Pattern[str]:
    """Matches where one of the texts may begin, and at few other places.

    By their first two characters, unless that makes many alternatives: a space stands everywhere, two hardly anywhere.
    """
    seconds: dict[str, set[str]] = {}
    for text in texts:
        seconds.setdefault(text[0], set()).add(text[1:2])
    if len(seconds) > FEW:
        return re.compile(f"[{character_class(seconds)}]")
    begins = (
        re.escape(first) + ("" if "" in then else f"[{character_class(then)}]") for first, then in seconds.items()
    )
    return re.compile("|".join(begins) or "(?!)")
