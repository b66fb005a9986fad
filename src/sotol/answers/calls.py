"""Readers of calls, one for each mechanism of `forms.py`.

A reader begins behind a form's opening marker. It raises Malformed where that was none after all: what was taken since
the last call began or ended is text then. Once a call has begun, what comes is its arguments, whatever it is.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from sotol.answers.caller import Caller, json_arguments
from sotol.answers.forms import CallForm, ElementCalls, JsonCalls, NamedCalls, PythonCalls, QuotedCalls, TaggedCalls
from sotol.answers.nested import element_calls, quoted_calls
from sotol.answers.pythonic import PythonCall, python_calls
from sotol.answers.source import LONGEST_NAME, Malformed, Markers, Reading
from sotol.answers.tagged import tagged_calls
from sotol.answers.tools import Tool
from sotol.answers.values import decoded, escaped

__all__ = ["read_calls"]


def read_calls(form: CallForm, opener: str, caller: Caller) -> Reading[None]:
    """Read the calls behind a marker that opens a form."""
    match form:
        case JsonCalls():
            yield from _json_calls(form, caller)
        case NamedCalls():
            yield from _named_calls(form, opener, caller)
        case TaggedCalls():
            yield from tagged_calls(form, opener, caller)
        case PythonCalls():
            yield from _python_calls(form, caller)
        case QuotedCalls():
            yield from quoted_calls(form, caller)
        case ElementCalls():
            yield from element_calls(form, opener, caller)


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
    key = decoded((yield from source.string(LONGEST_NAME)))
    yield from source.space()
    if (yield from source.peek()) != ":":
        raise Malformed
    source.take(1)
    yield from source.space()
    if form.keyed and seen.tool is None:
        seen.tool = caller.tool(key)
        if (yield from source.peek()) == "{":
            caller.begin(seen.tool, None)
            seen.begun = True
            yield from json_arguments(caller)
        else:
            seen.arguments = yield from source.value()
    elif key in form.name and seen.tool is None:
        seen.tool = caller.tool(decoded((yield from source.string(LONGEST_NAME))))
    elif key in form.arguments and not seen.begun:
        if seen.tool is not None and (yield from source.peek()) == "{":
            caller.begin(seen.tool, seen.given)
            seen.begun = True
            yield from json_arguments(caller)
        else:
            seen.arguments = yield from source.value()
    elif form.strict and seen.tool is None and key not in (form.id, "type"):
        raise Malformed
    else:
        value = yield from source.value()
        if key == form.id and value.startswith('"'):
            seen.given = decoded(value)


def _object(arguments: str | None) -> str:
    """Arguments that were read whole: an object, or one within a string; none are {}. Malformed for something else."""
    if arguments is None or arguments in ("null", '""'):
        return "{}"
    text = decoded(arguments) if arguments.startswith('"') else arguments
    if not text.lstrip().startswith("{"):
        raise Malformed
    return text.strip()


# ---- a name, and its arguments as JSON


def _named_calls(form: NamedCalls, opener: str, caller: Caller) -> Reading[None]:
    source = caller.source
    begin, end = form.begin.strip(), form.end.strip()
    if opener != begin:
        yield from source.space()
        if not (yield from source.literal(begin)):
            raise Malformed
    separator = form.separator.strip() or form.separator
    ends = Markers([separator, form.id, form.named, "{"])
    while True:
        name, mark = yield from source.until(ends)
        given: str | None = None
        if mark == form.named:
            source.take(len(mark))
            given, (name, mark) = name, (yield from source.until(ends))
        elif mark == form.id:
            source.take(len(mark))
            given, mark = yield from source.until(ends)
        tool, written = _named(form, name.strip(), caller)
        if mark == separator:
            source.take(len(mark))
            yield from source.space()
        if (yield from source.peek()) != "{":
            raise Malformed
        caller.begin(tool, written if given is None else given.strip())
        yield from json_arguments(caller)
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


# ---- Python


def _python_calls(form: PythonCalls, caller: Caller) -> Reading[None]:
    source = caller.source
    parts: list[str] = []
    if form.open:
        close = form.close.strip()
        if (yield from source.gather(Markers([close, *caller.hidden.texts]), parts)) == close:
            source.take(len(close))
        text = "".join(parts)
    else:
        text = yield from _python_list(caller)
    try:
        read = [_python_call(call, caller) for call in python_calls(text)]
    except Malformed:
        read = [(_code_tool(form, caller), f'{{"code": "{escaped(text.strip())}"}}')]
    for tool, arguments in read:
        caller.begin(tool, None)
        caller.give(arguments)


def _python_list(caller: Caller) -> Reading[str]:
    """A list of calls, from its bracket to the one that closes it. Malformed as soon as it begins with no tool."""
    source = caller.source
    source.take(1)
    yield from source.space()
    name, mark = yield from source.until(Markers([*"()[]{},; \n'\""]))
    if mark != "(":
        raise Malformed
    caller.tool(name)
    parts, depth = ["[", name], 1
    while depth:
        mark = yield from source.gather(BRACKETS, parts)
        if not mark:
            raise Malformed
        parts.append(source.take(1))
        if mark in "([{":
            depth += 1
        elif mark in ")]}":
            depth -= 1
        else:
            yield from _rest_of_literal(mark, parts, caller)
    return "".join(parts)


def _rest_of_literal(quote: str, parts: list[str], caller: Caller) -> Reading[None]:
    """The rest of a text, from behind its first quote."""
    source, ends = caller.source, Markers([quote, "\\"])
    while True:
        mark = yield from source.gather(ends, parts)
        if not mark:
            raise Malformed
        parts.append(source.take(1))
        if mark == quote:
            return
        if (yield from source.peek()):
            parts.append(source.take(1))


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


BRACKETS = Markers([*"()[]{}'\""])
