"""Writes GGUF files, whole or split in parts: what tests, quantising and converting end in."""

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

KINDS = {name: number for number, (name, _) in SCALARS.items()} | {"string": STRING, "array": ARRAY}
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
    """Write a model to `path`, and give the files written.

    `types` names the types of metadata as `Checkpoint.types` does ("uint32", "float64[]"); a key that it lacks gets
    the type of its NumPy scalar, or else: uint32 (int32, uint64, int64 where that does not fit) for an int, float32
    for a float, and for a list the first of these that holds all its items. With `part_bytes`, a model whose weights
    take more becomes parts of at most that many bytes of weights (or of one weight), named as llama.cpp names them;
    each says which model it is of, by `split.id`.
    ValueError for what GGUF can't hold. A file that is replaced stays whole, for those who have it mapped, and until
    the new one is complete.
    """
    path, weights, types = Path(path), list(weights), dict(types or {})
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise ValueError(f"general.alignment must be a power of two up to {MAX_ALIGNMENT}, not {alignment!r}")
    check_weights(weights)
    groups = in_parts(weights, alignment, part_bytes)
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
    """A text that differs for weights that differ."""
    state = hashlib.blake2b(digest_size=16)
    for weight in weights:
        state.update(f"{weight.name}\0{weight.encoding.name}\0{weight.shape}\0".encode())
        state.update(np.ascontiguousarray(weight.data).data)
    return state.hexdigest()


def check_weights(weights: Sequence[Weight]) -> None:
    """ValueError if a name is there twice or a shape has too many dimensions."""
    for before, after in pairwise(sorted(weight.name for weight in weights)):
        if before == after:
            raise ValueError(f"weight {after!r} is there twice")
    for weight in weights:
        if len(weight.shape) > MAX_DIMENSIONS:
            raise ValueError(
                f"weight {weight.name!r} has shape {weight.shape}; GGUF allows {MAX_DIMENSIONS} dimensions"
            )


def in_parts(weights: Sequence[Weight], alignment: int, part_bytes: int | None) -> list[list[Weight]]:
    """The weights in order, cut where a part would exceed `part_bytes`."""
    groups: list[list[Weight]] = [[]]
    used = 0
    for weight in weights:
        size = padded(weight.data.size, alignment)
        if part_bytes is not None and groups[-1] and used + size > part_bytes:
            groups.append([])
            used = 0
        groups[-1].append(weight)
        used += size
    return groups


def write_file(
    path: Path, metadata: Mapping[str, object], types: Mapping[str, str], weights: Sequence[Weight], alignment: int
) -> None:
    """One file, written beside its place and then moved there."""
    head = [MAGIC, struct.pack("<IQQ", VERSIONS[-1], len(weights), len(metadata))]
    for key, value in metadata.items():
        head.append(pack_text(key, "a metadata key", MAX_KEY_BYTES))
        head.append(pack_typed(value, types.get(key) or type_of(value, key), key))
    offset = 0
    for weight in weights:
        head.append(pack_text(weight.name, "the name of a weight", MAX_KEY_BYTES))
        head.append(struct.pack(f"<I{len(weight.shape)}Q", len(weight.shape), *reversed(weight.shape)))
        head.append(struct.pack("<IQ", weight.encoding.ggml_type, offset))
        offset += padded(weight.data.size, alignment)
    started = path.with_name(path.name + ".partial")
    try:
        with started.open("wb") as file:
            file.writelines(head)
            file.write(bytes(-file.tell() % alignment))
            for weight in weights:
                file.write(np.ascontiguousarray(weight.data).data)
                file.write(bytes(-weight.data.size % alignment))
        started.replace(path)
    finally:
        started.unlink(missing_ok=True)


def padded(size: int, alignment: int) -> int:
    """`size` rounded up to whole units of `alignment`."""
    return -(-size // alignment) * alignment


def type_of(value: object, key: str) -> str:
    """The name of the type that suits a metadata value whose type is not given; ValueError if none does."""
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
    """The name of the type of a list; an empty one is taken for strings."""
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


def pack_typed(value: object, name: str, key: str, depth: int = 0) -> bytes:
    """A metadata value, led by the number of its type; ValueError if it is not of that type."""
    item_name = name.removesuffix("[]")
    if item_name not in KINDS:
        raise ValueError(f"metadata {key!r}: {name!r} is not a type; types are {', '.join(KINDS)}, and these with []")
    kind = struct.pack("<I", KINDS[item_name])
    if item_name == name:
        return kind + pack_items([value], name, key, depth)
    if depth == MAX_DEPTH or not isinstance(value, list | tuple | np.ndarray):
        raise ValueError(f"metadata {key!r} must be a list for {name!r}, with lists nested at most {MAX_DEPTH} deep")
    return struct.pack("<I", ARRAY) + kind + struct.pack("<Q", len(value)) + pack_items(value, item_name, key, depth)


def pack_items(items: Iterable[object], name: str, key: str, depth: int) -> bytes:
    """Values of one type, one after the other."""
    if name == "string":
        return b"".join(pack_text(item, f"metadata {key!r}") for item in items)
    if name == "array":  # items that are arrays say what they hold, not that they are arrays
        return b"".join(pack_typed(item, type_of(item, key), key, depth + 1)[4:] for item in items)
    numbers = list(items)
    try:
        return struct.pack(f"<{len(numbers)}{SCALARS[KINDS[name]][1]}", *numbers)
    except (struct.error, OverflowError) as error:
        raise ValueError(f"metadata {key!r} does not fit {name}: {error}") from None


def pack_text(text: object, field: str, limit: int | None = None) -> bytes:
    """A string, led by its length in bytes of UTF-8."""
    if not isinstance(text, str):
        raise ValueError(f"{field} must be a string, not {text!r}")
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{field}: {text!r} can't be written as UTF-8") from None
    if limit is not None and len(data) > limit:
        raise ValueError(f"{field} is {len(data)} bytes long, and the limit is {limit}: {text[:40]!r}…")
    return struct.pack("<Q", len(data)) + data
