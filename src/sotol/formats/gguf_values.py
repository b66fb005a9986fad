"""The metadata of GGUF files as bytes: keys, types, values. What is in memory says the type where nobody else does."""

import struct
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from sotol.formats.cursor import ARRAY, MAX_DEPTH, SCALARS, STRING
from sotol.formats.gguf import MAX_KEY_BYTES

__all__ = ["metadata_bytes", "name_bytes"]

TYPE_NUMBERS = {name: number for number, (name, _) in SCALARS.items()} | {"string": STRING, "array": ARRAY}
INTEGERS = (
    ("uint32", 0, 1 << 32),
    ("int32", -(1 << 31), 1 << 31),
    ("uint64", 0, 1 << 64),
    ("int64", -(1 << 63), 1 << 63),
)


def metadata_bytes(metadata: Mapping[str, object], types: Mapping[str, str]) -> bytes:
    """All keys with their values, as a file has them.

    types: of the values by key, named as in `Checkpoint.types` ("uint32", "float64[]"). A key without one gets the
    type of its NumPy scalar, or else: uint32 (int32, uint64 or int64 if it does not fit) for an int, float32 for a
    float, and for a list the first of these that holds all its items. Texts in lists may have bytes that are not UTF-8,
    as `Cursor.texts` keeps them. ValueError names a key or a value that GGUF can't hold.
    """
    parts = list[bytes]()
    for key, value in metadata.items():
        parts.append(name_bytes(key, "a metadata key"))
        parts.append(typed_bytes(value, types.get(key) or type_of(value, key), key))
    return b"".join(parts)


def name_bytes(name: str, field: str) -> bytes:
    """The name of a key or a weight; ValueError says so of the field if it is too long, or no text."""
    return text_bytes(name, field, MAX_KEY_BYTES)


def type_of(value: object, key: str) -> str:
    """The name of the type for a metadata value whose type is not given; ValueError if none fits."""
    if isinstance(value, np.generic):
        return value.dtype.name
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return f"{value.dtype.name}[]"
    if isinstance(value, list | tuple):
        return list_type(value, key)
    if isinstance(value, str):
        return "string"
    return number_type([value], key)


def list_type(items: Sequence[object], key: str) -> str:
    """The name of the type of a list; an empty one is a list of strings."""
    if all(isinstance(item, str) for item in items):
        return "string[]"
    if all(isinstance(item, list | tuple) for item in items):
        return "array[]"
    return number_type(items, key) + "[]"


def number_type(items: Sequence[object], key: str) -> str:
    """The name of the first type that holds all of the numbers."""
    if all(isinstance(item, bool) for item in items):
        return "bool"
    integers = [item for item in items if isinstance(item, int) and not isinstance(item, bool)]
    if len(integers) == len(items):
        for name, low, beyond in INTEGERS:
            if low <= min(integers) and max(integers) < beyond:
                return name
        raise ValueError(f"metadata {key!r} has integers beyond 64 bits")
    if len(integers) + sum(isinstance(item, float) for item in items) == len(items):
        return "float32"
    seen = ", ".join(sorted({type(item).__name__ for item in items}))
    raise ValueError(f"metadata {key!r} has {seen}; GGUF holds str, bool, int, float and lists of one of them")


def typed_bytes(value: object, name: str, key: str, depth: int = 0) -> bytes:
    """The number of the type, then the value, as bytes; ValueError if the value is not of that type."""
    item_name = name.removesuffix("[]")
    if item_name not in TYPE_NUMBERS:
        raise ValueError(
            f"metadata {key!r}: {name!r} is not a type; types are {', '.join(TYPE_NUMBERS)}, and these with []"
        )
    kind = struct.pack("<I", TYPE_NUMBERS[item_name])
    if item_name == name:
        return kind + (
            text_bytes(value, f"metadata {key!r}") if name == "string" else item_bytes([value], name, key, depth)
        )
    if depth == MAX_DEPTH or not isinstance(value, list | tuple | np.ndarray):
        raise ValueError(f"metadata {key!r} must be a list for {name!r}, with lists nested at most {MAX_DEPTH} deep")
    return struct.pack("<I", ARRAY) + kind + struct.pack("<Q", len(value)) + item_bytes(value, item_name, key, depth)


def item_bytes(items: Iterable[object], name: str, key: str, depth: int) -> bytes:
    """Values of one type, one after the other, as bytes."""
    if name == "string":
        return b"".join(text_bytes(item, f"metadata {key!r}", errors="surrogateescape") for item in items)
    if name == "array":  # nested arrays begin with the type of their items, without the number of the type "array"
        return b"".join(typed_bytes(item, type_of(item, key), key, depth + 1)[4:] for item in items)
    numbers = list(items)
    try:
        return struct.pack(f"<{len(numbers)}{SCALARS[TYPE_NUMBERS[name]][1]}", *numbers)
    except (struct.error, OverflowError) as error:
        raise ValueError(f"metadata {key!r} does not fit {name}: {error}") from None


def text_bytes(text: object, field: str, limit: int | None = None, errors: str = "strict") -> bytes:
    """A string as bytes: its length in bytes, then its text in UTF-8."""
    if not isinstance(text, str):
        raise ValueError(f"{field} must be a string, not {text!r}")
    try:
        data = text.encode(errors=errors)
    except UnicodeEncodeError:
        raise ValueError(f"{field}: {text!r} can't be written as UTF-8") from None
    if limit is not None and len(data) > limit:
        raise ValueError(f"{field} is {len(data)} bytes long, and the limit is {limit}: {text[:40]!r}…")
    return struct.pack("<Q", len(data)) + data
