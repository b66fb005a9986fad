"""Words that stay whole at the right edge of a terminal, though an answer comes piece by piece.

A word is shown as far as it is known. When it turns out not to fit, it is taken back and begun on the next line.
"""

from collections.abc import Callable
from unicodedata import category, east_asian_width

__all__ = ["WordWrap", "columns_of"]

TAB = 8


def columns_of(char: str) -> int:
    """How many columns a terminal gives a character: 0 for what joins the one before, 2 for wide ones (UAX #11)."""
    if char < "\x7f":
        return 1
    if category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if east_asian_width(char) in "WF" else 1


class WordWrap:
    """The state of the line that is being written; width tells the terminal's columns, 0 if unknown; it may change."""

    def __init__(self, width: Callable[[], int]) -> None:
        self._width = width
        self._column = 0  # where the next character goes
        self._word = ""  # what of the last word is on the line
        self._word_columns = 0

    def take(self, piece: str) -> str:
        """What to write for the next piece of text, which has no control characters but tabs and newlines."""
        # The last column stays free: terminals differ in where the cursor is when it is used.
        room = self._width() - 1
        if room < 1:
            return piece
        return "".join(self._character(char, room) for char in piece)

    def _character(self, char: str, room: int) -> str:
        if char == "\n":
            self._begin_line()
            return char
        if char in " \t":
            return self._space(char, room)
        columns, moved = columns_of(char), ""
        if self._column + columns > room and self._word_columns < self._column:  # a word that began within the line
            moved = (f"\x1b[{self._word_columns}D\x1b[K" if self._word else "") + "\n" + self._word
            self._column = self._word_columns
        self._column += columns
        if columns == 2:  # lines may break between any two of them
            self._word, self._word_columns = "", 0
        else:
            self._word, self._word_columns = self._word + char, self._word_columns + columns
        return moved + char

    def _space(self, char: str, room: int) -> str:
        stop = self._column + 1 if char == " " else (self._column // TAB + 1) * TAB
        if stop > room:
            self._begin_line()
            return "\n"
        self._column, self._word, self._word_columns = stop, "", 0
        return char

    def _begin_line(self) -> None:
        self._column, self._word, self._word_columns = 0, "", 0
