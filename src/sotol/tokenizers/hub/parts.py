"""Typed access to the objects of tokenizer.json, and what is common to its patterns.

Each part of such a file (a normalizer, a model, …) is an object with a type and fields. `Unsupported` says that sotol
lacks what a part asks for: whoever reads the file collects these into one error.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from sotol.errors import FormatError, ModelError, SotolError, plain

if TYPE_CHECKING:
    import regex

__all__ = ["Part", "Unsupported", "check_growth", "compiled", "in_time"]

MAX_PATTERN = 1 << 16  # characters; DeepSeek's have 3000
MAX_REPEATS = 10_000  # the product of all counts in braces; `regex` may write such out, one in the other
COUNTS = re.compile(r"\{(\d*),?(\d*)\}")
# What has another meaning in Oniguruma, or may take any memory: recursion, and a hexadecimal digit.
OTHERS = re.compile(r"\(\?(?:R\)|[-+]?\d|&|P>)|\\[hHg]")
MAX_PARTS = 64  # of one sequence
MAX_DEPTH = 8  # of sequences in sequences
MAX_GROWTH = 64  # how many times as long as a text all parts of a sequence may make it
SECONDS, SECONDS_EACH = 2.0, 2e-5  # that a pattern may search in a text, and for each character of it


class Unsupported(Exception):
    """Something valid that sotol does not have."""


class Part(NamedTuple):
    """An object of a file, and where it is: "model", "normalizer.normalizers[1]"."""

    value: Mapping[str, object]
    file: str
    where: str

    @classmethod
    def of(cls, value: object, file: str, where: str) -> "Part":
        """FormatError unless the value is an object."""
        if not isinstance(value, dict):
            raise FormatError(f"{file}: {where} is {plain(repr(value), 60)}, not an object")
        return cls(value, file, where)

    def fail(self, key: str, wanted: str) -> NoReturn:
        """Raise the FormatError for a field of a wrong kind."""
        raise FormatError(f"{self.file}: {self.where}.{key} is {plain(repr(self.value.get(key)), 60)}, not {wanted}")

    @property
    def kind(self) -> str:
        return self.text("type")

    def text(self, key: str, default: str | None = None) -> str:
        value = self.value.get(key)
        value = default if value is None else value
        if not isinstance(value, str):
            self.fail(key, "text")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.value.get(key)
        value = default if value is None else value
        if not isinstance(value, bool):
            self.fail(key, "true or false")
        return value

    def whole(self, key: str, default: int) -> int:
        value = self.value.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 31:
            self.fail(key, "a whole number")
        return value

    def parts(self, key: str) -> "list[Part]":
        """The objects of a list, those of sequences in their place."""
        found = list[Part]()
        self._flatten(key, found, 0)
        return found

    def _flatten(self, key: str, found: "list[Part]", depth: int) -> None:
        items = self.value.get(key)
        if not isinstance(items, list):
            self.fail(key, "a list")
        for i, item in enumerate(items):
            part = Part.of(item, self.file, f"{self.where}.{key}[{i}]")
            if part.kind == "Sequence":
                if depth == MAX_DEPTH:
                    raise FormatError(f"{self.file}: {part.where} is nested too deeply")
                part._flatten(key, found, depth + 1)
            else:
                found.append(part)
        if len(found) > MAX_PARTS:
            raise FormatError(f"{self.file}: {self.where}.{key} has more than {MAX_PARTS} parts")

    def all_of(self, key: str) -> "list[Part]":
        """This part alone, or those of the sequence that it is."""
        return self.parts(key) if self.kind == "Sequence" else [self]

    def expect(self, key: str, *possible: object) -> None:
        """Unsupported if the field says what is not possible here."""
        value = self.value.get(key)
        if value is not None and value not in possible:
            raise Unsupported(f"{self.where}.{key} {plain(repr(value), 40)}")

    def choice(self, key: str, default: str, possible: tuple[str, ...]) -> str:
        """A text that is one of these; Unsupported for others."""
        value = self.text(key, default)
        if value not in possible:
            raise Unsupported(f"{self.where}.{key} {plain(repr(value), 40)}")
        return value

    def pattern(self) -> "tuple[str | None, regex.Pattern[str]]":
        """The `pattern` field: the text that it finds, if it is no expression, and the expression."""
        import regex  # noqa: PLC0415  (many tokenizers do without)

        given = Part.of(self.value.get("pattern"), self.file, f"{self.where}.pattern")
        if "String" in given.value:
            text = given.text("String")
            if not text:
                given.fail("String", "a text of one or more characters")
            return text, regex.compile(regex.escape(text, special_only=False, literal_spaces=True))
        return None, compiled(given.text("Regex"), self.file, given.where)


def check_growth(parts: list[Part]) -> None:
    """Unsupported for parts that together could make a short text any length: replacements of replacements."""
    growth = 1
    for part in parts:
        if part.kind == "ByteLevel":
            growth *= 4  # bytes of a character
        elif part.kind == "Replace":
            literal, _ = part.pattern()
            size = len(part.text("content"))
            growth *= 1 + size if literal is None else max(1, -(-size // len(literal)))
        elif part.kind == "Prepend":
            growth *= max(1, len(part.text("prepend")) // 8)
        if growth > MAX_GROWTH:
            raise Unsupported(f"{part.where}, which can make a text more than {MAX_GROWTH} times as long")


def compiled(expression: str, file: str, where: str) -> "regex.Pattern[str]":
    """An expression of a file, which was written for Oniguruma: there ^ and $ are at every line.

    ModelError for one that `regex` refuses; Unsupported, FormatError for some that it would read in another way, or
    that would take long to compile.
    """
    import regex  # noqa: PLC0415

    if len(expression) > MAX_PATTERN:
        raise FormatError(f"{file}: {where} has {len(expression)} characters, and sotol accepts {MAX_PATTERN}")
    if (other := OTHERS.search(expression)) is not None:
        raise Unsupported(f"{where} with {other[0]}")
    repeats = math.prod(max(int(n[-6:]) if n else 1 for n in counts) or 1 for counts in COUNTS.findall(expression))
    if repeats > MAX_REPEATS or any(len(n) > 6 for counts in COUNTS.findall(expression) for n in counts):
        raise FormatError(f"{file}: {where} repeats its parts {MAX_REPEATS} times or more: sotol accepts fewer")
    try:
        return regex.compile(expression, regex.VERSION1 | regex.MULTILINE)
    except (regex.error, ValueError, OverflowError, RecursionError, MemoryError) as error:
        raise ModelError(f"{file}: {where} can't be compiled: {plain(error, 100)}") from None


def in_time(length: int, search: "Callable[[float], list[str] | str]") -> "list[str] | str":
    """What a search in so many characters gives that may take so many seconds; SotolError if they do not suffice."""
    try:
        return search(SECONDS + length * SECONDS_EACH)
    except (TimeoutError, MemoryError):
        raise SotolError(
            f"a pattern of the tokenizer takes too long for a text of {length} characters: it is not made for such"
        ) from None
