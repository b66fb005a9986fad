"""Finds special tokens in text: the leftmost, and of those the longest, in time linear in the text.

Vocabularies have thousands of special tokens, but most programs search little text. So the only index is a sorted list,
which is quick to build. A position where a token may begin costs comparisons with a few texts of bounded length.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator

from sotol.tokenizers.characters import character_class

__all__ = ["LongestMatcher"]

LONGEST = 4096  # characters: longer texts, which no model has, are never found. This bounds the time of a comparison
WINDOW = 32  # characters that are compared first; few special tokens are longer
FEW = 64  # if all texts begin with at most this many characters, the pattern also checks the second character


class LongestMatcher:
    """Finds any of many texts in a text: the leftmost, and of those the longest.

    Texts of more than 4096 characters are never found.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        """texts: none empty."""
        self._texts = sorted({text for text in texts if len(text) <= LONGEST})
        # For each text, the lengths of all texts that are its prefixes, its own last. In sorted order they precede it.
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
        """Start and end of the first match from `at` on, the longest of those that begin there; None without a match.

        room(start): the longest match that is allowed to begin at `start`; a shorter text may match there instead.
        """
        begins = self._begins.search
        while (match := begins(text, at)) is not None:
            start = match.start()
            if size := self._length_at(text, start, LONGEST if room is None else room(start)):
                return start, start + size
            at = start + 1
        return None

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """Start and end of all matches, from left to right, without overlap."""
        search, end = self.search, 0
        while (found := search(text, end)) is not None:
            yield found
            end = found[1]

    def split(self, text: str) -> list[str]:
        """The text between matches, and at odd indices the matches; joined, they give `text` again."""
        search, pieces, end = self.search, list[str](), 0
        while (found := search(text, end)) is not None:
            pieces += (text[end : found[0]], text[found[0] : found[1]])
            end = found[1]
        return [*pieces, text[end:]]

    def _length_at(self, text: str, at: int, most: int) -> int:
        """The length of the longest match that begins at `at`, of at most `most` characters; 0 without one."""
        texts = self._texts
        here = text[at : at + WINDOW]
        place = bisect_right(texts, here)
        if self._longest > WINDOW and place < len(texts) and texts[place].startswith(here):  # the window is too small
            here = text[at : at + self._longest]
            place = bisect_right(texts, here)
        if not place:
            return 0
        # All matches are prefixes of `here`, so they sort before it, and the last text before it begins with each of
        # them: they are that text's prefixes that are no longer than what it has in common with `here`.
        lengths = self._lengths[place - 1]
        standing = bisect_right(lengths, min(_common(here, texts[place - 1]), most))
        return lengths[standing - 1] if standing else 0


def _common(one: str, other: str) -> int:
    """The length of the common prefix of two texts."""
    size = min(len(one), len(other))
    for i in range(min(size, WINDOW)):
        if one[i] != other[i]:
            return i
    return bisect_left(range(size), True, min(size, WINDOW), key=lambda i: one[: i + 1] != other[: i + 1])


def _beginnings(texts: list[str]) -> re.Pattern[str]:
    """A pattern that matches wherever one of the texts may begin, and in few other places.

    It checks the first two characters, unless that takes too many alternatives: single spaces are everywhere in text,
    double spaces are rare.
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
