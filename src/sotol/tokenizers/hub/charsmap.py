"""The normalizer "Precompiled": SentencePiece's table of texts that become others, as XLM-R, T5 and others have it.

The table is base64 of: the size of a trie, four bytes; the trie, a double array of 32-bit units (Aoe 1989; the layout
is that of darts-clone, https://github.com/s-yata/darts-clone); and the new texts, each ended by a zero byte. What is
looked up is as in `tokenizers`: a grapheme of less than six bytes as a whole, else its characters one by one, of which
the shortest beginning in the trie counts. The table is not trusted: every place is checked before it is read.
"""

import base64
import binascii
from collections.abc import Callable
from typing import NamedTuple

from sotol.errors import FormatError
from sotol.tokenizers.hub.parts import Part, compiled

__all__ = ["read_charsmap"]

SHORT = 6  # bytes: longer graphemes are not looked up as a whole
LONGEST = 1024  # bytes of a new text
CACHED = 10_000  # graphemes whose new texts are kept


class Charsmap(NamedTuple):
    """A table: units of the trie, and the new texts."""

    units: "memoryview[int]"
    texts: bytes

    def changed(self, grapheme: str) -> str:
        """What a grapheme becomes."""
        if len(grapheme.encode(errors="replace")) < SHORT and (whole := self.new_text(grapheme)) is not None:
            return whole
        return "".join(c if (new := self.new_text(c)) is None else new for c in grapheme)

    def new_text(self, chunk: str) -> str | None:
        """The text for a chunk that begins with one of the trie; None for any other."""
        found = self.shortest(chunk.encode(errors="replace"))
        if found is None or found >= len(self.texts):
            return None
        end = self.texts.find(b"\0", found, found + LONGEST)
        return self.texts[found : end if end >= 0 else found + LONGEST].decode(errors="ignore")

    def shortest(self, key: bytes) -> int | None:
        """The value of the shortest beginning of `key` that is in the trie."""
        units = self.units
        at = _offset(units[0])
        for byte in key:
            at ^= byte
            if byte == 0 or at >= len(units):
                return None
            unit = units[at]
            if unit & 0x800000FF != byte:  # a unit's label
                return None
            at ^= _offset(unit)
            if unit >> 8 & 1:  # it has a leaf, whose unit is the value
                return units[at] & 0x7FFFFFFF if at < len(units) else None
        return None


def _offset(unit: int) -> int:
    """Where a unit's children are, relative to it."""
    return (unit >> 10) << ((unit & 1 << 9) >> 6)


def read_charsmap(part: Part) -> Callable[[str], str]:
    """The function from text to text. FormatError for what is no such table."""
    try:
        data = base64.b64decode(part.text("precompiled_charsmap"), validate=True)
    except (binascii.Error, ValueError):
        raise FormatError(f"{part.file}: {part.where}.precompiled_charsmap is not base64") from None
    size = int.from_bytes(data[:4], "little")
    if len(data) < 8 or size % 4 or not 4 <= size <= len(data) - 4:
        raise FormatError(f"{part.file}: {part.where}.precompiled_charsmap has no trie of the size that it says")
    table = Charsmap(memoryview(data[4 : 4 + size]).cast("I"), data[4 + size :])
    graphemes, known = compiled(r"\X", part.file, part.where), dict[str, str]()

    def normalize(text: str) -> str:
        pieces = list[str]()
        for grapheme in graphemes.findall(text):
            if grapheme not in known:
                if len(known) >= CACHED:
                    known.clear()
                known[grapheme] = table.changed(grapheme)
            pieces.append(known[grapheme])
        return "".join(pieces)

    return normalize
