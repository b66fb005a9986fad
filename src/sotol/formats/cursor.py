"""Reads the values that a GGUF file's head is made of: a place in a file, and what stands there.

Nothing is believed: what a count or a length claims is held against the file's size and against fixed limits before
memory is set aside for it.
"""

import struct
from contextlib import suppress
from typing import NoReturn

import numpy as np

from sotol.errors import FormatError
from sotol.formats.files import ModelFile

__all__ = ["ARRAY", "MAX_DEPTH", "SCALARS", "STRING", "Cursor"]

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
MAX_DEPTH = 4  # of arrays in arrays

FIRST_BYTES = 1 << 16  # to read of a file at first
FEW = 256  # strings that are quicker read one by one
AVERAGES = (20, 60)  # bytes of a string and its length: most vocabularies stay below the first, all below the second

U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")


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
