"""Reads GGUF files: the metadata of a model, and its encoded weights as views of the mapped file.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little-endian). A file comes
from anywhere, and kernels trust what is read here, so every count, length, type and offset is held against the file's
size before it is used; what does not fit raises one FormatError that names file, field and byte.
"""

import math
import re
import struct
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, NoReturn

import numpy as np

from sotol.errors import FormatError
from sotol.formats.files import ModelFile
from sotol.formats.weights import Checkpoint, Weight
from sotol.quant import BY_TYPE, Encoding

__all__ = [
    "ALIGNMENT",
    "ARRAY",
    "MAGIC",
    "MAX_DIMENSIONS",
    "SCALARS",
    "SPLIT_ID",
    "STRING",
    "VERSIONS",
    "part_path",
    "read_gguf",
]

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32  # of the weights, where the key general.alignment does not say otherwise
MAX_DIMENSIONS = 4

# Number of a metadata type: its name, and its letter in the struct module.
SCALARS = {
    0: ("uint8", "B"),
    1: ("int8", "b"),
    2: ("uint16", "H"),
    3: ("int16", "h"),
    4: ("uint32", "I"),
    5: ("int32", "i"),
    6: ("float32", "f"),
    7: ("bool", "?"),
    10: ("uint64", "Q"),
    11: ("int64", "q"),
    12: ("float64", "d"),
}
STRING = 8
ARRAY = 9

# Beyond any real model (the largest vocabularies have 300 thousand tokens and twice as many merges), and low enough
# that a hostile file of any size is refused before it costs much memory or time.
MAX_ITEMS = 1 << 22  # of all arrays together
NESTED_ITEMS = 64  # what an array in an array counts for: real models have few or none
MAX_HEAD_BYTES = 1 << 29  # all that comes before the weights
MAX_KEYS = 1 << 16
MAX_WEIGHTS = 1 << 16
MAX_KEY_BYTES = (1 << 16) - 1  # by the specification
MAX_DEPTH = 4  # of arrays in arrays
MAX_ALIGNMENT = 1 << 20

FIRST_BYTES = 1 << 16  # to read of a file at first
FEW = 256  # strings that are quicker read one by one
AVERAGES = (20, 60)  # bytes of a string and its length: most vocabularies stay below the first, all below the second

U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")
PART = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)
SPLIT_ID = "split.id"  # what the parts that sotol writes share
SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count", SPLIT_ID)


class Cursor:
    """A place in a file, whose first bytes it has read; all that it is asked for lies in the file, or FormatError."""

    def __init__(self, file: ModelFile) -> None:
        self.path, self.file, self.size, self.at, self.items = file.path, file, len(file), 0, 0
        self.data = b""

    def fail(self, field: str, problem: str, at: int | None = None) -> NoReturn:
        raise FormatError(f"{self.path}: {field} at byte {self.at if at is None else at}: {problem}")

    def take(self, count: int, field: str) -> int:
        """The offset in `data`, which may be another than before, of the next `count` bytes; they are passed over."""
        start = self.at
        if count > self.size - start:
            self.fail(field, f"needs {count} bytes, but the file ends at {self.size}: it is cut short or damaged")
        if start + count > len(self.data):
            self.read(start + count, field)
        self.at = start + count
        return start

    def read(self, end: int, field: str) -> None:
        """Have the file's bytes up to `end`, and as many again."""
        if end > MAX_HEAD_BYTES:
            self.fail(field, f"ends at byte {end}, and sotol expects metadata within the first {MAX_HEAD_BYTES}")
        more = np.empty(min(self.size, max(2 * end, FIRST_BYTES)) - len(self.data), np.uint8)
        self.file.copy_to(more, len(self.data))
        self.data += more.tobytes()

    def u32(self, field: str) -> int:
        start = self.take(4, field)
        value: int = U32.unpack_from(self.data, start)[0]
        return value

    def u64(self, field: str) -> int:
        start = self.take(8, field)
        value: int = U64.unpack_from(self.data, start)[0]
        return value

    def count(self, field: str, least: int, limit: int) -> int:
        """A count of things that take at least `least` bytes each: refused if they can't all be in the file."""
        count = self.u64(field)
        if count > limit:
            self.fail(field, f"{count} is more than the {limit} that sotol accepts", self.at - 8)
        if count * least > self.size - self.at:
            self.fail(field, f"{count} can't fit in the {self.size - self.at} bytes that follow", self.at - 8)
        return count

    def text(self, field: str, limit: int | None = None, errors: str = "strict") -> str:
        """A string. GGUF's are UTF-8; errors: what becomes of anything else, which is refused as a rule."""
        length = self.u64(field)
        if limit is not None and length > limit:
            self.fail(field, f"is {length} bytes long, and the limit is {limit}", self.at - 8)
        start = self.take(length, field)
        try:
            return self.data[start : self.at].decode(errors=errors)
        except UnicodeDecodeError as error:
            self.fail(field, f"is not UTF-8 ({error.reason})", start + error.start)

    def texts(self, count: int, field: str) -> list[str]:
        """`count` strings. Tokens may be any bytes: what is not UTF-8 in them is kept by `surrogateescape`."""
        for average in AVERAGES if count > FEW else ():
            if (found := self.short_texts(count, count * average, field)) is not None:
                return found
        return self.any_texts(count, field)

    def short_texts(self, count: int, room_bytes: int, field: str) -> list[str] | None:
        """All strings at once, for vocabularies have hundreds of thousands.

        None if they do not all lie in the next `room_bytes`, or are not short; then nothing is passed over.
        Where no string is longer than 255 bytes or has zeros in it, the seven zeros that end a length mark all lengths.
        """
        end = min(self.size, self.at + room_bytes)
        if end > len(self.data):
            self.read(end, field)
        room = np.frombuffer(self.data, np.uint8, end - self.at, self.at)
        zeros = room == 0
        zeros = zeros[:-1] & zeros[1:]  # of two bytes,
        zeros = zeros[:-2] & zeros[2:]  # four
        lengths_at = np.flatnonzero(zeros[1:-3] & zeros[4:])[:count]  # and seven, behind a length
        if len(lengths_at) < count or lengths_at[0] != 0:
            return None
        lengths = room[lengths_at].astype(np.int64)
        ends = lengths_at + 8 + lengths
        if (ends[:-1] != lengths_at[1:]).any() or ends[-1] > len(room):
            return None
        whole = room[: ends[-1]].copy()
        whole[lengths_at] = 0  # each string now stands between zeros
        kept = whole != 0
        if np.count_nonzero(kept) != len(whole) - 8 * count:
            return None  # a string has zeros of its own
        kept[lengths_at] = True  # one zero before each string is enough
        texts: list[str] = whole[kept].tobytes().decode(errors="surrogateescape").split("\0")
        self.at += len(whole)
        return texts[1:]

    def any_texts(self, count: int, field: str) -> list[str]:
        """The strings one by one."""
        texts: list[str] = []
        while len(texts) < count:
            data, at, length_at = self.data, self.at, U64.unpack_from
            with suppress(struct.error, UnicodeDecodeError):
                while len(texts) < count:
                    end = at + 8 + length_at(data, at)[0]
                    if end > len(data):
                        break
                    texts.append(data[at + 8 : end].decode())
                    at = end
            self.at = at
            if len(texts) < count:  # what is not UTF-8, or not read yet, or can't be: this says what is wrong
                texts.append(self.text(f"{field}, item {len(texts)}", errors="surrogateescape"))
        return texts

    def value(self, kind: int, field: str, depth: int = 0) -> tuple[object, str]:
        """A metadata value of the numbered type, and the name of its type ("uint32", "string[]", …)."""
        if kind == STRING:
            return self.text(field, errors="replace"), "string"
        if kind == ARRAY:
            return self.array(field, depth)
        if kind not in SCALARS:
            self.fail(field, f"has the unknown type {kind}; known are {known_kinds()}", self.at - 4)
        name, letter = SCALARS[kind]
        return self.numbers(letter, 1, field)[0], name

    def array(self, field: str, depth: int) -> tuple[object, str]:
        if depth == MAX_DEPTH:
            self.fail(field, f"has arrays nested more than {MAX_DEPTH} deep")
        kind = self.u32(field)
        if kind not in SCALARS and kind not in (STRING, ARRAY):
            self.fail(field, f"is an array of the unknown type {kind}; known are {known_kinds()}", self.at - 4)
        least = {STRING: 8, ARRAY: 12}.get(kind) or struct.calcsize("<" + SCALARS[kind][1])
        weight = NESTED_ITEMS if kind == ARRAY else 1
        count = self.count(f"{field}, its length", least, (MAX_ITEMS - self.items) // weight)
        self.items += count * weight
        if kind == STRING:
            return self.texts(count, field), "string[]"
        if kind == ARRAY:
            return [self.array(f"{field}, item {i}", depth + 1)[0] for i in range(count)], "array[]"
        name, letter = SCALARS[kind]
        return self.numbers(letter, count, field), f"{name}[]"

    def numbers(self, letter: str, count: int, field: str) -> list[int | float | bool]:
        form = np.dtype(f"<{letter}")
        start = self.take(form.itemsize * count, field)
        if letter == "?" and max(self.data[start : self.at], default=0) > 1:
            self.fail(field, "holds a truth value that is neither 0 nor 1", start)
        numbers: list[int | float | bool] = np.frombuffer(self.data, form, count, start).tolist()
        return numbers


def known_kinds() -> str:
    """The metadata types by number and name, for error messages."""
    names = {number: name for number, (name, _) in SCALARS.items()} | {STRING: "string", ARRAY: "array"}
    return ", ".join(f"{number} {names[number]}" for number in sorted(names))


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
