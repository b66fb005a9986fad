"""The calls that a format has for the tools that may be called, as a grammar in llguidance's form of Lark.

A model that must call can then write nothing else. It writes calls as the first form of its format does, which is that
of its template; names and marks are fixed, and arguments are what the parameters of a tool describe. Knows nothing of
vocabularies: `mark` says how a mark is written in Lark, `json` how a JSON schema is.
"""

import json as json_module
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sotol.answers.forms import (
    AnswerFormat,
    ElementCalls,
    JsonCalls,
    NamedCalls,
    PythonCalls,
    QuotedCalls,
    TaggedCalls,
    attribute,
)
from sotol.answers.grammar_nested import Written, element_arguments, quoted_arguments, text_of
from sotol.answers.tools import Tool
from sotol.answers.values import types_of
from sotol.errors import plain

__all__ = ["calls_grammar", "parameters_of"]

SCALARS = frozenset({"string", "integer", "number", "boolean", "null"})
ANNOTATIONS = ("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment")
MOST = 16  # calls in an answer, that it may end
TEXT_KEYS = ("pattern", "format", "minLength", "maxLength")  # of schemas that are no grammar for text without quotes


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
    written = Written(mark, json)
    most = MOST if parallel and format_.messages is None else 1  # a message has one
    lead = "" if format_.messages is None else format_.messages.lead
    match form := format_.calls[0]:
        case JsonCalls():
            rules = _json_calls(form, tools, most, written)
        case NamedCalls():
            rules = _named_calls(form, tools, most, written, begun=format_.begun)
        case TaggedCalls():
            rules = _tagged_calls(form, tools, most, written, lead=lead)
        case PythonCalls():
            rules = _python_calls(form, tools, most, written)
        case QuotedCalls():
            rules = _quoted_calls(form, tools, most, written)
        case ElementCalls():
            rules = _element_calls(form, tools, most, written)
    return "\n".join(rules)


def parameters_of(tool: Tool) -> dict[str, Any]:
    """The schema of a tool's arguments: an object, with no more members than are declared unless it says so."""
    schema = {"type": "object", **tool.parameters}
    if "properties" in schema:
        schema.setdefault("additionalProperties", False)
    return schema


def _any(rules: Sequence[str], name: str, bodies: Sequence[str]) -> list[str]:
    """Rules, one for each body, and one for any of them."""
    numbered = [f"{name}_{i}: {body}" for i, body in enumerate(bodies)]
    return [*rules, f"{name}: {' | '.join(f'{name}_{i}' for i in range(len(bodies)))}", *numbered]


def _several(one: str, between: str, most: int) -> str:
    return one if most == 1 else f"{one} ({between} {one}){{0,{most - 1}}}"


# ---- one form after the other


def _json_calls(form: JsonCalls, tools: Sequence[Tool], most: int, written: Written) -> list[str]:
    id_ = f'{text_of(f", {json_module.dumps(form.id)}: ")} /"[a-zA-Z0-9]{{9}}"/' if form.id else ""
    bodies = []
    if not form.open and not form.listed:  # nothing tells a call from other JSON but what is in it
        start = f"start: {_several('call', text_of(chr(10)), most)}"
        return _any([start], "call", [written.json(_object_of(form, tool)) for tool in tools])
    for tool in tools:
        name = json_module.dumps(tool.name, ensure_ascii=False)
        begin = f'{{"{form.name[0]}": {name}, "{form.arguments[0]}": ' if not form.keyed else f"{{{name}: "
        bodies.append(f'{text_of(begin)} {written.json(parameters_of(tool))} {id_} "}}"')
    open_, close = written.mark(form.open), written.mark(form.close)
    if form.listed:
        start = f'{open_} "[" {_several("call", text_of(", "), most)} "]" {close}'
    else:
        start = _several(f"{open_} call {close}", text_of("\n"), most)
    return _any([f"start: {start}"], "call", bodies)


def _object_of(form: JsonCalls, tool: Tool) -> dict[str, Any]:
    """The schema of a call as an object. What its parameters refer to is where they look for it, at the top."""
    parameters = parameters_of(tool)
    shared: dict[str, Any] = {name: parameters.pop(name) for name in ("$defs", "definitions") if name in parameters}
    properties = {form.name[0]: {"const": tool.name}, form.arguments[0]: parameters}
    called = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
    return {**called, **shared}


def _named_calls(form: NamedCalls, tools: Sequence[Tool], most: int, written: Written, *, begun: str) -> list[str]:
    id_ = f"{written.mark(form.id)} /[a-zA-Z0-9]{{9}}/" if form.id else ""
    id_before = f"/[a-z0-9]{{10}}/ {written.mark(form.named)}" if form.named else ""
    begin, separator, end = (written.mark(text) for text in (form.begin, form.separator, form.end))
    bodies = []
    for tool in tools:
        # A pattern of names is that of Kimi K2, whose ids are the name and a number.
        name = f"{text_of(f'functions.{tool.name}:')} /[0-9]{{1,3}}/" if form.name else text_of(tool.name)
        bodies.append(f"{id_before} {name} {id_} {separator} {written.json(parameters_of(tool))} {end}")
    first = "" if begun == form.begin else begin
    more = f"({begin} call){{0,{most - 1}}}" if most > 1 else ""
    start = f"{written.mark(form.open)} {first} call {more} {written.mark(form.close)}"
    return _any([f"start: {start}"], "call", bodies)


def _tagged_calls(form: TaggedCalls, tools: Sequence[Tool], most: int, written: Written, *, lead: str) -> list[str]:
    bodies: list[str] = []
    values: list[str] = []
    name_end, index, behind = attribute(form.name_end)
    named = f"{written.mark(name_end)} /[1-9][0-9]?/ {written.mark(behind)}" if index else written.mark(name_end)
    for tool in tools:
        schema = parameters_of(tool)
        required = schema.get("required", [])
        arguments: list[str] = []
        for key in schema.get("properties", {}):
            value = f"value_{len(values)}"
            begin = f"{written.mark(form.key)} {text_of(key)} {written.mark(_key_end(form, tool, key) + form.value)}"
            values.append(f"{value}{_value(form, tool, key, value, written)}")
            arguments.append(f"({begin} {value}){'' if key in required else '?'}")
        headed = written.mark(lead.replace("{name}", tool.name))
        opened = f"{written.mark(form.begin)} {text_of(tool.name)} {named}"
        call = f"{opened} {' '.join(arguments)} {written.mark(form.end)}"
        bodies.append(f"{headed} {written.mark(form.open)} {call} {written.mark(form.close)}")
    return [*_any([f"start: {_several('call', text_of(chr(10)), most)}"], "call", bodies), *values]


def _key_end(form: TaggedCalls, tool: Tool, key: str) -> str:
    """What stands behind a key, with the attribute that tells of its value."""
    before, kind, behind = attribute(form.key_end)
    types = types_of(tool, key)
    if not kind:
        return before
    if kind == "string":
        return f"{before}{'true' if types == {'string'} else 'false'}{behind}"
    name = next(iter(types)) if len(types) == 1 else "object"  # of several, which reads alike
    return f"{before}{'number' if name == 'integer' else name}{behind}"


def _value(form: TaggedCalls, tool: Tool, key: str, rule: str, written: Written) -> str:
    """The rest of the rule of an argument's value: its text, up to the mark that ends it, and that.

    Text ends at the mark even without the line break before it, as its reader has it. A string within JSON could have
    the mark, which is not prevented: the call would then be cut there.
    """
    schema, types = tool.parameters["properties"][key], types_of(tool, key)
    end = written.mark(form.value_end)
    if "string" in types and ("enum" in schema or "const" in schema):
        values = schema.get("enum", [schema.get("const")])
        texts = [value if isinstance(value, str) else json_module.dumps(value) for value in values]
        return f": ({' | '.join(text_of(text) or text_of(' ') for text in texts)}) {end}"
    if types != {"string"} and ("string" not in types or attribute(form.key_end)[1] or not _any_text(schema)):
        return f": {_json_value(schema, tool, written)} {end}"
    if unknown := [name for name in TEXT_KEYS if name in schema]:
        raise ValueError(
            f"tools: {plain(tool.name, 60)}: {unknown[0]} of {plain(key, 60)} is not supported where models write text"
            " without quotes, as this one does"
        )
    mark = form.value_end.strip()
    last = written.mark(mark)
    behind = text_of(form.value_end[form.value_end.index(mark) + len(mark) :])
    if last == text_of(mark):
        return f": {rule}_text {behind}\n{rule}_text[suffix={last}]: /(?s:.*)/"
    return f": /(?s:.*)/ {last} {behind}"  # the mark has a token of its own, which no text has


def _any_text(schema: Any) -> bool:
    """Whether a schema with texts says only which scalars there may be besides: then any text reads as one of them."""
    if not isinstance(schema, Mapping) or not schema.keys() <= {"type", "anyOf", "oneOf", *ANNOTATIONS}:
        return False
    kinds = schema.get("type", [])
    return set([kinds] if isinstance(kinds, str) else kinds) <= SCALARS and all(
        _any_text(option) for word in ("anyOf", "oneOf") for option in schema.get(word, ())
    )


def _json_value(schema: Any, tool: Tool, written: Written) -> str:
    """A member of the parameters by itself, with what it may refer to."""
    shared = {name: tool.parameters[name] for name in ("$defs", "definitions") if name in tool.parameters}
    return written.json({**shared, **schema} if isinstance(schema, Mapping) else {})


def _python_calls(form: PythonCalls, tools: Sequence[Tool], most: int, written: Written) -> list[str]:
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
                given = f"{text_of((', ' if comma else '') + key + '=')} {value} {rest}_{i + 1}_more"
                left_out = "" if key in required else f" | {rest}_{i + 1}_{'more' if comma else 'first'}"
                arguments.append(f"{name}: {given}{left_out}")
        bodies.append(f'{text_of(tool.name + "(")} {rest}_0_first ")"')
    start = f'{written.mark(form.open)} "[" {_several("call", text_of(", "), most)} "]" {written.mark(form.close)}'
    return [*_any([f"start: {start}"], "call", bodies), *arguments]


def _quoted_calls(form: QuotedCalls, tools: Sequence[Tool], most: int, written: Written) -> list[str]:
    bodies: list[str] = []
    rules: list[str] = []
    for i, tool in enumerate(tools):
        arguments = quoted_arguments(form, f"arguments_{i}", tool, parameters_of(tool), written)
        rules += arguments
        bodies.append(f"{written.mark(form.open)} {text_of(tool.name)} arguments_{i} {written.mark(form.close)}")
    return [*_any([f"start: {_several('call', '', most)}"], "call", bodies), *rules]


def _element_calls(form: ElementCalls, tools: Sequence[Tool], most: int, written: Written) -> list[str]:
    def tag(text: str) -> str:
        """A mark and a tag apart, as they are in arguments: of two texts that begin alike only one might be read."""
        mark, rest = written.mark(form.mark), text.removeprefix(form.mark)
        return f"{mark} {text_of(rest)}"

    bodies: list[str] = []
    rules: list[str] = []
    for i, tool in enumerate(tools):
        rules += element_arguments(form, f"arguments_{i}", tool, parameters_of(tool), written)
        named = f"{tag(form.begin)} {text_of(tool.name)} {written.mark(form.name_end)}"
        bodies.append(f"{named} arguments_{i} {tag(form.end)}")
    start = f"{tag(form.open)} {_several('call', '', most)} {tag(form.close)}"
    return [*_any([f"start: {start}"], "call", bodies), *rules]
