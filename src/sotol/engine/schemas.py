"""JSON schemas for llguidance: what it would get wrong is refused or narrowed here, and its errors get their place.

What it does not support it refuses itself, as it is told to. Two things it accepts would let wrong answers pass
(llguidance 1.9, found by `tests/engine/test_constrain_schemas.py`): it counts a key that comes twice as two properties,
and a class of characters that has all control characters also has quotes and backslashes.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sotol.engine.typed import schema_of
from sotol.errors import plain

__all__ = ["LONGEST", "place_of_error", "prepared", "schema_text"]

LONGEST = 1 << 20  # characters
DEEPEST = 100  # lists and objects in each other
TRIES = 300  # schemas within a schema that are compiled to find the one that is wrong
# For llguidance. Little white space: a model that may write any amount of it sometimes never stops. No escapes for
# letters: one could spell the name of a property so that it is taken for another.
OPTIONS = {
    "item_separator": ",",
    "key_separator": ":",
    "whitespace_pattern": r"[ ]{1,2}|\r?\n[ ]{0,32}|\r?\n\t{1,16}",
    "whitespace_flexible": True,
    "coerce_one_of": False,
    "lenient": False,
    "json_allow_general_unicode_escapes": False,
}
# Where a schema has schemas: in itself, in a list, or in an object by any name; and where it has values.
ONE = ("items", "additionalItems", "additionalProperties", "contains", "propertyNames", "not", "if", "then", "else",
       "unevaluatedItems", "unevaluatedProperties")  # fmt: skip
LISTS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
VALUES = ("const", "enum", "default", "example", "examples")
CLASS = re.compile(r"\\.|\[\^?(?:\\.|\[:\^?\w+:\]|[^\]\\])+\]", re.DOTALL)


def schema_text(schema: object) -> str:
    """A schema (a dict, JSON text, or a class) as JSON; ValueError says where it is none, or too large."""
    given = schema
    if isinstance(given, str):
        _check_length(given)
        try:
            given = json.loads(given, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"schema is not JSON: {plain(error)}") from None
    elif isinstance(given, type):
        given = schema_of(given)
    if not isinstance(given, Mapping):
        raise ValueError(f"schema is {schema!r:.100}; it must be an object (a dict, or JSON text), or a class")
    _check_depth(given)
    try:
        text = json.dumps(dict(given), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"schema is not JSON: {plain(error)}") from None
    _check_length(text)
    return text


def prepared(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema for llguidance, with options; ValueError names what is not supported, and its place."""
    if "x-guidance" in schema:
        raise ValueError("schema: x-guidance is not supported")
    whole: dict[str, Any] = _sound(schema, "#", named=False)
    return {**whole, "x-guidance": OPTIONS}


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _check_length(text: str) -> None:
    if len(text) > LONGEST:
        raise ValueError(f"schema has {len(text)} characters; it may have {LONGEST}")


def _check_depth(schema: object) -> None:
    """ValueError for lists and objects that are nested too deeply, or contain themselves."""
    level: list[object] = [schema]
    seen = 0
    for _ in range(DEEPEST):
        inner: list[object] = []
        for whole in level:
            if isinstance(whole, Mapping):
                inner += whole.values()
            elif isinstance(whole, list | tuple):
                inner += whole
        level, seen = inner, seen + len(inner)
        if not level:
            return
        if seen > LONGEST:
            raise ValueError(f"schema has more than {LONGEST} parts")
    raise ValueError(f"schema has more than {DEEPEST} lists and objects in each other")


# ---- what llguidance would get wrong


def _sound(part: Any, path: str, *, named: bool) -> Any:
    """Any part of a schema, changed where llguidance needs it. named: its keys are names, not keywords."""
    if isinstance(part, list):
        return [_sound(one, f"{path}/{i}", named=False) for i, one in enumerate(part)]
    if not isinstance(part, dict):
        return part
    if named:
        return {name: _sound(one, _step(path, name), named=False) for name, one in part.items()}
    least, required = part.get("minProperties"), part.get("required")
    if isinstance(least, int) and least > 1 + len(set(required) if isinstance(required, list) else ()):
        reason = "keys may repeat that required does not name"
        raise ValueError(f"schema at {plain(path)}: minProperties {least} is not supported: {reason}")
    return {key: _sound_keyword(key, value, path) for key, value in part.items()}


def _sound_keyword(key: str, value: Any, path: str) -> Any:
    if key in VALUES:
        return value
    if key == "pattern" and isinstance(value, str):
        return _narrowed(value, f"{path}/pattern")
    if key == "patternProperties" and isinstance(value, dict):
        value = {_narrowed(name, _step(f"{path}/{key}", name)): one for name, one in value.items()}
    return _sound(value, f"{path}/{key}", named=key in NAMED)


def _step(path: str, name: str) -> str:
    return f"{path}/{name.replace('~', '~0').replace('/', '~1')}"


def _narrowed(pattern: str, path: str) -> str:
    """A pattern whose classes of characters have no control characters where they have not all that JSON escapes."""
    if re.search(r"\\p\{\^?(?:C|Other|Control|Any|gc=C|General)", pattern):
        raise ValueError(f"schema at {plain(path)}: a class of control characters is not supported")
    return CLASS.sub(lambda found: _narrowed_class(found[0]), pattern)


def _narrowed_class(text: str) -> str:
    if not text.startswith("["):
        return text
    try:
        has = [re.fullmatch(text, one) is not None for one in ("\x01", '"', "\\")]
    except re.error:  # it has something that only llguidance knows
        has = [True, False, False]
    return rf"[{text}&&[^\x00-\x1f\x7f]]" if has[0] and not all(has) else text


# ---- the place of an error


def place_of_error(schema: dict[str, Any], error: str, error_of: Callable[[dict[str, Any]], str]) -> tuple[str, str]:
    """The innermost schema that has an error of its own, as a JSON pointer, and that error.

    error: what llguidance says of the whole. error_of: what it says of a part, or "".
    """
    tries, path, found = TRIES, "#", True
    shared: dict[str, Any] = {name: schema[name] for name in ("$defs", "definitions", "$schema") if name in schema}
    inner: Any = schema
    while found and tries > 0:
        found = False
        for step, part in _parts(inner):
            if not isinstance(part, dict) or (tries := tries - 1) < 0:
                continue
            said = error_of({**shared, **part})
            if said and "$ref" not in said and "Pointer" not in said:
                inner, path, error, found = part, f"{path}/{step}", said, True
                break
    return path, error


def _parts(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The schemas within a schema, and the way to each."""
    for key, value in schema.items():
        if key in ONE and isinstance(value, dict):
            yield key, value
        elif key in LISTS and isinstance(value, list):
            yield from ((f"{key}/{i}", part) for i, part in enumerate(value))
        elif key in NAMED and isinstance(value, dict):
            yield from ((_step(key, name), part) for name, part in value.items())
