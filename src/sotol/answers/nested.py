"""Readers of calls whose arguments are nested, but not JSON: objects with marks for quotes, and elements.

What they give is JSON, and comes as it is read: an argument that is text streams.
"""

from collections.abc import Mapping
from typing import Any

from sotol.answers.caller import Caller
from sotol.answers.forms import ElementCalls, QuotedCalls
from sotol.answers.source import Malformed, Markers, Reading
from sotol.answers.values import as_json, decoded, escaped, json_or_text, part_of, types_in

__all__ = ["element_calls", "quoted_calls"]

DEEPEST = 64  # objects and lists in each other
TEXT = frozenset({"string"})
BRACE, COLON, ANGLE = Markers("{"), Markers(":"), Markers(">")


# ---- objects whose texts stand between marks


def quoted_calls(form: QuotedCalls, caller: Caller) -> Reading[None]:
    """Read the calls behind an opener; see `calls.read_calls`."""
    source, reader = caller.source, _Quoted(form, caller)
    while True:
        name, _ = yield from source.until(BRACE)
        caller.begin(caller.tool(name.strip()), None)
        yield from reader.object(0)
        yield from source.space()
        yield from source.literal(form.close)
        source.taken.clear()
        yield from source.space()
        if not (yield from source.literal(form.open)):
            return


class _Quoted:
    """Reads values of a form."""

    def __init__(self, form: QuotedCalls, caller: Caller) -> None:
        self._quote, self._source, self._give = form.quote, caller.source, caller.give
        self._ends = Markers([form.quote, *caller.hidden.texts])
        self._scalar_ends = Markers([*",}]", form.quote, *caller.hidden.texts])

    def object(self, depth: int) -> Reading[None]:
        """From its brace on."""
        yield from self._several("{", "}", depth)

    def _several(self, begin: str, end: str, depth: int) -> Reading[None]:
        source, first = self._source, True
        if depth > DEEPEST:
            raise Malformed
        source.take(1)
        self._give(begin)
        while True:
            source.taken.clear()
            yield from source.space()
            if not first and (yield from source.literal(",")):
                yield from source.space()
            elif not first and (yield from source.peek()) != end:
                raise Malformed
            if (yield from source.literal(end)):
                self._give(end)
                source.taken.clear()
                return
            key = (yield from self._key()) if begin == "{" else None
            self._give(("" if first else ", ") + ("" if key is None else f'"{escaped(key)}": '))
            source.taken.clear()
            yield from self._value(depth + 1)
            first = False

    def _key(self) -> Reading[str]:
        """A key and the colon behind it."""
        source = self._source
        if (yield from source.literal(self._quote)):
            key, mark = yield from source.until(self._ends)
            source.take(len(mark))
            yield from source.space()
        elif (yield from source.peek()) == '"':
            key = decoded((yield from source.string()))
            yield from source.space()
        else:
            key, _ = yield from source.until(COLON)
            key = key.strip()
        if not (yield from source.literal(":")):
            raise Malformed
        return key

    def _value(self, depth: int) -> Reading[None]:
        source = self._source
        yield from source.space()
        if (yield from source.literal(self._quote)):
            source.taken.clear()
            self._give('"')
            if (yield from source.flow(self._ends, lambda text: self._give(escaped(text)))) != self._quote:
                raise Malformed
            source.take(len(self._quote))
            self._give('"')
            return
        mark = yield from source.peek()
        if mark == "{":
            yield from self._several("{", "}", depth)
        elif mark == "[":
            yield from self._several("[", "]", depth)
        elif mark == '"':
            text = yield from source.string()
            self._give(json_or_text(text))
        else:
            parts: list[str] = []
            mark = yield from source.flow(self._scalar_ends, parts.append)
            text = "".join(parts)
            if mark and mark in ",}]" and text.strip():
                self._give(json_or_text(text))
                return
            self._give(text)
            raise Malformed


# ---- elements


def element_calls(form: ElementCalls, opener: str, caller: Caller) -> Reading[None]:
    """Read the calls behind an opener; see `calls.read_calls`."""
    source, begin, close = caller.source, form.begin.strip(), form.close.strip()
    if opener != begin:
        yield from source.space()
        if not (yield from source.literal(begin)):
            raise Malformed
    while True:
        name, mark = yield from source.until(Markers([form.name_end]))
        source.take(len(mark))
        tool = caller.tool(name.strip())
        caller.begin(tool, None)
        elements = _Elements(form, caller, tool.parameters)
        yield from elements.all()
        source.taken.clear()
        yield from source.space()
        if (yield from source.literal(begin, close)) != begin:
            return


class _Elements:
    """Reads the arguments of a call. root: the schema of all."""

    def __init__(self, form: ElementCalls, caller: Caller, root: Mapping[str, Any]) -> None:
        self._form, self._source, self._give, self._root = form, caller.source, caller.give, root
        self._ends = Markers([form.mark, *caller.hidden.texts])
        self._end = form.end.strip().removeprefix(form.mark).removeprefix("<").removesuffix(">")

    def all(self) -> Reading[None]:
        """The elements of a call, and the tag that ends it."""
        yield from self._children(None, self._end, self._root, 0, listed=False)

    def _tag(self) -> Reading[str]:
        """The next tag, from its mark on: its name, behind "/" if it ends an element."""
        source = self._source
        yield from source.space()
        if not (yield from source.literal(self._form.mark)) or not (yield from source.literal("<")):
            raise Malformed
        name, mark = yield from source.until(ANGLE)
        source.take(len(mark))
        return name

    def _children(self, tag: str | None, end: str, schema: object, depth: int, *, listed: bool) -> Reading[None]:
        """All elements of one, with the tag that ends it. tag: the first one, if it has been read."""
        if depth > DEEPEST:
            raise Malformed
        self._give("[" if listed else "{")
        self._source.taken.clear()
        tag, first = (yield from self._tag()) if tag is None else tag, True
        while not tag.startswith("/"):
            name = tag.strip()
            self._give(("" if first else ", ") + ("" if listed else f'"{escaped(name)}": '))
            self._source.taken.clear()
            yield from self._element(name, part_of(schema, self._root, None if listed else name), depth + 1)
            first = False
            tag = yield from self._tag()
        if tag != end:
            raise Malformed
        self._give("]" if listed else "}")
        self._source.taken.clear()

    def _element(self, name: str, schema: object, depth: int) -> Reading[None]:
        """The value of an element, with the tag that ends it."""
        source, types, end = self._source, types_in(schema, self._root), f"/{name}"
        if types == TEXT:
            self._give('"')
            if (yield from source.flow(self._ends, lambda text: self._give(escaped(text)))) != self._form.mark:
                raise Malformed
            self._give('"')
            if (yield from self._tag()) != end:
                raise Malformed
            return
        parts: list[str] = []
        mark = yield from source.flow(self._ends, parts.append)
        text = "".join(parts)
        if mark != self._form.mark:
            self._give(text)
            raise Malformed
        source.taken.append(text)
        tag = yield from self._tag()
        if tag == end:
            self._give(_leaf(text, types))
        elif tag.startswith("/") or text.strip():
            raise Malformed
        else:
            yield from self._children(tag, end, schema, depth, listed=tag == self._form.item and types != {"object"})


def _leaf(text: str, types: frozenset[str]) -> str:
    """An element's text as JSON; nothing is an empty list or object where it can't be text."""
    if not text.strip() and "string" not in types and types & {"array", "object"}:
        return "[]" if "array" in types else "{}"
    return as_json(text, types)
