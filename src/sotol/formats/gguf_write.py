"""Writes GGUF files, whole or split into parts. Tests, quantising and converting use it."""

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from sotol.formats.cursor import ARRAY, MAX_DEPTH, SCALARS, STRING
from sotol.formats.gguf import (
    ALIGNMENT,
    MAGIC,
    MAX_ALIGNMENT,
    MAX_DIMENSIONS,
    MAX_KEY_BYTES,
    SPLIT_ID,
    VERSIONS,
    part_path,
)
from sotol.formats.weights import Weight

__all__ = ["write_gguf"]

TYPE_NUMBERS = {name: number for number, (name, _) in SCALARS.items()} | {"string": STRING, "array": ARRAY}
INTEGERS = (
    ("uint32", 0, 1 << 32),
    ("int32", -(1 << 31), 1 << 31),
    ("uint64", 0, 1 << 64),
    ("int64", -(1 << 63), 1 << 63),
)


def write_gguf(
    path: str | Path,
    metadata: Mapping[str, object],
    weights: Iterable[Weight],
    *,
    types: Mapping[str, str] | None = None,
    part_bytes: int | None = None,
) -> tuple[Path, ...]:
    """Write a model to `path`; returns the files written.

    types: the types of metadata by key, named as in `Checkpoint.types` ("uint32", "float64[]"). A key without one gets
    the type of its NumPy scalar, or else: uint32 (int32, uint64 or int64 if it does not fit) for an int, float32 for a
    float, and for a list the first of these that holds all its items. part_bytes: split a larger model into parts with
    at most this many bytes of weights (or one weight), named as llama.cpp names them, all with the same `split.id`.

    ValueError for what GGUF can't hold. An existing file is replaced only when the new one is complete, and processes
    that have it mapped keep the old contents.
    """
    path, weights, types = Path(path), list(weights), dict(types or {})
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise ValueError(f"general.alignment must be a power of two up to {MAX_ALIGNMENT}, not {alignment!r}")
    check_weights(weights)
    groups = split_weights(weights, alignment, part_bytes)
    if len(groups) == 1:
        write_file(path, metadata, types, weights, alignment)
        return (path,)
    types |= {"split.no": "uint16", "split.count": "uint16", "split.tensors.count": "int32"}
    identity = digest(weights)
    paths = tuple(part_path(path, number, len(groups)) for number in range(1, len(groups) + 1))
    for number, (part, group) in enumerate(zip(paths, groups, strict=True)):
        place = {
            "split.no": number,
            "split.count": len(groups),
            "split.tensors.count": len(weights),
            SPLIT_ID: identity,
        }
        shared = {"general.alignment": alignment} if "general.alignment" in metadata else {}
        write_file(part, {**(shared if number else metadata), **place}, types, group, alignment)
    return paths


def digest(weights: Sequence[Weight]) -> str:
    """A hash of names, encodings, shapes and contents of the weights, as text."""
    state = hashlib.blake2b(digest_size=16)
    for weight in weights:
        state.update(f"{weight.name}\0{weight.encoding.name}\0{weight.shape}\0".encode())
        state.update(np.ascontiguousarray(weight.rows()).data)
    return state.hexdigest()


def check_weights(weights: Sequence[Weight]) -> None:
    """ValueError for two weights with one name, or for a weight that GGUF can't hold."""
    for before, after in pairwise(sorted(weight.name for weight in weights)):
        if before == after:
            raise ValueError(f"weight {after!r} is there twice")
    for weight in weights:
        if len(weight.shape) > MAX_DIMENSIONS:
            raise ValueError(
                f"weight {weight.name!r} has shape {weight.shape}; GGUF allows {MAX_DIMENSIONS} dimensions"
            )
        if weight.encoding.ggml_type is None:
            raise ValueError(f"weight {weight.name!r} is stored as {weight.encoding.name}, which GGUF does not have")


def split_weights(weights: Sequence[Weight], alignment: int, part_bytes: int | None) -> list[list[Weight]]:
    """The weights in order, with a new part wherever the last one would exceed `part_bytes`."""
    groups: list[list[Weight]] = [[]]
    used = 0
    for weight in weights:
        size = aligned(weight.nbytes, alignment)
        if part_bytes is not None and groups[-1] and used + size > part_bytes:
            groups.append([])
            used = 0
        groups[-1].append(weight)
        used += size
    return groups


def write_file(
    path: Path, metadata: Mapping[str, object], types: Mapping[str, str], weights: Sequence[Weight], alignment: int
) -> None:
    """Write one file under a temporary name, then rename it."""
    head = [MAGIC, struct.pack("<IQQ", VERSIONS[-1], len(weights), len(metadata))]
    for key, value in metadata.items():
        head.append(text_bytes(key, "a metadata key", MAX_KEY_BYTES))
        head.append(typed_bytes(value, types.get(key) or type_of(value, key), key))
    offset = 0
    for weight in weights:
        head.append(text_bytes(weight.name, "the name of a weight", MAX_KEY_BYTES))
        head.append(struct.pack(f"<I{len(weight.shape)}Q", len(weight.shape), *reversed(weight.shape)))
        head.append(struct.pack("<IQ", weight.encoding.ggml_type, offset))
        offset += aligned(weight.nbytes, alignment)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.writelines(head)
            file.write(bytes(-file.tell() % alignment))
            for weight in weights:
                file.write(np.ascontiguousarray(weight.rows()).data)
                file.write(bytes(-weight.nbytes % alignment))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def aligned(size: int, alignment: int) -> int:
    """`size` rounded up to a multiple of `alignment`."""
    return -(-size // alignment) * alignment


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
        return kind + item_bytes([value], name, key, depth)
    if depth == MAX_DEPTH or not isinstance(value, list | tuple | np.ndarray):
        raise ValueError(f"metadata {key!r} must be a list for {name!r}, with lists nested at most {MAX_DEPTH} deep")
    return struct.pack("<I", ARRAY) + kind + struct.pack("<Q", len(value)) + item_bytes(value, item_name, key, depth)


def item_bytes(items: Iterable[object], name: str, key: str, depth: int) -> bytes:
    """Values of one type, one after the other, as bytes."""
    if name == "string":
        return b"".join(text_bytes(item, f"metadata {key!r}") for item in items)
    if name == "array":  # nested arrays begin with the type of their items, without the number of the type "array"
        return b"".join(typed_bytes(item, type_of(item, key), key, depth + 1)[4:] for item in items)
    numbers = list(items)
    try:
        return struct.pack(f"<{len(numbers)}{SCALARS[TYPE_NUMBERS[name]][1]}", *numbers)
    except (struct.error, OverflowError) as error:
        raise ValueError(f"metadata {key!r} does not fit {name}: {error}") from None


def text_bytes(text: object, field: str, limit: int | None = None) -> bytes:
    """A string as bytes: its length in bytes, then its text in UTF-8."""
    if not isinstance(text, str):
        raise ValueError(f"{field} must be a string, not {text!r}")
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{field}: {text!r} can't be written as UTF-8") from None
    if limit is not None and len(data) > limit:
        raise ValueError(f"{field} is {len(data)} bytes long, and the limit is {limit}: {text[:40]!r}…")
    return struct.pack("<Q", len(data)) + data
