"""Reads GGUF files: the metadata of a model, and its encoded weights as views of the mapped file.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little-endian). A file comes
from anywhere, and kernels trust what is read here, so every count, length, type and offset is held against the file's
size before it is used; what does not fit raises one FormatError that names file, field and byte.
"""

import math
import re
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from sotol.errors import FormatError
from sotol.formats.cursor import Cursor
from sotol.formats.files import ModelFile
from sotol.formats.weights import Checkpoint, Weight
from sotol.quant import BY_TYPE, Encoding

__all__ = [
    "ALIGNMENT",
    "MAGIC",
    "MAX_DIMENSIONS",
    "SPLIT_ID",
    "VERSIONS",
    "part_path",
    "read_gguf",
]

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32  # of the weights, where the key general.alignment does not say otherwise
MAX_DIMENSIONS = 4

# Beyond any real model (the largest vocabularies have 300 thousand tokens and twice as many merges), and low enough
# that a hostile file of any size is refused before it costs much memory or time.
MAX_KEYS = 1 << 16
MAX_WEIGHTS = 1 << 16
MAX_KEY_BYTES = (1 << 16) - 1  # by the specification
MAX_ALIGNMENT = 1 << 20

PART = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)
SPLIT_ID = "split.id"  # what the parts that sotol writes share
SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count", SPLIT_ID)


class Info(NamedTuple):
    """What a file says of one weight, checked but for its place among the others."""

    name: str
    encoding: Encoding
    shape: tuple[int, ...]
    offset: int  # from the start of the weights
    said_at: int  # where in the file it says so

    @property
    def size(self) -> int:
        """Its bytes."""
        return math.prod(self.shape) // self.encoding.values * self.encoding.size


def read_gguf(path: str | Path) -> Checkpoint:
    """The model in a GGUF file, or in all the files of a split model of which `path` is any part.

    The metadata of a split model is its first part's. FormatError says what is wrong with a file that is not valid
    GGUF, or not regular; ModelNotFoundError that there is none; SotolError that it can't be opened.
    """
    path = Path(path)
    opened = read_file(path)
    total = split_field(opened, "split.count", 1)
    parts = part_paths(path, total) if total > 1 else (path,)
    files = [opened if part == path else read_file(part) for part in parts]
    weights = dict(files[0].weights)
    for number, file in enumerate(files[1:], 1):
        if twice := weights.keys() & file.weights.keys():
            raise FormatError(f"{file.path}: weight {min(twice)!r} is in an earlier part of the model, too")
        weights |= file.weights
        if split_field(file, "split.no", 0) != number or split_field(file, "split.count", 1) != total:
            raise FormatError(f"{file.path}: by its metadata (split.no, split.count) not part {number + 1} of {total}")
        check_same_model(files[0], file)
    expected = split_field(files[0], "split.tensors.count", len(weights))
    if total > 1 and expected != len(weights):
        raise FormatError(f"{path}: its parts have {len(weights)} weights, but split.tensors.count is {expected}")
    metadata = {key: value for key, value in files[0].metadata.items() if key not in SPLIT_KEYS}
    types = {key: name for key, name in files[0].types.items() if key not in SPLIT_KEYS}
    return Checkpoint(path, MappingProxyType(metadata), MappingProxyType(weights), MappingProxyType(types), parts)


def part_path(path: Path, number: int, count: int) -> Path:
    """The file of part `number` (from 1) of a model whose single file would be `path`."""
    return path.with_name(f"{path.name.removesuffix('.gguf')}-{number:05}-of-{count:05}.gguf")


def part_paths(path: Path, total: int) -> tuple[Path, ...]:
    """The files of a split model of which `path` is one; FormatError if its name can't be, or if one is missing."""
    named = PART.fullmatch(path.name)
    if named is None or int(named["count"]) != total or not 1 <= int(named["number"]) <= total:
        raise FormatError(
            f"{path}: holds a part of a model of {total} files, so its name must end in -0000N-of-{total:05}.gguf, "
            "and the other parts must lie beside it"
        )
    parts = tuple(part_path(path.with_name(named["stem"]), number, total) for number in range(1, total + 1))
    for part in parts:
        if not part.exists():
            raise FormatError(f"{path}: is one of {total} files of a model, and {part.name} is missing beside it")
    return parts


def check_same_model(first: Checkpoint, part: Checkpoint) -> None:
    """FormatError if a part contradicts the first: in a key that both have, or in how they say which model they are of.

    What llama.cpp's tools write into later parts is their number and how many parts and weights the model has: by that,
    a part of another model of the same shapes can't be told, and passes.
    """
    shared = part.metadata.keys() & first.metadata.keys() | (part.metadata.keys() | first.metadata.keys()) & {SPLIT_ID}
    for key in sorted(shared - {"split.no"}):
        if part.metadata.get(key) != first.metadata.get(key):
            raise FormatError(f"{part.path}: is of another model than {first.path.name}: their metadata {key} differ")


def split_field(file: Checkpoint, key: str, default: int) -> int:
    """A number of the `split.` metadata, which says how a model is spread over files."""
    value = file.metadata.get(key, default)
    if not isinstance(value, int):
        raise FormatError(f"{file.path}: metadata {key} is {file.types[key]}, not a whole number")
    return value


def read_file(path: Path) -> Checkpoint:
    """The contents of one file, as it is."""
    cursor = Cursor(ModelFile.open(path))
    check_header(cursor)
    weight_count = cursor.count("the number of weights", 32, MAX_WEIGHTS)  # name, rank, a dimension, type, offset
    key_count = cursor.count("the number of metadata keys", 13, MAX_KEYS)  # key, type, a byte of value
    metadata, types = read_metadata(cursor, key_count)
    alignment = read_alignment(cursor, metadata, types)
    infos = [read_info(cursor, number, alignment) for number in range(weight_count)]
    start = -(-cursor.at // alignment) * alignment
    check_places(cursor, infos, start)
    weights = {
        info.name: Weight(
            info.name, info.encoding, info.shape, np.frombuffer(cursor.file, np.uint8, info.size, start + info.offset)
        )
        for info in infos
    }
    return Checkpoint(path, metadata, weights, types, (path,))


def check_header(cursor: Cursor) -> None:
    """FormatError unless the file begins as a GGUF file of a version and byte order that we read."""
    start = cursor.take(4, "the magic bytes")
    magic = cursor.data[start : cursor.at]
    if magic != MAGIC:
        cursor.fail("the magic bytes", f"{magic!r} is not {MAGIC!r}: this is not a GGUF file", 0)
    version = cursor.u32("the version")
    if version not in VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        what = f"{swapped}, big-endian" if swapped in (1, *VERSIONS) else str(version)
        cursor.fail("the version", f"is {what}; sotol reads 2 and 3, little-endian: convert the model again", 4)


def read_metadata(cursor: Cursor, count: int) -> tuple[dict[str, object], dict[str, str]]:
    """`count` keys with their values, and with the names of their types."""
    metadata: dict[str, object] = {}
    types: dict[str, str] = {}
    for number in range(count):
        said_at = cursor.at
        key = cursor.text(f"the name of metadata key {number}", MAX_KEY_BYTES)
        if key in metadata:
            cursor.fail(f"metadata {key!r}", "is there twice", said_at)
        kind = cursor.u32(f"the type of metadata {key!r}")
        metadata[key], types[key] = cursor.value(kind, f"metadata {key!r}")
    return metadata, types


def read_alignment(cursor: Cursor, metadata: dict[str, object], types: dict[str, str]) -> int:
    """To how many bytes weights are aligned: a power of two."""
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if types.get("general.alignment", "uint32") != "uint32" or not isinstance(alignment, int):
        cursor.fail("metadata 'general.alignment'", f"is {types['general.alignment']}, and must be uint32")
    if not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        cursor.fail("metadata 'general.alignment'", f"{alignment} is not a power of two up to {MAX_ALIGNMENT}")
    return alignment


def read_info(cursor: Cursor, number: int, alignment: int) -> Info:
    """What the file says of its weight `number`; shapes are turned round, since GGUF has the row length first."""
    said_at = cursor.at
    name = cursor.text(f"the name of weight {number}", MAX_KEY_BYTES)
    field = f"weight {name!r}"
    rank = cursor.u32(f"{field}, its rank,")
    if not 1 <= rank <= MAX_DIMENSIONS:
        cursor.fail(field, f"has {rank} dimensions, and GGUF allows 1 to {MAX_DIMENSIONS}", cursor.at - 4)
    shape = tuple(cursor.u64(f"{field}, its shape,") for _ in range(rank))[::-1]
    kind = cursor.u32(f"{field}, its encoding,")
    if kind not in BY_TYPE:
        known = ", ".join(f"{number} {encoding.name}" for number, encoding in sorted(BY_TYPE.items()))
        cursor.fail(field, f"has the unknown encoding {kind}; known are {known}", cursor.at - 4)
    encoding = BY_TYPE[kind]
    info = Info(name, encoding, shape, cursor.u64(f"{field}, its offset,"), said_at)
    if min(shape) < 1:
        cursor.fail(field, f"has the empty shape {shape}", said_at)
    if shape[-1] % encoding.values:
        problem = f"has rows of {shape[-1]} numbers, not a multiple of the {encoding.values} of a {encoding.name} block"
        cursor.fail(field, problem, said_at)
    if info.offset % alignment:
        cursor.fail(field, f"has offset {info.offset}, not a multiple of the alignment, {alignment}", said_at)
    return info


def check_places(cursor: Cursor, infos: list[Info], start: int) -> None:
    """FormatError unless every weight lies within the file, from `start` on, and shares no byte and no name."""
    names: set[str] = set()
    for info in infos:
        if info.name in names:
            cursor.fail(f"weight {info.name!r}", "is there twice", info.said_at)
        names.add(info.name)
        if start + info.offset + info.size > cursor.size:
            problem = (
                f"{info.encoding.name} of shape {info.shape} at offset {info.offset} of the weights would end at byte "
                f"{start + info.offset + info.size}, but the file ends at {cursor.size}: it is cut short or damaged"
            )
            cursor.fail(f"weight {info.name!r}", problem, info.said_at)
    ordered = sorted(infos, key=lambda info: info.offset)
    for before, after in pairwise(ordered):
        if before.offset + before.size > after.offset:
            cursor.fail(f"weight {after.name!r}", f"overlaps weight {before.name!r}", after.said_at)
