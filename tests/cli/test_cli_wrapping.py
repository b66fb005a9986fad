"""Word wrap: what a terminal shows of it, for any text in any pieces."""

import unicodedata
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from sotol.cli.wrapping import WordWrap, columns_of

LETTERS = st.sampled_from([*"abcdefgh", "é", "e\u0301", "\u200d", "日", "本", "😀", "-", "."])
TEXT = st.lists(LETTERS | st.sampled_from([" ", " ", " ", "\n", "\t"]), max_size=200).map("".join)


class Screen:
    """A terminal in small: cells, newlines, moving left, erasing to the end of a line; it breaks full lines."""

    def __init__(self, columns: int) -> None:
        self.columns, self.lines, self.column = columns, [[""]], 0

    def write(self, text: str) -> None:
        while text:
            if text.startswith("\x1b["):
                number = text[2:].partition("D")[0]
                if number.isdigit():
                    self.column -= int(number)
                    text = text[3 + len(number) :]
                else:
                    assert text.startswith("\x1b[K")
                    self.lines[-1] = self.lines[-1][: self.column]
                    text = text[3:]
                continue
            self._character(text[0])
            text = text[1:]

    def _character(self, char: str) -> None:
        if char == "\n":
            self.lines, self.column = [*self.lines, []], 0
            return
        width = columns_of(char)
        if char == "\t":
            width = 8 - self.column % 8
        if self.column + width > self.columns:
            self.lines, self.column = [*self.lines, []], 0
        row = self.lines[-1]
        row += [""] * (self.column + width - len(row))
        at = self.column if width else max(self.column - 1, 0)
        if not row:
            row.append("")
        row[at] += char
        self.column += width

    def text(self) -> list[str]:
        return ["".join(row) for row in self.lines]


def shown(text: str, columns: int, cuts: list[int]) -> list[str]:
    """The lines of the screen after the text came in pieces."""
    screen, lines = Screen(columns), WordWrap(lambda: columns)
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    for begin, end in pairwise(places):
        screen.write(lines.take(text[begin:end]))
    return screen.text()


def width_of(text: str) -> int:
    return sum(columns_of(c) for c in text)


@given(TEXT, st.integers(4, 40), st.lists(st.integers(0, 1000)))
def test_nothing_is_lost_and_words_stay_whole(text: str, columns: int, cuts: list[int]) -> None:
    lines = shown(text, columns, cuts)
    assert "".join("".join(lines).split()) == "".join(text.split())
    narrow = [word for word in text.split() if width_of(word) < columns and not any(columns_of(c) == 2 for c in word)]
    whole = [word for line in lines for word in line.split()]
    if len(narrow) == len(text.split()):
        assert whole == narrow


@given(TEXT, st.integers(4, 40), st.lists(st.integers(0, 1000)))
def test_pieces_do_not_matter(text: str, columns: int, cuts: list[int]) -> None:
    assert shown(text, columns, cuts) == shown(text, columns, [])


def test_examples() -> None:
    assert shown("the quick brown fox", 10, []) == ["the quick", "brown fox"]
    assert shown("a verylongwordindeed b", 10, []) == ["a ", "verylongwo", "rdindeed", "b"]
    assert shown("日本語日本語", 8, []) == ["日本語", "日本語"]
    assert shown("    indented\ncode", 40, []) == ["    indented", "code"]


def test_an_unknown_width_changes_nothing() -> None:
    assert WordWrap(lambda: 0).take("any text\tat all " * 20) == "any text\tat all " * 20


@given(st.characters(categories=["Lu", "Ll", "Lo", "Mn", "Nd", "So", "Po"]))
def test_columns(char: str) -> None:
    wide = unicodedata.east_asian_width(char) in ("W", "F")
    assert columns_of(char) == (0 if unicodedata.category(char) == "Mn" else 2 if wide else 1)
