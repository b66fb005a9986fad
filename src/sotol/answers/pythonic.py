"""Reads calls that are written as Python: `[name(key="value"), other(x=[1, 2])]`. Literals only; nothing is run.

Python's own parser is not used: it warns of odd escapes, and its limits are not ours.
"""

import math
import re
from typing import Any, NamedTuple

from sotol.answers.source import Malformed

__all__ = ["PythonCall", "python_calls", "python_value"]

TOKEN = re.compile(
    r"\s*(?:(?P<name>[^\W\d][\w.]*)|(?P<number>[-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
    r"|(?P<string>'''.*?'''|\"\"\".*?\"\"\"|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")|(?P<mark>[\[\](){}=,:;]))",
    re.DOTALL,
)
ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U(00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4})|(.))", re.DOTALL)
ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "0": "\0", "\n": "", "\\": "\\", "'": "'", '"': '"'}
WORDS = {"True": True, "False": False, "None": None, "true": True, "false": False, "null": None}
DEEPEST = 64  # brackets


class PythonCall(NamedTuple):
    """A call. positional: arguments without a key."""

    name: str
    positional: list[Any]
    named: dict[str, Any]


class _Token(NamedTuple):
    kind: str
    text: str


def python_calls(text: str) -> list[PythonCall]:
    """The calls of a list, or one after the other; `print(call)` is that call. Malformed for anything else."""
    reader = _Reader(text)
    listed = reader.found("[")
    calls = [reader.call()]
    while not (reader.found("]") if listed else reader.done):
        if not (reader.found(",") or reader.found(";")) and listed:
            raise Malformed
        if not (listed and reader.at("]")) and not reader.done:
            calls.append(reader.call())
    if not reader.done:
        raise Malformed
    return calls


def python_value(text: str) -> Any:
    """A literal. Malformed for anything else."""
    reader = _Reader(text)
    value = reader.value(0)
    if not reader.done:
        raise Malformed
    return value


class _Reader:
    def __init__(self, text: str) -> None:
        self._tokens: list[_Token] = []
        at, text = 0, text.rstrip()
        while at < len(text):
            found = TOKEN.match(text, at)
            if found is None or found.lastgroup is None:
                raise Malformed
            self._tokens.append(_Token(found.lastgroup, found[found.lastgroup]))
            at = found.end()
        self._next = 0

    @property
    def done(self) -> bool:
        return self._next == len(self._tokens)

    def at(self, mark: str) -> bool:
        return not self.done and self._tokens[self._next] == ("mark", mark)

    def found(self, mark: str) -> bool:
        """Read that mark, if it comes next."""
        self._next += (here := self.at(mark))
        return here

    def _take(self) -> _Token:
        if self.done:
            raise Malformed
        self._next += 1
        return self._tokens[self._next - 1]

    def call(self) -> PythonCall:
        kind, name = self._take()
        if kind != "name" or not self.found("("):
            raise Malformed
        if name == "print" and self._next + 1 < len(self._tokens) and self._tokens[self._next + 1] == ("mark", "("):
            inner = self.call()
            if not self.found(")"):
                raise Malformed
            return inner
        call = PythonCall(name.removesuffix(".call"), [], {})
        while not self.found(")"):
            if self._next + 1 < len(self._tokens) and self._tokens[self._next + 1] == ("mark", "="):
                key = self._take()
                self._take()
                if key.kind != "name" or key.text in call.named:
                    raise Malformed
                call.named[key.text] = self.value(0)
            elif call.named:
                raise Malformed
            else:
                call.positional.append(self.value(0))
            if not self.found(",") and not self.at(")"):
                raise Malformed
        return call

    def value(self, depth: int) -> Any:
        kind, text = self._take()
        if kind == "string":
            return _unquoted(text)
        if kind == "number":
            return _number(text)
        if kind == "name" and text in WORDS:
            return WORDS[text]
        if kind == "name" or text not in "[{(" or depth == DEEPEST:
            raise Malformed
        end = {"[": "]", "{": "}", "(": ")"}[text]
        items: list[Any] = []
        members: dict[str, Any] = {}
        while not self.found(end):
            item = self.value(depth + 1)
            if text == "{":
                if not isinstance(item, str) or not self.found(":"):
                    raise Malformed
                members[item] = self.value(depth + 1)
            else:
                items.append(item)
            if not self.found(",") and not self.at(end):
                raise Malformed
        return members if text == "{" else items


def _number(text: str) -> int | float:
    if len(text) > 300:
        raise Malformed
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        raise Malformed from None
    if not math.isfinite(number):
        raise Malformed
    return number


def _unquoted(text: str) -> str:
    """What a string literal says."""
    size = 3 if text[:3] in ("'''", '"""') and len(text) >= 6 else 1

    def meant(found: re.Match[str]) -> str:
        code = found[1] or found[2] or found[3]
        return chr(int(code, 16)) if code else ESCAPES.get(found[4], found[0])

    said = ESCAPE.sub(meant, text[size:-size])
    return said.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # pairs of halves are characters
