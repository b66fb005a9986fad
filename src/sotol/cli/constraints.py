"""What an answer must be, as a command line says it. Each function raises ValueError for what it can't understand."""

import json
import re
from pathlib import Path
from typing import Any

from sotol.cli.reading import read_file
from sotol.errors import plain

__all__ = ["grammar_of", "parse_schema"]

TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
FIELD = re.compile(r"\s*([A-Za-z_]\w*)(?:[ \t]+(str|int|float|bool))?\s*(?::\s*(.*?))?\s*", re.DOTALL)


def parse_schema(text: str) -> Any:
    """A JSON schema, a file that has one, or the short form of `llm`: fields as `name, age int, bio: in one sentence`.

    Fields are separated by commas, or, if there are line breaks, by these. A field is text unless a type follows its
    name, and what follows a colon describes it.
    """
    if text.lstrip().startswith("{"):
        return text
    parts = [part for part in text.split("\n" if "\n" in text.strip() else ",") if part.strip()]
    fields = [FIELD.fullmatch(part) for part in parts]
    if Path(text).expanduser().is_file():
        return read_file(text)
    if not fields or None in fields:
        raise ValueError(
            f"the schema is {plain(repr(text))}; it must be JSON, a file that there is, or fields: 'name, age int'"
        )
    properties: dict[str, Any] = {}
    for found in fields:
        assert found is not None
        name, kind, meaning = found.groups()
        if name in properties:
            raise ValueError(f"the schema has the field {name} twice")
        properties[name] = {"type": TYPES[kind or "str"], **({"description": meaning} if meaning else {})}
    required = list(properties)
    return json.dumps({"type": "object", "properties": properties, "required": required, "additionalProperties": False})


def grammar_of(file: str | None, text: str | None) -> str | None:
    """The grammar of a file, or one that is given as text."""
    if file is not None and text is not None:
        raise ValueError("--grammar and --grammar-string are given; an answer can have one")
    return text if file is None else read_file(file)
