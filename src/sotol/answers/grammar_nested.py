"""Arguments that are nested, but not JSON, in llguidance's form of Lark: objects with marks for quotes, and elements.

What a schema says is kept where it has a form here: objects, lists, texts, enumerations, unions and references. Numbers
and truth values are those of JSON, with all that a schema says of them.
"""

import json as json_module
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sotol.answers.forms import ElementCalls, QuotedCalls
from sotol.answers.tools import Tool
from sotol.answers.values import types_in
from sotol.errors import plain

__all__ = ["Written", "element_arguments", "quoted_arguments", "text_of"]

Schema = Mapping[str, Any]
SCALARS = ("integer", "number", "boolean", "null")
# What a schema may say of a text, a list or an object that has no form here.
UNSUPPORTED = {
    "string": ("pattern", "format", "minLength", "maxLength"),
    "array": ("uniqueItems", "prefixItems", "contains"),
    "object": ("patternProperties", "minProperties", "maxProperties", "dependentRequired"),
}


class Written(NamedTuple):
    """How fixed things are written in Lark: a mark, and a JSON schema."""

    mark: Callable[[str], str]
    json: Callable[[Schema], str]


def text_of(text: str) -> str:
    """A text in Lark; "" is nothing."""
    return json_module.dumps(text, ensure_ascii=False) if text else ""


def quoted_arguments(form: QuotedCalls, rule: str, tool: Tool, schema: Schema, written: Written) -> list[str]:
    """The rules of an object of that schema, of which `rule` is the whole. ValueError names what it can't write."""
    return _Quoted(form.quote, rule, tool, schema, written).rules


def element_arguments(form: ElementCalls, rule: str, tool: Tool, schema: Schema, written: Written) -> list[str]:
    """The same as elements."""
    return _Elements(form, rule, tool, schema, written).rules


class _Nested(ABC):
    """Rules of a schema's values; subclasses write texts, lists and objects."""

    def __init__(self, rule: str, tool: Tool, root: Schema, written: Written) -> None:
        self.rules: list[str] = []
        self._rule, self._tool, self._root, self._written = rule, tool, root, written
        self._known: dict[str, str] = {}  # schemas as text, and their rules

    def value(self, schema: Any) -> str:
        """The name of the rule of a schema's values."""
        schema = schema if isinstance(schema, Mapping) else {}
        key = json_module.dumps(schema, sort_keys=True)
        if key not in self._known:
            self._known[key] = f"{self._rule}_{len(self._known)}"
            self._add(self._known[key], self._body(schema))
        return self._known[key]

    def _add(self, name: str, body: str) -> None:
        self.rules.append(f"{name}: {body}")

    def _body(self, schema: Schema) -> str:
        if isinstance(reference := schema.get("$ref"), str):
            return self.value(self._referred(reference))
        if "enum" in schema or "const" in schema:
            return " | ".join(map(self._fixed, schema.get("enum", [schema.get("const")])))
        if options := schema.get("anyOf") or self._exclusive(schema.get("oneOf", ())):
            return " | ".join(map(self.value, options))
        if isinstance(kinds := schema.get("type"), list):
            return " | ".join(self.value({**schema, "type": kind}) for kind in kinds)
        return self._typed(schema, kinds)

    def _exclusive(self, options: Sequence[Any]) -> Sequence[Any]:
        """These alternatives, of which no value fits two since they are of different types. ValueError for others."""
        kinds = [kind for option in options for kind in types_in(option, self._root) or ("any",)]
        numbers = {"number", "integer"} <= set(kinds)
        if len(set(kinds)) < len(kinds) or numbers or (len(options) > 1 and "any" in kinds):
            raise self._refused("oneOf of alternatives that are not of different types")
        return options

    def _typed(self, schema: Schema, kind: object) -> str:
        """The values of a schema with one type, or none."""
        if unknown := [word for word in (*UNSUPPORTED.get(str(kind), ()), "allOf") if word in schema]:
            raise self._refused(unknown[0])
        if kind == "string":
            return self._text()
        if kind == "array":
            return self._list(self.value(schema.get("items")), schema.get("minItems", 0), schema.get("maxItems"))
        if kind == "object" and ("properties" in schema or schema.get("additionalProperties") is False):
            return self._object(schema.get("properties", {}), schema.get("required", ()))
        return self._json(schema) if kind in SCALARS else self._any(kind)

    def _referred(self, reference: str) -> Any:
        found: Any = self._root
        for part in reference.removeprefix("#/").split("/"):
            found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
        if found is None:
            raise ValueError(f"tools: {plain(self._tool.name, 60)}: {plain(reference, 60)} refers to nothing")
        return found

    def _refused(self, word: str) -> ValueError:
        name = plain(self._tool.name, 60)
        return ValueError(f"tools: {name}: {word} is not supported in the form in which this model writes arguments")

    @abstractmethod
    def _fixed(self, value: Any) -> str:
        """A value of an enumeration."""

    @abstractmethod
    def _text(self) -> str:
        """Any text."""

    @abstractmethod
    def _json(self, schema: Schema) -> str:
        """A value that is written as JSON is."""

    @abstractmethod
    def _any(self, kind: object) -> str:
        """Any value, or any of that type."""

    @abstractmethod
    def _list(self, item: str, least: int, most: int | None) -> str:
        """A list of so many."""

    @abstractmethod
    def _object(self, properties: Mapping[str, Any], required: Sequence[str]) -> str:
        """An object with these members."""

    def _up_to(self, mark: str) -> str:
        """Text, and the mark behind it, which the text does not have."""
        written = self._written.mark(mark)
        if written != text_of(mark):
            return f"/(?s:.*)/ {written}"  # a token of its own, which no text has
        name = f"{self._rule}_text"
        if name not in self._known:
            self._known[name] = name
            self.rules.append(f"{name}[suffix={written}]: /(?s:.*)/")
        return name


class _Quoted(_Nested):
    def __init__(self, quote: str, rule: str, tool: Tool, root: Schema, written: Written) -> None:
        super().__init__(rule, tool, root, written)
        self._quote, self._objects = quote, 0
        self._add(rule, self._body(root))

    def _fixed(self, value: Any) -> str:
        if isinstance(value, str):
            return f"{self._written.mark(self._quote)} {text_of(value)} {self._written.mark(self._quote)}"
        if isinstance(value, dict | list):
            raise self._refused("an enum of objects or lists")
        return text_of(json_module.dumps(value))

    def _text(self) -> str:
        return f"{self._written.mark(self._quote)} {self._up_to(self._quote)}"

    def _json(self, schema: Schema) -> str:
        return self._written.json(schema)

    def _any(self, kind: object) -> str:
        name = f"{self._rule}_any"
        if name not in self._known:
            self._known[name] = name
            scalar = self._written.json({"type": ["number", "boolean", "null"]})
            self._add(name, f"{name}_text | {name}_object | {name}_list | {scalar}")
            self._add(f"{name}_text", self._text())
            member = f'/[A-Za-z_][A-Za-z0-9_]{{0,63}}/ ":" {name}'
            self._add(f"{name}_object", f'"{{" ({member} ("," {member})*)? "}}"')
            self._add(f"{name}_list", f'"[" ({name} ("," {name})*)? "]"')
        return f"{name}_object" if kind == "object" else name

    def _list(self, item: str, least: int, most: int | None) -> str:
        if most == 0:
            return text_of("[]")
        more = f'("," {item}){{{max(least - 1, 0)},{"" if most is None else most - 1}}}'
        return f'"[" {item} {more} "]"' + ("" if least else f" | {text_of('[]')}")

    def _object(self, properties: Mapping[str, Any], required: Sequence[str]) -> str:
        """Members in the order in which templates have them; the first that is written has no comma before it."""
        keys = sorted(properties, key=str.lower)
        rest, self._objects = f"{self._rule}_rest_{self._objects}", self._objects + 1
        for i in range(len(keys), -1, -1):
            for state in ("first", "more"):
                name = f"{rest}_{i}_{state}"
                if i == len(keys):
                    self._add(name, '""')
                    continue
                comma = "," if state == "more" else ""
                given = f"{text_of(comma + keys[i] + ':')} {self.value(properties[keys[i]])} {rest}_{i + 1}_more"
                self._add(name, given + ("" if keys[i] in required else f" | {rest}_{i + 1}_{state}"))
        return f'"{{" {rest}_0_first "}}"'


class _Elements(_Nested):
    """Values with the mark behind them, which is that of the tag that ends their element."""

    def __init__(self, form: ElementCalls, rule: str, tool: Tool, root: Schema, written: Written) -> None:
        super().__init__(rule, tool, root, written)
        self._form, self._mark = form, written.mark(form.mark)
        self._add(rule, self._members(root.get("properties", {}), root.get("required", ())) or '""')

    def _fixed(self, value: Any) -> str:
        return f"{text_of(value if isinstance(value, str) else json_module.dumps(value))} {self._mark}"

    def _text(self) -> str:
        return self._up_to(self._form.mark)

    def _json(self, schema: Schema) -> str:
        return f"{self._written.json(schema)} {self._mark}"

    def _any(self, kind: object) -> str:
        return self._json({"type": kind} if isinstance(kind, str) else {})

    def _list(self, item: str, least: int, most: int | None) -> str:
        element = self._element(self._form.item, item)
        return f"({element}){{{least},{'' if most is None else most}}} {self._mark}"

    def _object(self, properties: Mapping[str, Any], required: Sequence[str]) -> str:
        return f"{self._members(properties, required)} {self._mark}"

    def _members(self, properties: Mapping[str, Any], required: Sequence[str]) -> str:
        elements = (
            f"({self._element(key, self.value(schema))}){'' if key in required else '?'}"
            for key, schema in properties.items()
        )
        return " ".join(elements)

    def _element(self, name: str, value: str) -> str:
        return f"{self._mark} {text_of(f'<{name}>')} {value} {text_of(f'</{name}>')}"
