"""Reads the values of a GGUF file's header one after the other: numbers, strings, arrays.

The file is not trusted: every count and length is checked against the file's size and against fixed limits before
memory is allocated for it.
"""

import struct
from contextlib import suppress
from typing import NoReturn

import numpy as np

from sotol.errors import FormatError, plain
from sotol.formats.files import ModelFile

__all__ = ["ARRAY", "MAX_DEPTH", "SCALARS", "STRING", "Cursor"]

# Number of a metadata type -> its name, and its letter in the struct module.
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

# Limits beyond any real model (the largest vocabularies have 300 thousand tokens and twice as many merges), but low
# enough that a hostile file of any size is refused before it costs much memory or time.
MAX_ITEMS = 1 << 22  # of all arrays together
NESTED_ITEMS = 64  # an array in an array counts as this many items: real models have few or none
MAX_HEAD_BYTES = 1 << 29  # everything before the weights
MAX_DEPTH = 4  # of nested arrays

FIRST_BYTES = 1 << 16  # size of the first read
FEW = 256  # up to this many strings are read one by one, which is faster for few
AVERAGES = (20, 60)  # bytes of a string and its length, on average: at most 20 in most vocabularies, 60 in all

MAX_FIELD = 200  # characters of a field in an error

U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")


class Cursor:
    """A position in a file, and the bytes read so far. FormatError for anything that lies beyond the file's end."""

    def __init__(self, file: ModelFile) -> None:
        self.path, self.file, self.size, self.at, self.items = file.path, file, len(file), 0, 0
        self.data = bytearray()

    def fail(self, field: str, problem: str, at: int | None = None) -> NoReturn:
        where = plain(field, MAX_FIELD)  # names of keys and weights are the file's, and may be long
        raise FormatError(f"{self.path}: {where} at byte {self.at if at is None else at}: {problem}")

    def take(self, count: int, field: str) -> int:
        """Skip the next `count` bytes and return their offset in `data`, which may be a new object after the call."""
        start = self.at
        if count > self.size - start:
            self.fail(field, f"needs {count} bytes, but the file ends at {self.size}: it is cut short or damaged")
        if start + count > len(self.data):
            self.read(start + count, field)
        self.at = start + count
        return start

    def read(self, end: int, field: str) -> None:
        """Read on, to twice `end`, so that `data` contains all bytes up to `end`."""
        if end > MAX_HEAD_BYTES:
            self.fail(field, f"ends at byte {end}, and sotol expects metadata within the first {MAX_HEAD_BYTES}")
        before, self.data = self.data, bytearray(min(self.size, max(2 * end, FIRST_BYTES)))
        self.data[: len(before)] = before
        self.file.copy_to(np.frombuffer(self.data, np.uint8)[len(before) :], len(before))

    def u32(self, field: str) -> int:
        start = self.take(4, field)
        value: int = U32.unpack_from(self.data, start)[0]
        return value

    def u64(self, field: str) -> int:
        start = self.take(8, field)
        value: int = U64.unpack_from(self.data, start)[0]
        return value

    def count(self, field: str, least: int, limit: int) -> int:
        """A count of items that take at least `least` bytes each: refused if they can't fit in the rest of the file."""
        count = self.u64(field)
        if count > limit:
            self.fail(field, f"{count} is more than the {limit} that sotol accepts", self.at - 8)
        if count * least > self.size - self.at:
            self.fail(field, f"{count} can't fit in the {self.size - self.at} bytes that follow", self.at - 8)
        return count

    def text(self, field: str, limit: int | None = None, errors: str = "strict") -> str:
        """A string. GGUF's are UTF-8; errors: how to decode anything else ("strict" refuses it)."""
        length = self.u64(field)
        if limit is not None and length > limit:
            self.fail(field, f"is {length} bytes long, and the limit is {limit}", self.at - 8)
        start = self.take(length, field)
        try:
            return self.data[start : self.at].decode(errors=errors)
        except UnicodeDecodeError as error:
            self.fail(field, f"is not UTF-8 ({error.reason})", start + error.start)

    def texts(self, count: int, field: str) -> list[str]:
        """`count` strings. Tokens may be any bytes: those that are not UTF-8 are kept by `surrogateescape`."""
        for average in AVERAGES if count > FEW else ():
            if (found := self.short_texts(count, count * average, field)) is not None:
                return found
        return self.any_texts(count, field)

    def short_texts(self, count: int, room_bytes: int, field: str) -> list[str] | None:
        """All strings at once: vocabularies have hundreds of thousands.

        A length has eight bytes. If no string is longer than 255 bytes or contains zeros, the last seven bytes of each
        length are the only runs of seven zeros, and show where all lengths are:

            5 0 0 0 0 0 0 0  h e l l o   2 0 0 0 0 0 0 0  o k   …

        None if this does not hold, or if the strings do not all lie in the next `room_bytes`; then nothing is skipped.
        """
        end = min(self.size, self.at + room_bytes)
        if end > len(self.data):
            self.read(end, field)
        room = np.frombuffer(self.data, np.uint8, end - self.at, self.at)
        zeros = room == 0
        zeros = zeros[:-1] & zeros[1:]  # two zeros from here on
        zeros = zeros[:-2] & zeros[2:]  # four zeros
        lengths_at = np.flatnonzero(zeros[1:-3] & zeros[4:])[:count]  # seven zeros, after a length's first byte
        if len(lengths_at) < count or lengths_at[0] != 0:
            return None
        lengths = room[lengths_at].astype(np.int64)
        ends = lengths_at + 8 + lengths
        if (ends[:-1] != lengths_at[1:]).any() or ends[-1] > len(room):
            return None
        whole = room[: ends[-1]].copy()
        whole[lengths_at] = 0  # now only zeros separate the strings
        kept = whole != 0
        if np.count_nonzero(kept) != len(whole) - 8 * count:
            return None  # a string contains zeros
        kept[lengths_at] = True  # keep one zero before each string as the separator
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
            if len(texts) < count:  # not UTF-8, not read yet, or an error, which this call raises
                texts.append(self.text(f"{field}, item {len(texts)}", errors="surrogateescape"))
        return texts

    def value(self, kind: int, field: str, depth: int = 0) -> tuple[object, str]:
        """A metadata value of the numbered type, and the name of its type ("uint32", "string[]", …)."""
        if kind == STRING:
            return self.text(field, errors="replace"), "string"
        if kind == ARRAY:
            return self.array(field, depth)
        if kind not in SCALARS:
            self.fail(field, f"has the unknown type {kind}; known are {known_types()}", self.at - 4)
        name, letter = SCALARS[kind]
        return self.numbers(letter, 1, field)[0], name

    def array(self, field: str, depth: int) -> tuple[object, str]:
        if depth == MAX_DEPTH:
            self.fail(field, f"has arrays nested more than {MAX_DEPTH} deep")
        kind = self.u32(field)
        if kind not in SCALARS and kind not in (STRING, ARRAY):
            self.fail(field, f"is an array of the unknown type {kind}; known are {known_types()}", self.at - 4)
        least = {STRING: 8, ARRAY: 12}.get(kind) or struct.calcsize("<" + SCALARS[kind][1])
        cost = NESTED_ITEMS if kind == ARRAY else 1
        count = self.count(f"{field}, its length", least, (MAX_ITEMS - self.items) // cost)
        self.items += count * cost
        if kind == STRING:
            return self.texts(count, field), "string[]"
        if kind == ARRAY:
            return [self.array(f"{field}, item {i}", depth + 1)[0] for i in range(count)], "array[]"
        name, letter = SCALARS[kind]
        return self.numbers(letter, count, field), f"{name}[]"

    def numbers(self, letter: str, count: int, field: str) -> list[int | float | bool]:
        dtype = np.dtype(f"<{letter}")
        start = self.take(dtype.itemsize * count, field)
        if letter == "?" and max(self.data[start : self.at], default=0) > 1:
            self.fail(field, "holds a truth value that is neither 0 nor 1", start)
        numbers: list[int | float | bool] = np.frombuffer(self.data, dtype, count, start).tolist()
        return numbers


def known_types() -> str:
    """The metadata types by number and name, for error messages."""
    names = {number: name for number, (name, _) in SCALARS.items()} | {STRING: "string", ARRAY: "array"}
    return ", ".join(f"{number} {names[number]}" for number in sorted(names))
