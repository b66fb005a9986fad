"""Arguments that a model writes as plain text, as JSON of the types that the tool's schema declares."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from sotol.answers.pythonic import python_value
from sotol.answers.source import Malformed
from sotol.answers.tools import Tool

__all__ = ["as_json", "decoded", "escaped", "json_or_text", "part_of", "types_in", "types_of"]

WORDS = {"true": True, "false": False, "none": None, "null": None}  # also as Python writes them


def types_of(tool: Tool, parameter: str) -> frozenset[str]:
    """JSON schema's names of the types that a parameter may have; none if the schema does not tell."""
    properties = tool.parameters.get("properties")
    schema = properties.get(parameter) if isinstance(properties, Mapping) else None
    return types_in(schema, tool.parameters)


def types_in(schema: object, root: Mapping[str, Any]) -> frozenset[str]:
    """The same of a schema. root: the whole, in which its references are."""
    return frozenset(_types(schema, root, set()))


def part_of(schema: object, root: Mapping[str, Any], key: str | None) -> object:
    """The schema of a member of an object, or of what is in a list (None); None if the schema does not tell."""
    for option in _options(schema, root, set()):
        if key is None and "items" in option:
            return option["items"]
        properties = option.get("properties")
        if key is not None and isinstance(properties, Mapping) and key in properties:
            return properties[key]
        if key is not None and isinstance(option.get("additionalProperties"), Mapping):
            return option["additionalProperties"]
    return None


def _options(schema: object, root: Mapping[str, Any], seen: set[str]) -> Iterator[Mapping[str, Any]]:
    """A schema and those that it may stand for. seen: references that were followed; none is followed twice."""
    if not isinstance(schema, Mapping):
        return
    yield schema
    if isinstance(reference := schema.get("$ref"), str) and reference not in seen:
        seen.add(reference)
        yield from _options(_referred(reference, root), root, seen)
    for word in ("anyOf", "oneOf", "allOf"):
        options = schema.get(word)
        for option in options if isinstance(options, list) else ():
            yield from _options(option, root, seen)


def _types(schema: object, root: Mapping[str, Any], seen: set[str]) -> set[str]:
    """seen: references that were followed; none is followed twice."""
    if not isinstance(schema, Mapping):
        return set()
    declared = schema.get("type")
    if isinstance(declared, str):
        return {declared}
    if isinstance(declared, list):
        return {kind for kind in declared if isinstance(kind, str)}
    if isinstance(reference := schema.get("$ref"), str):
        if reference in seen:
            return set()
        seen.add(reference)
        return _types(_referred(reference, root), root, seen)
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    found = {_type_of(value) for value in values} if isinstance(values, list) else set()
    for word in ("anyOf", "oneOf", "allOf"):
        options = schema.get(word)
        for option in options if isinstance(options, list) else ():
            found |= _types(option, root, seen)
    return found


def _referred(reference: str, root: Mapping[str, Any]) -> object:
    """What "#/$defs/Name" means."""
    found: Any = root
    for part in reference.removeprefix("#/").split("/"):
        found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
    return found


def _type_of(value: object) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else "boolean"
    if isinstance(value, int | float):
        return "integer" if isinstance(value, int) else "number"
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"


def as_json(text: str, types: frozenset[str]) -> str:
    """An argument's text as JSON: of one of the types, if it reads as that; else a string, as the model wrote it.

    Lists, objects and words may also be as Python writes them.
    """
    written = text.strip()
    value: Any = text
    if (word := written.lower()) in WORDS:
        value, written = WORDS[word], json.dumps(WORDS[word])
    else:
        try:
            value = json.loads(written, parse_constant=_refuse)
        except (ValueError, RecursionError):
            if written.startswith(("[", "{")):
                with suppress(Malformed):
                    value = python_value(written)
                    written = json.dumps(value, ensure_ascii=False)
    kind = _type_of(value)
    fits = not types or kind in types or (kind == "integer" and "number" in types)
    if isinstance(value, str) or (not fits and "string" in types):
        return f'"{escaped(text)}"'
    return written  # of a number, all digits as they were


def json_or_text(text: str) -> str:
    """Text that is JSON, as it is; else as `as_json` reads it."""
    try:
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return as_json(text, frozenset())
    return text.strip()


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def escaped(text: str) -> str:
    """Text, or part of one, as between the quotes of a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def decoded(string: str) -> str:
    """What a JSON string says."""
    try:
        said = json.loads(string, strict=False)
    except ValueError:
        raise Malformed from None
    assert isinstance(said, str)
    return said
