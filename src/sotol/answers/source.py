"""Text that arrives in any cuts, read as if it were all there: readers are generators that wait for more.

Each character is looked at a bounded number of times, and nothing is copied again and again, however long a reader
waits: what it has read leaves the buffer, and is noted, so that it can be given back.
"""

import re
from collections.abc import Callable, Generator, Iterable
from typing import TypeAlias, TypeVar

__all__ = ["Malformed", "Markers", "Reading", "Source"]

T = TypeVar("T")
Reading: TypeAlias = Generator[None, None, T]  # yields where it needs more text
IN_STRING = re.compile(r'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
SPACE = re.compile(r"\s*+")
SCALAR = re.compile(r"[^\s,;{}\[\]\"]*+")
LITTLE = 16  # characters that are looked at before they are read
LONGEST_NAME = 256  # characters; names of OpenAI's API have 64


class Malformed(Exception):
    """What was read is not what it seemed to be."""


class Markers:
    """A set of texts to look for."""

    def __init__(self, texts: Iterable[str]) -> None:
        longest_first = sorted({text for text in texts if text}, key=lambda text: (-len(text), text))
        self.texts = tuple(longest_first)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)", re.DOTALL)
        self._beginnings = {text[:count] for text in longest_first for count in range(1, len(text))}
        self.longest = max(map(len, self._beginnings), default=0)  # beginning of one

    def search(self, text: str, at: int) -> re.Match[str] | None:
        """The first marker from `at` on, the longest of those that begin there."""
        return self._pattern.search(text, at)

    def pending(self, text: str, at: int) -> int:
        """How many characters at the end of text[at:], at most, may be the beginning of a marker."""
        for count in range(min(self.longest, len(text) - at), 0, -1):
            if text[-count:] in self._beginnings:
                return count
        return 0

    def without(self, text: str) -> str:
        """The text without them."""
        return self._pattern.sub("", text)


class Source:
    """What has come and is not read yet. taken: what a reader has taken since `taken` was last cleared. ended: no more
    will come.
    """

    def __init__(self) -> None:
        self._text, self._at, self.ended = "", 0, False
        self.taken: list[str] = []

    def add(self, text: str) -> None:
        """More text has come."""
        self._text, self._at = self._text[self._at :] + text, 0

    @property
    def waiting(self) -> int:
        """How many characters have come and are not read: never many, as long as readers take what they know."""
        return len(self._text) - self._at

    def end(self) -> None:
        """No more will."""
        self.ended = True

    def take(self, count: int) -> str:
        """Read that many characters, which are there."""
        text = self._text[self._at : self._at + count]
        self._at += count
        self.taken.append(text)
        return text

    def peek(self) -> Reading[str]:
        """The next character; "" at the end."""
        while self._at == len(self._text):
            if self.ended:
                return ""
            yield
        return self._text[self._at]

    def second(self) -> Reading[str]:
        """The first character behind the next one that is no white space, of which there is little; "" if none is."""
        while True:
            rest = self._text[self._at + 1 : self._at + 1 + LITTLE].lstrip()
            if rest or self.ended or len(self._text) > self._at + LITTLE:
                return rest[:1]
            yield

    def space(self) -> Reading[None]:
        """Read all white space."""
        while (yield from self.peek()).isspace():
            found = SPACE.match(self._text, self._at)
            assert found is not None
            self.take(found.end() - self._at)

    def literal(self, *texts: str) -> Reading[str]:
        """Read one of these texts, none of which begins with another, if it comes next; "" if none does."""
        longest = max(map(len, texts), default=0)
        while longest:
            for text in texts:
                if text and self._text.startswith(text, self._at):
                    return self.take(len(text))
            rest = self._text[self._at : self._at + longest]
            if self.ended or not any(text.startswith(rest) for text in texts if text):
                break
            yield
        return ""

    def flow(self, markers: Markers, give: Callable[[str], object]) -> Reading[str]:
        """Give away text as it comes, up to a marker, which is not read yet; "" if the end comes first."""
        while True:
            text, at = self._text, self._at
            found = markers.search(text, at)
            end = len(text) if found is None else found.start()
            if not self.ended and len(text) - end <= markers.longest:  # a longer or an earlier one may still come
                held = markers.pending(text, at)
                if len(text) - end <= held:
                    found, end = None, len(text) - held
            self._at = end
            if end > at:
                give(text[at:end])
            if found is not None or self.ended:
                return "" if found is None else found[0]
            yield

    def gather(self, markers: Markers, parts: list[str]) -> Reading[str]:
        """Read text of any length into parts, as it comes: up to a marker, as `flow`."""

        def note(text: str) -> None:
            parts.append(text)
            self.taken.append(text)

        return (yield from self.flow(markers, note))

    def until(self, markers: Markers) -> Reading[tuple[str, str]]:
        """Read a short text, a name, up to a marker, which is not read yet: both. Malformed if none comes soon."""
        parts: list[str] = []
        room = LONGEST_NAME

        def note(text: str) -> None:
            nonlocal room
            parts.append(text[:room])
            self.taken.append(text[:room])
            self._at -= max(0, len(text) - room)  # what is too much is not read, or cuts would decide how much is
            room -= len(text)
            if room < 0:
                raise Malformed

        marker = yield from self.flow(markers, note)
        if not marker:
            raise Malformed
        return "".join(parts), marker

    def string(self, longest: int | None = None) -> Reading[str]:
        """Read a JSON string, as it is written. Malformed for something else, and at the end."""
        if (yield from self.peek()) != '"':
            raise Malformed
        parts = [self.take(1)]
        room = float("inf") if longest is None else longest
        while True:
            found = IN_STRING.match(self._text, self._at)
            assert found is not None
            size = found.end() - self._at
            parts.append(self.take(int(min(size, room))))
            room -= size
            if room >= 0 and self._text.startswith('"', self._at):
                return "".join([*parts, self.take(1)])
            if room < 0 or self.ended:
                raise Malformed
            yield

    def value(self) -> Reading[str]:
        """Read a JSON value, as it is written; brackets are counted, not more. Malformed as of `string`."""
        first = yield from self.peek()
        if first == '"':
            return (yield from self.string())
        parts: list[str] = []
        if first not in ("{", "["):
            while (yield from self.peek()) and (found := SCALAR.match(self._text, self._at)) and found[0]:
                parts.append(self.take(len(found[0])))
            if not parts:
                raise Malformed
            return "".join(parts)
        depth = 0
        while True:
            mark = yield from self.gather(STRUCTURE, parts)
            if mark == '"':
                parts.append((yield from self.string()))
                continue
            if not mark:
                raise Malformed
            parts.append(self.take(1))
            depth += 1 if mark in "{[" else -1
            if not depth:
                return "".join(parts)


STRUCTURE = Markers('"{}[]')
