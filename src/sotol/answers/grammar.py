"""The calls that a format has for the tools that may be called, as a grammar in llguidance's form of Lark.

A model that must call can then write nothing else. It writes calls as the first form of its format does, which is that
of its template; names and marks are fixed, and arguments are what the parameters of a tool describe. Knows nothing of
vocabularies: `mark` says how a mark is written in Lark, `json` how a JSON schema is.
"""

import json as json_module
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sotol.answers.forms import AnswerFormat, JsonCalls, NamedCalls, PythonCalls, TaggedCalls
from sotol.answers.tools import Tool
from sotol.answers.values import types_of
from sotol.errors import plain

__all__ = ["calls_grammar", "parameters_of"]

MOST = 16  # calls in an answer, that it may end
TEXT_KEYS = ("pattern", "format", "minLength", "maxLength")  # of schemas that are no grammar for text without quotes


class _Written(NamedTuple):
    """How fixed things are written in Lark."""

    mark: Callable[[str], str]
    json: Callable[[Mapping[str, Any]], str]


def calls_grammar(
    format_: AnswerFormat,
    tools: Sequence[Tool],
    *,
    parallel: bool,
    mark: Callable[[str], str],
    json: Callable[[Mapping[str, Any]], str],
) -> str:
    """The grammar of one call of these tools, or with `parallel` of up to 16.

    ValueError for a format without calls, or arguments that it can't write.
    """
    if not format_.calls:
        raise ValueError(f"answers in the format {format_.name!r} have no tool calls: name the format of the model")
    written = _Written(mark, json)
    most = MOST if parallel else 1
    match form := format_.calls[0]:
        case JsonCalls():
            rules = _json_calls(form, tools, most, written)
        case NamedCalls():
            rules = _named_calls(form, tools, most, written)
        case TaggedCalls():
            rules = _tagged_calls(form, tools, most, written)
        case PythonCalls():
            rules = _python_calls(form, tools, most, written)
    return "\n".join(rules)


def parameters_of(tool: Tool) -> dict[str, Any]:
    """The schema of a tool's arguments: an object, with no more members than are declared unless it says so."""
    schema = {"type": "object", **tool.parameters}
    if "properties" in schema:
        schema.setdefault("additionalProperties", False)
    return schema


def _text(text: str) -> str:
    """A text in Lark; "" is nothing."""
    return json_module.dumps(text, ensure_ascii=False) if text else ""


def _any(rules: Sequence[str], name: str, bodies: Sequence[str]) -> list[str]:
    """Rules, one for each body, and one for any of them."""
    numbered = [f"{name}_{i}: {body}" for i, body in enumerate(bodies)]
    return [*rules, f"{name}: {' | '.join(f'{name}_{i}' for i in range(len(bodies)))}", *numbered]


def _several(one: str, between: str, most: int) -> str:
    return one if most == 1 else f"{one} ({between} {one}){{0,{most - 1}}}"


# ---- one form after the other


def _json_calls(form: JsonCalls, tools: Sequence[Tool], most: int, written: _Written) -> list[str]:
    id_ = f'{_text(f", {json_module.dumps(form.id)}: ")} /"[a-zA-Z0-9]{{9}}"/' if form.id else ""
    bodies = []
    for tool in tools:
        name = json_module.dumps(tool.name, ensure_ascii=False)
        begin = f'{{"{form.name[0]}": {name}, "{form.arguments[0]}": '
        bodies.append(f'{_text(begin)} {written.json(parameters_of(tool))} {id_} "}}"')
    open_, close = written.mark(form.open), written.mark(form.close)
    if form.listed:
        start = f'{open_} "[" {_several("call", _text(", "), most)} "]" {close}'
    else:
        start = _several(f"{open_} call {close}", _text("\n"), most)
    return _any([f"start: {start}"], "call", bodies)


def _named_calls(form: NamedCalls, tools: Sequence[Tool], most: int, written: _Written) -> list[str]:
    id_ = f"{written.mark(form.id)} /[a-zA-Z0-9]{{9}}/" if form.id else ""
    begin, separator, end = (written.mark(text) for text in (form.begin, form.separator, form.end))
    bodies = []
    for tool in tools:
        # A pattern of names is that of Kimi K2, whose ids are the name and a number.
        name = f"{_text(f'functions.{tool.name}:')} /[0-9]{{1,3}}/" if form.name else _text(tool.name)
        bodies.append(f"{begin} {name} {id_} {separator} {written.json(parameters_of(tool))} {end}")
    between = "" if form.end else _text("\n") if not form.begin else ""
    start = f"{written.mark(form.open)} {_several('call', between, most)} {written.mark(form.close)}"
    return _any([f"start: {start}"], "call", bodies)


def _tagged_calls(form: TaggedCalls, tools: Sequence[Tool], most: int, written: _Written) -> list[str]:
    bodies: list[str] = []
    values: list[str] = []
    for tool in tools:
        schema = parameters_of(tool)
        required = schema.get("required", [])
        arguments: list[str] = []
        for key in schema.get("properties", {}):
            value = f"value_{len(values)}"
            begin = f"{written.mark(form.key)} {_text(key)} {written.mark(form.key_end + form.value)}"
            values.append(f"{value}{_value(form, tool, key, value, written)}")
            arguments.append(f"({begin} {value}){'' if key in required else '?'}")
        opened = f"{written.mark(form.begin)} {_text(tool.name)} {written.mark(form.name_end)}"
        bodies.append(f"{opened} {' '.join(arguments)} {written.mark(form.end)}")
    one = f"{written.mark(form.open)} call {written.mark(form.close)}"
    return [*_any([f"start: {_several(one, _text(chr(10)), most)}"], "call", bodies), *values]


def _value(form: TaggedCalls, tool: Tool, key: str, rule: str, written: _Written) -> str:
    """The rest of the rule of an argument's value: its text, up to the mark that ends it, and that.

    Text ends at the mark even without the line break before it, as its reader has it. A string within JSON could have
    the mark, which is not prevented: the call would then be cut there.
    """
    schema = tool.parameters["properties"][key]
    end = written.mark(form.value_end)
    if types_of(tool, key) != {"string"}:
        return f": {_json_value(schema, tool, written)} {end}"
    if "enum" in schema or "const" in schema:
        texts = schema.get("enum", [schema.get("const")])
        return f": ({' | '.join(_text(text) or _text(' ') for text in texts)}) {end}"
    if unknown := [name for name in TEXT_KEYS if name in schema]:
        raise ValueError(
            f"tools: {plain(tool.name, 60)}: {unknown[0]} of {plain(key, 60)} is not supported where models write text"
            " without quotes, as this one does"
        )
    mark = form.value_end.strip()
    last = written.mark(mark)
    behind = _text(form.value_end[form.value_end.index(mark) + len(mark) :])
    if last == _text(mark):
        return f": {rule}_text {behind}\n{rule}_text[suffix={last}]: /(?s:.*)/"
    return f": /(?s:.*)/ {last} {behind}"  # the mark has a token of its own, which no text has


def _json_value(schema: Any, tool: Tool, written: _Written) -> str:
    """A member of the parameters by itself, with what it may refer to."""
    shared = {name: tool.parameters[name] for name in ("$defs", "definitions") if name in tool.parameters}
    return written.json({**shared, **schema} if isinstance(schema, Mapping) else {})


def _python_calls(form: PythonCalls, tools: Sequence[Tool], most: int, written: _Written) -> list[str]:
    bodies: list[str] = []
    arguments: list[str] = []
    for tool in tools:
        if not re.fullmatch(r"[^\W\d][\w.]*", tool.name):
            raise ValueError(f"tools: {plain(tool.name, 60)} is no name in Python, in which this model writes calls")
        schema = parameters_of(tool)
        required = schema.get("required", [])
        # Arguments have commas between them: the first that is written has none before it.
        keys = list(schema.get("properties", {}))
        rest = f"rest_{len(bodies)}"
        for i in range(len(keys), -1, -1):
            for comma in (False, True):
                name = f"{rest}_{i}_{'more' if comma else 'first'}"
                if i == len(keys):
                    arguments.append(f'{name}: ""')
                    continue
                key = keys[i]
                value = _json_value(schema["properties"][key], tool, written)
                given = f"{_text((', ' if comma else '') + key + '=')} {value} {rest}_{i + 1}_more"
                left_out = "" if key in required else f" | {rest}_{i + 1}_{'more' if comma else 'first'}"
                arguments.append(f"{name}: {given}{left_out}")
        bodies.append(f'{_text(tool.name + "(")} {rest}_0_first ")"')
    start = f'{written.mark(form.open)} "[" {_several("call", _text(", "), most)} "]" {written.mark(form.close)}'
    return [*_any([f"start: {start}"], "call", bodies), *arguments]
