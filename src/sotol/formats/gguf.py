"""Reads GGUF files: the metadata of a model, and its encoded weights as views of the mapped file.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little-endian). Files are not
trusted, but kernels trust what is read here. So every count, length, type and offset is checked against the file's size
before it is used, and a bad one raises a FormatError that names the file, the field and the byte.
"""

import math
import re
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from sotol.errors import FormatError, plain
from sotol.formats.cursor import Cursor
from sotol.formats.files import ModelFile
from sotol.formats.other_files import seen_instead
from sotol.formats.weights import Checkpoint, Weight
from sotol.quant import BY_TYPE, Encoding

__all__ = [
    "ALIGNMENT",
    "MAGIC",
    "MAX_DIMENSIONS",
    "SPLIT_ID",
    "VERSIONS",
    "UnknownWeight",
    "part_path",
    "read_gguf",
]

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32  # of the weights, unless the key general.alignment gives another
MAX_DIMENSIONS = 4

# Limits beyond any real model, but low enough that a hostile file is refused before it costs much memory or time.
MAX_KEYS = 1 << 16
MAX_WEIGHTS = 1 << 16
MAX_KEY_BYTES = (1 << 16) - 1  # by the specification
MAX_ALIGNMENT = 1 << 20

PART = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)
SPLIT_ID = "split.id"  # sotol writes the same value into all parts of a model
SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count", SPLIT_ID)


class WeightInfo(NamedTuple):
    """A file's description of one weight. All is checked, except for overlap with other weights."""

    name: str
    encoding: Encoding
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the weights
    at: int  # byte of the file where this description begins

    @property
    def size(self) -> int:
        """Bytes of the weight."""
        return math.prod(self.shape) // self.encoding.values * self.encoding.size


class UnknownWeight(NamedTuple):
    """A weight whose encoding sotol does not know, not even by its size."""

    name: str
    kind: int  # GGML's number of the encoding
    shape: tuple[int, ...]


def read_gguf(path: str | Path, unknown: list[UnknownWeight] | None = None) -> Checkpoint:
    """The model in a GGUF file, or in all parts of a split model if `path` is any one of them.

    The metadata of a split model is that of its first part. unknown: a list that gets the weights whose encodings sotol
    does not know, and which the result lacks: for describing a file; without it they are errors. FormatError for a file
    that is not valid GGUF or not a regular file, ModelNotFoundError if there is none, SotolError if it can't be opened.
    """
    path = Path(path)
    opened = read_file(path, unknown)
    total = split_field(opened, "split.count", 1)
    parts = part_paths(path, total) if total > 1 else (path,)
    files = [opened if part == path else read_file(part, unknown) for part in parts]
    weights = dict(files[0].weights)
    for number, file in enumerate(files[1:], 1):
        if twice := weights.keys() & file.weights.keys():
            raise FormatError(f"{file.path}: weight {plain(repr(min(twice)))} is in an earlier part of the model, too")
        weights |= file.weights
        if split_field(file, "split.no", 0) != number or split_field(file, "split.count", 1) != total:
            raise FormatError(f"{file.path}: by its metadata (split.no, split.count) not part {number + 1} of {total}")
        check_same_model(files[0], file)
    expected = split_field(files[0], "split.tensors.count", len(weights))
    if total > 1 and expected != len(weights) + len(unknown or ()):
        raise FormatError(f"{path}: its parts have {len(weights)} weights, but split.tensors.count is {expected}")
    metadata = {key: value for key, value in files[0].metadata.items() if key not in SPLIT_KEYS}
    types = {key: name for key, name in files[0].types.items() if key not in SPLIT_KEYS}
    return Checkpoint(path, MappingProxyType(metadata), MappingProxyType(weights), MappingProxyType(types), parts)


def part_path(path: Path, number: int, count: int) -> Path:
    """The name of part `number` (from 1) of a split model, made from the name that a single file would have."""
    return path.with_name(f"{path.name.removesuffix('.gguf')}-{number:05}-of-{count:05}.gguf")


def part_paths(path: Path, total: int) -> tuple[Path, ...]:
    """All files of a split model, given one; FormatError if its name is not that of a part, or a file is missing."""
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
    """FormatError if a part contradicts the first one in a key that both have, or in its `split.id`.

    llama.cpp's tools write only the numbers of the part, of all parts and of all weights into later parts. So a part of
    another model with the same shapes can't be recognised, and passes.
    """
    shared = part.metadata.keys() & first.metadata.keys() | (part.metadata.keys() | first.metadata.keys()) & {SPLIT_ID}
    for key in sorted(shared - {"split.no"}):
        if part.metadata.get(key) != first.metadata.get(key):
            raise FormatError(
                f"{part.path}: is of another model than {first.path.name}: their metadata {plain(key)} differ"
            )


def split_field(file: Checkpoint, key: str, default: int) -> int:
    """A number of the `split.` metadata, which describes how a model is split into files."""
    value = file.metadata.get(key, default)
    if not isinstance(value, int):
        raise FormatError(f"{file.path}: metadata {key} is {file.types[key]}, not a whole number")
    return value


def read_file(path: Path, unknown: list[UnknownWeight] | None = None) -> Checkpoint:
    """The contents of one file, which may be a part of a model. unknown: as of `read_gguf`."""
    cursor = Cursor(ModelFile.open(path))
    check_header(cursor)
    weight_count = cursor.count("the number of weights", 32, MAX_WEIGHTS)  # name, rank, a dimension, type, offset
    key_count = cursor.count("the number of metadata keys", 13, MAX_KEYS)  # key, type, a byte of value
    metadata, types = read_metadata(cursor, key_count)
    alignment = read_alignment(cursor, metadata, types)
    read = [read_weight_info(cursor, number, alignment, lenient=unknown is not None) for number in range(weight_count)]
    infos = [info for info in read if isinstance(info, WeightInfo)]
    if unknown is not None:
        unknown += [info for info in read if isinstance(info, UnknownWeight)]
    start = -(-cursor.at // alignment) * alignment
    check_places(cursor, infos, start)
    weights = {
        info.name: Weight.from_bytes(
            info.name, info.encoding, info.shape, np.frombuffer(cursor.file, np.uint8, info.size, start + info.offset)
        )
        for info in infos
    }
    return Checkpoint(path, metadata, weights, types, (path,))


def check_header(cursor: Cursor) -> None:
    """FormatError unless the file begins like a GGUF file of a supported version and byte order."""
    start = cursor.take(4, "the magic bytes")
    magic = cursor.data[start : cursor.at]
    if magic != MAGIC:
        other = seen_instead(bytes(cursor.data[:8]))
        cursor.fail("the magic bytes", f"{bytes(magic)!r} is not {MAGIC!r}: this is not a GGUF file{other}", 0)
    version = cursor.u32("the version")
    if version not in VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        what = f"{swapped}, big-endian" if swapped in (1, *VERSIONS) else str(version)
        cursor.fail("the version", f"is {what}; sotol reads 2 and 3, little-endian: convert the model again", 4)


def read_metadata(cursor: Cursor, count: int) -> tuple[dict[str, object], dict[str, str]]:
    """`count` metadata keys with their values, and the same keys with the names of their types."""
    metadata: dict[str, object] = {}
    types: dict[str, str] = {}
    for number in range(count):
        at = cursor.at
        key = cursor.text(f"the name of metadata key {number}", MAX_KEY_BYTES)
        if key in metadata:
            cursor.fail(f"metadata {key!r}", "is there twice", at)
        kind = cursor.u32(f"the type of metadata {key!r}")
        metadata[key], types[key] = cursor.value(kind, f"metadata {key!r}")
    return metadata, types


def read_alignment(cursor: Cursor, metadata: dict[str, object], types: dict[str, str]) -> int:
    """The alignment of weights in bytes: a power of two."""
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if types.get("general.alignment", "uint32") != "uint32" or not isinstance(alignment, int):
        cursor.fail("metadata 'general.alignment'", f"is {types['general.alignment']}, and must be uint32")
    if not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        cursor.fail("metadata 'general.alignment'", f"{alignment} is not a power of two up to {MAX_ALIGNMENT}")
    return alignment


def read_weight_info(
    cursor: Cursor, number: int, alignment: int, *, lenient: bool = False
) -> WeightInfo | UnknownWeight:
    """The description of weight `number`. Its shape is reversed, since GGUF stores the row length first.

    lenient: whether an unknown encoding is no error.
    """
    at = cursor.at
    name = cursor.text(f"the name of weight {number}", MAX_KEY_BYTES)
    field = f"weight {name!r}"
    rank = cursor.u32(f"{field}, its rank,")
    if not 1 <= rank <= MAX_DIMENSIONS:
        cursor.fail(field, f"has {rank} dimensions, and GGUF allows 1 to {MAX_DIMENSIONS}", cursor.at - 4)
    shape = tuple(cursor.u64(f"{field}, its shape,") for _ in range(rank))[::-1]
    kind = cursor.u32(f"{field}, its encoding,")
    if kind not in BY_TYPE and lenient:
        cursor.u64(f"{field}, its offset,")
        return UnknownWeight(name, kind, shape)
    if kind not in BY_TYPE:
        known = ", ".join(f"{number} {encoding.name}" for number, encoding in sorted(BY_TYPE.items()))
        cursor.fail(field, f"has the unknown encoding {kind}; known are {known}", cursor.at - 4)
    encoding = BY_TYPE[kind]
    info = WeightInfo(name, encoding, shape, cursor.u64(f"{field}, its offset,"), at)
    if min(shape) < 1:
        cursor.fail(field, f"has the empty shape {shape}", at)
    if shape[-1] % encoding.values:
        problem = f"has rows of {shape[-1]} numbers, not a multiple of the {encoding.values} of a {encoding.name} block"
        cursor.fail(field, problem, at)
    if info.offset % alignment:
        cursor.fail(field, f"has offset {info.offset}, not a multiple of the alignment, {alignment}", at)
    return info


def check_places(cursor: Cursor, infos: list[WeightInfo], start: int) -> None:
    """FormatError unless every weight lies within the file, from `start` on, and no two share bytes or a name."""
    names: set[str] = set()
    for info in infos:
        if info.name in names:
            cursor.fail(f"weight {info.name!r}", "is there twice", info.at)
        names.add(info.name)
        if start + info.offset + info.size > cursor.size:
            problem = (
                f"{info.encoding.name} of shape {info.shape} at offset {info.offset} of the weights would end at byte "
                f"{start + info.offset + info.size}, but the file ends at {cursor.size}: it is cut short or damaged"
            )
            cursor.fail(f"weight {info.name!r}", problem, info.at)
    ordered = sorted(infos, key=lambda info: info.offset)
    for before, after in pairwise(ordered):
        if before.offset + before.size > after.offset:
            cursor.fail(f"weight {after.name!r}", f"overlaps weight {plain(repr(before.name))}", after.at)
