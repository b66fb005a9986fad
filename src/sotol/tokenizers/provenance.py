"""Text that knows, character by character, whether the model's own template wrote it.

A chat template puts a user's text between control tokens such as `<|im_end|>`. In the result, nobody can see who wrote
such a token; pieces of different origin can even spell one together. So each character of a rendered template is either
trusted (from the template, a preset, or a special token of the vocabulary) or not, and a control token becomes an id
only if all its characters are trusted.

Text is untrusted unless it is known to be trusted: a plain `str` is untrusted, and an operation that loses track gives
a plain `str`. So a mistake here may turn a template's token into plain text, but never a user's text into a token.
llama.cpp marks text in the same way (`is_input` in common/jinja/string.h).
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from string import Formatter
from typing import Any, SupportsIndex

__all__ = ["Marked", "joined", "marked", "mask_of", "trusted", "unmarked"]

# A field of printf-style formatting: a name in parentheses, the flags, the conversion type. `re` compiles it at first
# use, since most programs never need it.
FIELD = r"%(?:\(([^()]*)\))?([-+ #0]*[0-9]*(?:\.[0-9]*)?[hlL]?([diouxXeEfFgGcrsa%]))"


class Marked(str):
    """A text with a mask: one byte for each character, 1 if it is trusted. Without a mask, all is untrusted.

    The methods that a template can call return the same text as those of `str`, and raise the same errors, but keep the
    mask. Other methods, and cases that can't be tracked, give a plain `str`. Templates can't access names that begin
    with an underscore.
    """

    __slots__ = ("_mask",)
    _mask: bytes

    def __new__(cls, text: str, mask: bytes | None = None) -> "Marked":
        """mask: as long as the text."""
        made = str.__new__(cls, text)
        made._mask = bytes(len(text)) if mask is None else mask
        return made

    def __str__(self) -> str:
        return self

    # ---- joining. With markupsafe.Markup, which escapes the other operand, Markup's own operators apply

    def __add__(self, other: str) -> str:
        if type(other) is not str and type(other) is not Marked:
            return NotImplemented
        return Marked(str.__add__(self, other), self._mask + mask_of(other))

    def __radd__(self, other: str) -> str:
        if type(other) is not str:
            return NotImplemented
        return Marked(str.__add__(other, self), bytes(len(other)) + self._mask)

    def __mul__(self, times: SupportsIndex) -> str:
        return Marked(str.__mul__(self, times), self._mask * times.__index__())

    __rmul__ = __mul__

    def join(self, pieces: Iterable[str]) -> str:
        """As `str.join`."""
        pieces = list(pieces)
        return Marked(str.join(self, pieces), self._mask.join(map(mask_of, pieces)))

    def replace(self, old: str, new: str, count: SupportsIndex = -1) -> str:
        """As `str.replace`; the new text keeps its own mask."""
        text = str.replace(self, old, new, count)
        if not old:  # inserts the new text between all characters: not tracked
            return text
        mask = mask_of(new).join(mask_of(piece) for piece in self.split(old, count))
        return Marked(text, mask)

    def __mod__(self, given: Any) -> str:
        return self._filled(str.__mod__(self, given), lambda: _percent_pieces(self, given))

    def _formatted(self, text: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """The mask for `text`, which `str.format` (or the sandbox's safe version) made of this form."""
        return self._filled(text, lambda: _brace_pieces(self, args, kwargs))

    def _filled(self, text: str, pieces: "Callable[[], list[str]]") -> str:
        """`text` with the masks of the pieces, if they make it up; untrusted if the form is not fully trusted."""
        if 0 in self._mask:
            return text
        try:
            marked = joined(pieces())
        except (LookupError, StopIteration, TypeError, ValueError):
            return text
        return marked if marked == text else text

    # ---- cutting

    def __getitem__(self, at: SupportsIndex | slice) -> str:
        text = str.__getitem__(self, at)
        return Marked(text, self._mask[at] if isinstance(at, slice) else bytes((self._mask[at],)))

    def _at(self, start: int, piece: str) -> str:
        return Marked(piece, self._mask[start : start + len(piece)])

    def _cut(self, pieces: Iterable[str], gap: int | None) -> "list[str]":
        """The pieces with their masks. They occur here in order, `gap` characters (None: white space) apart."""
        cut, at = [], 0
        for piece in pieces:
            if gap is None:  # only the first piece of rsplit may begin with white space, and that one is found at once
                at = str.find(self, piece, at)
            cut.append(self._at(at, piece))
            at += len(piece) + (gap or 0)
        return cut

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        """As `str.split`."""
        return self._cut(str.split(self, sep, maxsplit), None if sep is None else len(sep))

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        """As `str.rsplit`."""
        return self._cut(str.rsplit(self, sep, maxsplit), None if sep is None else len(sep))

    def splitlines(self, keepends: bool = False) -> list[str]:
        """As `str.splitlines`."""
        whole = self._cut(str.splitlines(self, True), 0)
        if keepends:
            return whole
        return [line[: len(bare)] for line, bare in zip(whole, str.splitlines(self), strict=True)]

    def partition(self, sep: str) -> "tuple[str, str, str]":
        """As `str.partition`."""
        before, between, after = self._cut(str.partition(self, sep), 0)
        return before, between, after

    def rpartition(self, sep: str) -> "tuple[str, str, str]":
        """As `str.rpartition`."""
        before, between, after = self._cut(str.rpartition(self, sep), 0)
        return before, between, after

    def strip(self, chars: str | None = None) -> str:
        """As `str.strip`."""
        return self._at(len(self) - len(str.lstrip(self, chars)), str.strip(self, chars))

    def lstrip(self, chars: str | None = None) -> str:
        """As `str.lstrip`."""
        rest = str.lstrip(self, chars)
        return self._at(len(self) - len(rest), rest)

    def rstrip(self, chars: str | None = None) -> str:
        """As `str.rstrip`."""
        return self._at(0, str.rstrip(self, chars))

    def removeprefix(self, prefix: str) -> str:
        """As `str.removeprefix`."""
        rest = str.removeprefix(self, prefix)
        return self._at(len(self) - len(rest), rest)

    def removesuffix(self, suffix: str) -> str:
        """As `str.removesuffix`."""
        return self._at(0, str.removesuffix(self, suffix))

    # ---- changing case. No character gets shorter, so if the length is the same, each character became one character.

    def _changed(self, text: str) -> str:
        return Marked(text, self._mask) if len(text) == len(self) else text

    def capitalize(self) -> str:
        """As `str.capitalize`."""
        return self._changed(str.capitalize(self))

    def casefold(self) -> str:
        """As `str.casefold`."""
        return self._changed(str.casefold(self))

    def lower(self) -> str:
        """As `str.lower`."""
        return self._changed(str.lower(self))

    def swapcase(self) -> str:
        """As `str.swapcase`."""
        return self._changed(str.swapcase(self))

    def title(self) -> str:
        """As `str.title`."""
        return self._changed(str.title(self))

    def upper(self) -> str:
        """As `str.upper`."""
        return self._changed(str.upper(self))

    # ---- padding to a width: the padding is untrusted

    def center(self, width: SupportsIndex, fillchar: str = " ") -> str:
        """As `str.center`."""
        text = str.center(self, width, fillchar)
        room = len(text) - len(self)
        left = room // 2 + (room & width.__index__() & 1)  # CPython's rule for an odd number of characters
        return Marked(text, bytes(left) + self._mask + bytes(room - left))

    def ljust(self, width: SupportsIndex, fillchar: str = " ") -> str:
        """As `str.ljust`."""
        text = str.ljust(self, width, fillchar)
        return Marked(text, self._mask + bytes(len(text) - len(self)))

    def rjust(self, width: SupportsIndex, fillchar: str = " ") -> str:
        """As `str.rjust`."""
        text = str.rjust(self, width, fillchar)
        return Marked(text, bytes(len(text) - len(self)) + self._mask)


def marked(text: str) -> Marked:
    """The text as Marked; a plain text is untrusted."""
    return text if type(text) is Marked else Marked(text)


def trusted(text: str) -> Marked:
    """A text that is trusted in full."""
    return Marked(text, b"\x01" * len(text))


def unmarked(text: str) -> str:
    """The text as an exact `str`."""
    return text if type(text) is str else str.__str__(text)


def mask_of(text: str) -> bytes:
    """A byte for each character: 1 if it is trusted. Other subclasses of str may store their mask as `Marked` does."""
    return bytes(len(text)) if type(text) is str else getattr(text, "_mask", b"") or bytes(len(text))


def joined(pieces: Sequence[str]) -> Marked:
    """All pieces as one text, each with its own mask."""
    return Marked("".join(pieces), b"".join(map(mask_of, pieces)))


def _percent_pieces(form: str, given: Any) -> list[str]:
    """The pieces that `form % given` consists of."""
    pieces, at = [], 0
    values = iter(given if isinstance(given, tuple) else (given,))
    for field in re.finditer(FIELD, form):
        name, rest, kind = field.groups()
        pieces.append(form[at : field.start()])
        at = field.end()
        if kind == "%":
            pieces.append(form[at - 1 : at])
            continue
        value = next(values) if name is None else given[name]
        pieces.append(value if rest == "s" and isinstance(value, str) else f"%{rest}" % (value,))
    return [*pieces, form[at:]]


def _brace_pieces(form: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[str]:
    """The pieces that `form.format(*args, **kwargs)` consists of; ValueError for fields with attributes or indices."""
    pieces: list[str] = []
    count = 0
    for literal, field, spec, conversion in Formatter().parse(form):
        pieces.append(trusted(literal))  # not a slice of the form: doubled braces are single here
        if field is None:
            continue
        if field == "":
            field, count = str(count), count + 1
        if not (field.isidentifier() or field.isdecimal()) or conversion not in (None, "s"):
            raise ValueError(f"the field {field!r}")
        value = args[int(field)] if field.isdecimal() else kwargs[field]
        pieces.append(value if not spec and isinstance(value, str) else format(value, spec or ""))
    return pieces
