"""Readers of calls, one for each mechanism of `forms.py`.

A reader begins behind a form's opening marker. It raises Malformed where that was none after all: what was taken since
the last call began or ended is text then. Once a call has begun, what comes is its arguments, whatever it is.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from sotol.answers.forms import CallForm, JsonCalls, NamedCalls, PythonCalls, TaggedCalls
from sotol.answers.pythonic import PythonCall, python_calls
from sotol.answers.source import LONGEST_NAME, Malformed, Markers, Reading, Source
from sotol.answers.tools import Tool
from sotol.answers.values import as_json, escaped, types_of

__all__ = ["Caller", "read_calls"]


class Caller(Protocol):
    """What takes the calls that are read.

    hidden: markers that are control tokens, and so no part of any argument. outside, inside: what ends the tokens of
    arguments, and their strings.
    """

    source: Source
    hidden: Markers
    outside: Markers
    inside: Markers

    def tool(self, name: str) -> Tool:
        """The tool of that name. Malformed if there is none."""

    def begin(self, tool: Tool, given: str | None) -> None:
        """A call begins; what was taken belongs to it. given: the id that the model wrote."""

    def give(self, arguments: str) -> None:
        """More of its arguments."""


def read_calls(form: CallForm, opener: str, caller: Caller) -> Reading[None]:
    """Read the calls behind a marker that opens a form."""
    match form:
        case JsonCalls():
            yield from _json_calls(form, caller)
        case NamedCalls():
            yield from _named_calls(form, opener, caller)
        case TaggedCalls():
            yield from _tagged_calls(form, opener, caller)
        case PythonCalls():
            yield from _python_calls(form, caller)


# ---- objects with a name and arguments


def _json_calls(form: JsonCalls, caller: Caller) -> Reading[None]:
    source = caller.source
    yield from source.space()
    listed = (yield from source.peek()) == "["
    if listed:
        source.take(1)
        yield from source.space()
    while True:
        if (yield from source.peek()) != "{":
            raise Malformed
        yield from _json_call(form, caller)
        source.taken.clear()
        yield from source.space()
        mark = yield from source.peek()
        if mark and mark in ",;":
            source.take(1)
            yield from source.space()
        elif mark != "{":
            break
    if listed and mark == "]":
        source.take(1)
        yield from source.space()
    yield from source.literal(form.close.strip())


@dataclass(slots=True)
class _Seen:
    """What is known of a call as its members come. arguments: if they came before the name, or are no object."""

    tool: Tool | None = None
    given: str | None = None
    arguments: str | None = None
    begun: bool = False


def _json_call(form: JsonCalls, caller: Caller) -> Reading[None]:
    """One object, from its brace on."""
    source, seen = caller.source, _Seen()
    source.take(1)
    yield from source.space()
    while (yield from source.peek()) != "}":
        yield from _json_member(form, seen, caller)
        yield from source.space()
        mark = yield from source.peek()
        if mark == ",":
            source.take(1)
            yield from source.space()
        elif mark != "}":
            if seen.begun and not "".join(source.taken).strip():  # what comes instead is read on behind the call
                return
            raise Malformed
    if not seen.begun:
        if seen.tool is None or (form.strict and seen.arguments is None):
            raise Malformed
        arguments = _object(seen.arguments)
        source.take(1)
        caller.begin(seen.tool, seen.given)
        caller.give(arguments)
    else:
        source.take(1)


def _json_member(form: JsonCalls, seen: _Seen, caller: Caller) -> Reading[None]:
    """A key and its value."""
    source = caller.source
    key = _decoded((yield from source.string(LONGEST_NAME)))
    yield from source.space()
    if (yield from source.peek()) != ":":
        raise Malformed
    source.take(1)
    yield from source.space()
    if key in form.name and seen.tool is None:
        seen.tool = caller.tool(_decoded((yield from source.string(LONGEST_NAME))))
    elif key in form.arguments and not seen.begun:
        if seen.tool is not None and (yield from source.peek()) == "{":
            caller.begin(seen.tool, seen.given)
            seen.begun = True
            yield from _arguments(caller)
        else:
            seen.arguments = yield from source.value()
    elif form.strict and seen.tool is None and key not in (form.id, "type"):
        raise Malformed
    else:
        value = yield from source.value()
        if key == form.id and value.startswith('"'):
            seen.given = _decoded(value)


def _object(arguments: str | None) -> str:
    """Arguments that were read whole: an object, or one within a string; none are {}. Malformed for something else."""
    if arguments is None or arguments in ("null", '""'):
        return "{}"
    text = _decoded(arguments) if arguments.startswith('"') else arguments
    if not text.lstrip().startswith("{"):
        raise Malformed
    return text.strip()


def _decoded(string: str) -> str:
    """What a JSON string says."""
    try:
        said = json.loads(string, strict=False)
    except ValueError:
        raise Malformed from None
    assert isinstance(said, str)
    return said


def _arguments(caller: Caller) -> Reading[None]:
    """An object, given as it comes: to its last brace, to a marker that can't be part of it, or to the end."""
    source, depth = caller.source, 0
    while True:
        mark = yield from source.flow(caller.outside, caller.give)
        if mark == '"':
            caller.give(source.take(1))
            yield from _rest_of_string(caller)
        elif mark in ("{", "[", "}", "]"):
            caller.give(source.take(1))
            depth += 1 if mark in "{[" else -1
            if not depth:
                break
        else:
            break
    source.taken.clear()


def _rest_of_string(caller: Caller) -> Reading[None]:
    source = caller.source
    while (mark := (yield from source.flow(caller.inside, caller.give))) in ('"', "\\"):
        caller.give(source.take(1))
        if mark == '"':
            return
        if (yield from source.peek()):
            caller.give(source.take(1))


# ---- a name, and its arguments as JSON


def _named_calls(form: NamedCalls, opener: str, caller: Caller) -> Reading[None]:
    source = caller.source
    begin, end = form.begin.strip(), form.end.strip()
    if opener != begin:
        yield from source.space()
        if not (yield from source.literal(begin)):
            raise Malformed
    separator = form.separator.strip()
    ends = Markers([separator, form.id, "{"])
    while True:
        name, mark = yield from source.until(ends)
        given: str | None = None
        if mark == form.id:
            source.take(len(mark))
            given, mark = yield from source.until(ends)
        tool, written = _named(form, name.strip(), caller)
        if mark == separator:
            source.take(len(mark))
            yield from source.space()
        if (yield from source.peek()) != "{":
            raise Malformed
        caller.begin(tool, written if given is None else given.strip())
        yield from _arguments(caller)
        yield from source.space()
        yield from source.literal(end)
        source.taken.clear()
        yield from source.space()
        if not (yield from source.literal(begin)):
            yield from source.literal(form.close.strip())
            return


def _named(form: NamedCalls, name: str, caller: Caller) -> tuple[Tool, str | None]:
    """The tool that is meant, and the id that is in its name."""
    if form.name and (found := re.fullmatch(form.name, name)):
        return caller.tool(found["name"]), name
    return caller.tool(name), None


# ---- a name, and its arguments between tags


def _tagged_calls(form: TaggedCalls, opener: str, caller: Caller) -> Reading[None]:
    source = caller.source
    begin, end, key = form.begin.strip(), form.end.strip(), form.key.strip()
    if opener != begin:
        yield from source.space()
        if begin and not (yield from source.literal(begin)):
            raise Malformed
    name_end = form.name_end.strip()
    ends = Markers([name_end, key, end])
    while True:
        name, mark = yield from source.until(ends)
        if mark == name_end:
            source.take(len(mark))
        yield from source.space()
        tool = caller.tool(name.strip())
        tag = yield from source.literal(key, end)
        if not tag:
            raise Malformed
        caller.begin(tool, None)
        caller.give("{")
        source.taken.append(tag)  # of an argument that is not known to be one
        first = True
        while tag == key:
            yield from _tagged_argument(form, tool, caller, first=first)
            first = False
            yield from source.space()
            tag = yield from source.literal(key, end)
        if tag or not source.ended:  # a call that was cut off must not look like one that was not
            caller.give("}")
        if not tag:  # what comes instead is read on behind the call
            return
        source.taken.clear()
        yield from source.space()
        close = form.close.strip()
        tag = yield from source.literal(begin, close)
        if not tag or tag != begin:
            return


def _tagged_argument(form: TaggedCalls, tool: Tool, caller: Caller, *, first: bool) -> Reading[None]:
    """One, from behind the tag of its key."""
    source = caller.source
    key_end, value_end = form.key_end.strip(), form.value_end.strip()
    key, _ = yield from source.until(Markers([key_end]))
    source.take(len(key_end))
    if form.value:
        yield from source.space()
        if not (yield from source.literal(form.value.strip())):
            raise Malformed
    if (form.value or form.key_end).endswith("\n") and (yield from source.peek()) == "\n":
        source.take(1)  # the written form's, not the value's
    types = types_of(tool, key.strip())
    caller.give(f'{"" if first else ", "}"{escaped(key.strip())}": ')
    source.taken.clear()
    breaks = form.value_end.startswith("\n")  # the last one is not the value's
    ends = Markers([*(["\n" + value_end] if breaks else []), value_end, *caller.hidden.texts])
    if types == {"string"}:
        caller.give('"')
        mark = yield from source.flow(ends, lambda text: caller.give(escaped(text)))
        ended = mark.endswith(value_end)
        caller.give('"' if ended else "")
    else:
        parts: list[str] = []
        mark = yield from source.flow(ends, parts.append)
        ended = mark.endswith(value_end)
        caller.give(as_json("".join(parts), types) if ended else "".join(parts))
    if not ended:
        raise Malformed
    source.take(len(mark))
    source.taken.clear()


# ---- Python


def _python_calls(form: PythonCalls, caller: Caller) -> Reading[None]:
    source = caller.source
    parts: list[str] = []

    def note(text: str) -> None:
        parts.append(text)
        source.taken.append(text)

    close = form.close.strip()
    if (yield from source.flow(Markers([close, *caller.hidden.texts]), note)) == close:
        source.take(len(close))
    text = "".join(parts)
    try:
        read = [_python_call(call, caller) for call in python_calls(text)]
    except Malformed:
        read = [(_code_tool(form, caller), f'{{"code": "{escaped(text.strip())}"}}')]
    for tool, arguments in read:
        caller.begin(tool, None)
        caller.give(arguments)


def _python_call(call: PythonCall, caller: Caller) -> tuple[Tool, str]:
    """The tool and its arguments; those without a key are the first ones that the tool declares."""
    tool = caller.tool(call.name)
    declared = tool.parameters.get("properties")
    keys = [key for key in declared if key not in call.named] if isinstance(declared, Mapping) else []
    if len(keys) < len(call.positional):
        raise Malformed
    arguments = {**dict(zip(keys, call.positional, strict=False)), **call.named}
    return tool, json.dumps(arguments, ensure_ascii=False)


def _code_tool(form: PythonCalls, caller: Caller) -> Tool:
    """The tool that takes any other text."""
    for name in form.code:
        with suppress(Malformed):
            return caller.tool(name)
    raise Malformed
