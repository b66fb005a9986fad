"""The arguments of a tool call as an object, for dialects that have them so. A model writes text."""

import json
from typing import Any

from pydantic_core import from_json

__all__ = ["INVALID", "call_arguments"]

INVALID = "invalid_json"  # the key of arguments that are none


def call_arguments(text: str) -> dict[str, Any]:
    """The object that a text is; of one that was cut short, what there is; else {INVALID: the text}."""
    try:
        value = json.loads(text or "{}")
    except ValueError:
        try:
            value = from_json(text, allow_partial=True)
        except ValueError:
            value = None
    return value if isinstance(value, dict) else {INVALID: text}
