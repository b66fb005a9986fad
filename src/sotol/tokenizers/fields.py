"""Typed access to a file's `tokenizer.ggml.*` fields, and a list of remarks on what is wrong with them.

Field names are those of the GGUF specification (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md,
"Tokenizer"). A field of a wrong type is an error; other faults are remarks, made by the code that reads the field.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

from sotol.errors import FormatError

__all__ = ["TokenizerFields"]

PREFIX = "tokenizer.ggml."

Item = TypeVar("Item", str, int, float)


class TokenizerFields(NamedTuple):
    """The fields of one file. remarks: what has been found wrong so far, and how it is interpreted."""

    metadata: Mapping[str, object]
    source: str
    remarks: list[str]

    def broken(self, field: str, why: str) -> FormatError:
        """An error that names the file and the field."""
        return FormatError(f"{self.source}: {PREFIX}{field} {why}")

    def remark(self, field: str, what: str) -> None:
        """Record a fault that loading survives, in a field that can still be used or left out."""
        self.remarks.append(f"{PREFIX}{field} {what}")

    def has(self, field: str) -> bool:
        """Whether the file has the field."""
        return self.metadata.get(PREFIX + field) is not None

    def array(self, field: str, kind: type[Item]) -> list[Item] | None:
        """The items of a list, all of one type (float accepts integers, too); None if the file lacks the field."""
        value = self.metadata.get(PREFIX + field)
        if value is None:
            return None
        items = value.tolist() if hasattr(value, "tolist") else value
        if isinstance(items, Sequence) and not isinstance(items, str | bytes):
            accepted = {float, int} if kind is float else {kind}
            if set(map(type, items)) <= accepted:
                return items if isinstance(items, list) else list(items)
        raise self.broken(field, f"is not an array of {kind.__name__}")

    def text(self, field: str) -> str:
        """A text; empty if the file lacks the field."""
        value = self.metadata.get(PREFIX + field, "")
        if not isinstance(value, str):
            raise self.broken(field, f"is {value!r:.60}, not a text")
        return value

    def flag(self, field: str) -> bool | None:
        """A truth value, which some files write as a number; None if the file lacks the field."""
        value = self.metadata.get(PREFIX + field)
        if isinstance(value, int) and not isinstance(value, bool) and value in (0, 1):
            self.remark(field, f"is the number {value}: it is taken as {bool(value)}")
            return bool(value)
        if value is not None and not isinstance(value, bool):
            raise self.broken(field, f"is {value!r:.60}, not true or false")
        return value

    def token_id(self, field: str, count: int, default: int | None) -> int | None:
        """The id of a token, below `count`; `default` if the file lacks the field, or its id is out of range.

        Some files write -1 (as 4294967295) for "none", or the id of a token that was never added.
        """
        value = self.metadata.get(PREFIX + field)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.broken(field, f"is {value!r:.60}, but a token's id is a whole number")
        if 0 <= value < count:
            return value
        instead = "there is none" if default is None else f"{default} is taken"
        self.remark(field, f"is {value}, but the vocabulary has the ids 0 to {count - 1}: {instead}")
        return default
