"""Pre-tokenizers of tokenizer.json: what cuts a text into words. Their meaning is that of the library `tokenizers`.

A splitter takes the pieces so far, and whether the first of them begins the whole text, and gives smaller ones.
"""

import re
import string
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from sotol.tokenizers.characters import WHITE
from sotol.tokenizers.hub.normalizers import spelled
from sotol.tokenizers.hub.parts import Part, Unsupported, check_growth, compiled, in_time
from sotol.tokenizers.pretokenize import GPT2

if TYPE_CHECKING:
    import regex

__all__ = ["Split", "read_splitter"]

Split = Callable[[list[str], bool], list[str]]
Pieces = Callable[[str], list[str]]

BEHAVIORS = ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")
SPACES = "[" + WHITE + "]"
PUNCTUATION = r"[" + "".join("\\" + mark for mark in string.punctuation) + r"\p{P}]"


def read_splitter(given: Part | None) -> Split | None:
    """All pre-tokenizers of a part as one function; None if there are none. Unsupported names what sotol lacks."""
    parts = [] if given is None else given.all_of("pretokenizers")
    steps = [_step(part) for part in parts]
    check_growth(parts)
    if len(steps) <= 1:
        return steps[0] if steps else None

    def split(pieces: list[str], first: bool) -> list[str]:
        text = pieces[0]
        for step in steps:
            pieces = step(pieces, first)
            first = first and bool(pieces) and text.startswith(pieces[0])  # or what began it was taken away
        return pieces

    return split


def _step(part: Part) -> Split:
    make = STEPS.get(part.kind)
    if make is None:
        raise Unsupported(f"{part.where} {part.kind:.40}")
    return make(part)


def _each(cut: Pieces) -> Split:
    """A splitter that cuts each piece by itself; pieces without characters are left out."""
    return lambda pieces, _: [word for piece in pieces for word in cut(piece) if word]


def _by_pattern(pattern: "regex.Pattern[str]", behavior: str, *, invert: bool = False) -> Pieces:
    """What becomes of the matches of a pattern, or of what lies between them (invert)."""
    if behavior == "Isolated" and not pattern.groups:  # the most frequent one, and quicker
        import regex  # noqa: PLC0415

        whole = regex.compile(f"({pattern.pattern})", pattern.flags)
        return lambda text: list(in_time(len(text), lambda left: whole.split(text, timeout=left)))

    def cut(text: str) -> list[str]:
        def search(left: float) -> list[str]:
            spans = list(_spans(pattern, text, left, invert=invert))
            return [text[start:end] for start, end in MERGES[behavior](spans)]

        return list(in_time(len(text), search))

    return cut


Spans = list[tuple[int, int, bool]]


def _spans(pattern: "regex.Pattern[str]", text: str, left: float, *, invert: bool) -> Iterator[tuple[int, int, bool]]:
    """The text's parts in order, and whether each is a match (or, inverted, is none)."""
    end = 0
    for match in pattern.finditer(text, timeout=left):
        if match.start() > end:
            yield end, match.start(), invert
        yield match.start(), match.end(), not invert
        end = match.end()
    if end < len(text):
        yield end, len(text), invert


def _joined(spans: Spans) -> list[tuple[int, int]]:
    """Neighbours of the same kind together."""
    kept, before = list[tuple[int, int]](), None
    for start, end, found in spans:
        if found is before:
            start = kept.pop()[0]
        kept.append((start, end))
        before = found
    return kept


def _with_previous(spans: Spans) -> list[tuple[int, int]]:
    """Each match joins what precedes it, unless that is a match."""
    kept, before = list[tuple[int, int]](), False
    for start, end, found in spans:
        if found and not before and kept:
            start = kept.pop()[0]
        kept.append((start, end))
        before = found
    return kept


def _with_next(spans: Spans) -> list[tuple[int, int]]:
    """Each match joins what follows it, unless that is a match."""
    kept, after = list[tuple[int, int]](), False
    for start, end, found in reversed(spans):
        if found and not after and kept:
            end = kept.pop()[1]
        kept.append((start, end))
        after = found
    return kept[::-1]


MERGES: dict[str, Callable[[Spans], list[tuple[int, int]]]] = {
    "Removed": lambda spans: [(start, end) for start, end, found in spans if not found],
    "Isolated": lambda spans: [(start, end) for start, end, _ in spans],
    "Contiguous": _joined,
    "MergedWithPrevious": _with_previous,
    "MergedWithNext": _with_next,
}


def _split(part: Part) -> Split:
    (literal, pattern), invert = part.pattern(), part.flag("invert", False)
    behavior = part.choice("behavior", "Isolated", BEHAVIORS)
    if behavior == "Removed" and invert:  # only the matches stay: as some files have it whose matches cover all
        return _each(_matches(pattern))
    cut = _by_pattern(pattern, behavior, invert=invert)
    if literal is None:
        return _each(cut)
    return _each(lambda text: cut(text) if literal in text else [text])


def _matches(pattern: "regex.Pattern[str]") -> Pieces:
    return lambda text: list(
        in_time(len(text), lambda left: [match[0] for match in pattern.finditer(text, timeout=left)])
    )


def _fixed(expression: str, behavior: str) -> Callable[[Part], Split]:
    """A splitter whose pattern is known."""

    def make(part: Part) -> Split:
        pattern = compiled(expression, part.file, part.where)
        return _each(_matches(pattern) if behavior == "Matches" else _by_pattern(pattern, behavior))

    return make


def _punctuation(part: Part) -> Split:
    return _fixed(PUNCTUATION, part.choice("behavior", "Isolated", BEHAVIORS))(part)


def _digits(part: Part) -> Split:
    return _fixed(r"\p{N}", "Isolated" if part.flag("individual_digits", False) else "Contiguous")(part)


def _at_character(part: Part) -> Split:
    delimiter = part.text("delimiter")
    if len(delimiter) != 1:
        part.fail("delimiter", "one character")
    return _each(lambda text: text.split(delimiter))


def _bert(part: Part) -> Split:
    spaces, marks = _fixed(SPACES, "Removed")(part), _fixed(PUNCTUATION, "Isolated")(part)
    return lambda pieces, first: marks(spaces(pieces, first), first)


def _byte_level(part: Part) -> Split:
    prefixed, cut = part.flag("add_prefix_space", True), part.flag("use_regex", True)
    split = _fixed(GPT2, "Isolated")(part) if cut else None

    def spell(pieces: list[str], first: bool) -> list[str]:
        if prefixed:
            pieces = [piece if piece.startswith(" ") else " " + piece for piece in pieces]
        return list(map(spelled, pieces if split is None else split(pieces, first)))

    return spell


def _metaspace(part: Part) -> Split:
    mark = part.text("replacement", "▁")
    if len(mark) != 1:
        part.fail("replacement", "one character")
    old = "always" if part.flag("add_prefix_space", True) else "never"  # before prepend_scheme
    scheme = part.choice("prepend_scheme", old, ("always", "first", "never"))
    cut = _by_pattern(compiled(re.escape(mark), part.file, part.where), "MergedWithNext")
    split = part.flag("split", True)

    def spaced(pieces: list[str], first: bool) -> list[str]:
        words = list[str]()
        for i, piece in enumerate(pieces):
            piece = piece.replace(" ", mark)
            begins = scheme == "always" or (scheme == "first" and first and i == 0)
            if begins and not piece.startswith(mark):
                piece = mark + piece
            words += cut(piece) if split else [piece]
        return [word for word in words if word]

    return spaced


STEPS: dict[str, Callable[[Part], Split]] = {
    "ByteLevel": _byte_level,
    "Split": _split,
    "Metaspace": _metaspace,
    "Whitespace": _fixed(r"\w+|[^\w\s]+", "Matches"),
    "WhitespaceSplit": _fixed(SPACES, "Removed"),
    "BertPreTokenizer": _bert,
    "Punctuation": _punctuation,
    "Digits": _digits,
    "CharDelimiterSplit": _at_character,
}
