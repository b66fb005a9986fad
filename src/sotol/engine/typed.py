"""Python types as JSON schemas, and answers as their objects: dataclasses, typed dictionaries, and Pydantic's models.

Pydantic is not needed: a model is known by its methods, and says itself what its schema is. Of dataclasses and typed
dictionaries the fields may be str, int, float, bool, None, Any, literals, enumerations, lists, dictionaries with names,
unions, and further such classes.
"""

import json
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any, Literal, NotRequired, Required, Union, get_args, get_origin, get_type_hints, is_typeddict

__all__ = ["object_of", "schema_of"]

Schema = dict[str, Any]
PLAIN: dict[Any, Schema] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    type(None): {"type": "null"},
    None: {"type": "null"},
    Any: {},
    object: {},
}


def schema_of(kind: Any) -> Schema:
    """The schema of a class; ValueError names a field whose type has none."""
    if _is_pydantic(kind):
        schema: Schema = kind.model_json_schema()
        return schema
    if not is_dataclass(kind) and not is_typeddict(kind):
        name = getattr(kind, "__qualname__", repr(kind))
        raise ValueError(f"schema is {name:.100}; a class must be a Pydantic model, a dataclass or a TypedDict")
    named: dict[str, Any] = {}
    top = _object(kind, named)
    return {**top, "$defs": {name: one for name, (_, one) in named.items()}} if named else top


def object_of(schema: Any, text: str) -> Any:
    """An answer as an object of the class that is its schema. ValueError if it is none."""
    if _is_pydantic(schema):
        return schema.model_validate_json(text)
    try:
        return _value(schema, json.loads(text), schema.__name__)
    except RecursionError:
        raise ValueError("the answer is nested too deeply") from None


def _is_pydantic(kind: Any) -> bool:
    return isinstance(kind, type) and hasattr(kind, "model_json_schema") and hasattr(kind, "model_validate_json")


# ---- types as schemas


def _fields(kind: Any) -> dict[str, tuple[Any, bool]]:
    """The fields of a dataclass or typed dictionary: their types, and whether they must be given."""
    hints = get_type_hints(kind)
    if is_dataclass(kind):
        return {
            f.name: (hints[f.name], f.default is MISSING and f.default_factory is MISSING)
            for f in fields(kind)
            if f.init
        }
    return {name: (hint, name in kind.__required_keys__) for name, hint in hints.items()}


def _object(kind: Any, named: dict[str, Any]) -> Schema:
    parts = _fields(kind)
    properties = {name: _schema(hint, f"{kind.__name__}.{name}", named) for name, (hint, _) in parts.items()}
    required = [name for name, (_, must) in parts.items() if must]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _schema(hint: Any, place: str, named: dict[str, Any]) -> Schema:  # noqa: C901  (a case for each kind of type)
    """The schema of a type. place: of the field, for errors. named: classes that the schema refers to by name."""
    if (isinstance(hint, type(None) | type) and hint in PLAIN) or hint is Any:
        return PLAIN[hint]
    if is_dataclass(hint) or is_typeddict(hint):
        name = hint.__name__
        if name not in named:
            named[name] = hint, {}
            named[name] = hint, _object(hint, named)
        elif named[name][0] is not hint:
            raise ValueError(f"schema: {place} has a second class of the name {name}")
        return {"$ref": f"#/$defs/{name}"}
    if isinstance(hint, type) and issubclass(hint, Enum):
        return {"enum": [_literal(member.value, place) for member in hint]}
    if _is_pydantic(hint):
        raise ValueError(f"schema: {place} is a Pydantic model: make the class that has it one as well")
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (NotRequired, Required):
        return _schema(arguments[0], place, named)
    if origin is Literal:
        return {"enum": [_literal(value, place) for value in arguments]}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(one, place, named) for one in arguments]}
    if hint is list or origin in (list, Sequence):
        return {"type": "array", "items": _schema(arguments[0], place, named) if arguments else {}}
    if hint is dict or (origin in (dict, Mapping) and arguments[0] is str):
        return {"type": "object", "additionalProperties": _schema(arguments[1], place, named) if arguments else {}}
    raise ValueError(f"schema: {place} is {hint!r:.100}, which has no JSON schema here: a Pydantic model may have one")


def _literal(value: Any, place: str) -> Any:
    if isinstance(value, str | int | bool | None):
        return value
    raise ValueError(f"schema: {place} has the value {value!r:.100}, which is not text, a whole number, a bool or None")


# ---- values as objects


def _value(hint: Any, value: Any, place: str) -> Any:  # noqa: C901  (a case for each kind of type)
    """A value of JSON as a type's; ValueError if it is none."""
    origin, arguments = get_origin(hint), get_args(hint)
    if is_dataclass(hint) or is_typeddict(hint):
        if not isinstance(value, dict):
            raise ValueError(f"{place} is {value!r:.60}, not an object")
        parts = _fields(hint)
        if unknown := [name for name in value if name not in parts]:
            raise ValueError(f"{place} has no field {unknown[0]!r:.60}")
        if missing := [name for name, (_, must) in parts.items() if must and name not in value]:
            raise ValueError(f"{place} has not its field {missing[0]}")
        given = {name: _value(parts[name][0], part, f"{place}.{name}") for name, part in value.items()}
        made: Callable[..., Any] = hint
        return made(**given)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(value)
    if origin in (NotRequired, Required):
        return _value(arguments[0], value, place)
    if origin is Literal:
        if not any(value == one and type(value) is type(one) for one in arguments):
            raise ValueError(f"{place} is {value!r:.60}, none of {arguments}")
        return value
    if origin in (Union, types.UnionType):
        return _first(arguments, value, place)
    if hint is list or origin in (list, Sequence):
        if not isinstance(value, list):
            raise ValueError(f"{place} is {value!r:.60}, not a list")
        return [_value(arguments[0], part, place) for part in value] if arguments else value
    if hint is dict or origin in (dict, Mapping):
        if not isinstance(value, dict):
            raise ValueError(f"{place} is {value!r:.60}, not an object")
        return {k: _value(arguments[1], part, place) for k, part in value.items()} if arguments else value
    if hint in (Any, object):
        return value
    if hint is float and type(value) is int:
        return float(value)
    if hint is int and type(value) is float and value.is_integer():
        return int(value)
    if type(value) is not (type(None) if hint is None else hint):
        raise ValueError(f"{place} is {value!r:.60}, not {getattr(hint, '__name__', hint)}")
    return value


def _first(kinds: Sequence[Any], value: Any, place: str) -> Any:
    """A value as the first of several types that it can be."""
    for kind in kinds:
        try:
            return _value(kind, value, place)
        except ValueError:
            continue
    raise ValueError(f"{place} is {value!r:.60}, which fits none of its types")
