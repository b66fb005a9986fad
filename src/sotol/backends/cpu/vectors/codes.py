"""From the packed codes of a panel to the unsigned bytes that dot products take: unpacked, and looked up in a table.

A group is 32 inputs of 16 weight rows, as eight vectors of 64 bytes: input 4 j + i of row r is byte 4 r + i of vector
j. All forms of the lookup give the same bytes.
"""

from collections.abc import Callable
from typing import NamedTuple

from llvmlite import ir

from sotol.backends.cpu.layout import GROUP, LANES, PLANES, VECTOR_BYTES, place_in_plane
from sotol.backends.cpu.vectors.simd import I8, I32, Builder, Value, call, constant, load_ir, offset

__all__ = ["VECTORS", "Codes", "Weights", "join", "looked_up", "packed_bytes", "stored_bytes"]

VECTORS = GROUP * LANES // VECTOR_BYTES  # of a group: 8

Weights = Callable[[int, int, int], Value]  # (vector, first row, rows) -> four bytes for each row


def stored_bytes(b: Builder, address: Value) -> Weights:
    """Vectors of bytes that are stored one after the other, not packed."""

    def read(j: int, row: int, rows: int) -> Value:
        return load_ir(b, offset(b, address, VECTOR_BYTES * j + 4 * row), ir.VectorType(I8, 4 * rows))

    return read


class Codes(NamedTuple):
    """How a group's weights are stored, and what their codes stand for.

    Dot products take unsigned bytes that exceed the numbers by a bias. Codes without a table are such bytes; a table's
    numbers, which are signed, become so by adding what makes the least of them 0: the fewer bits the bytes have, the
    more products fit into 16 bits. Or 128, where they need all 8 bits: some CPUs do without a bias then. And where
    `middle` says so, for all that have a bias.
    """

    bits: int  # of a code
    table: tuple[int, ...] = ()  # of an int8 for each code, of up to 4 bits; empty: codes are the unsigned bytes
    bias: int = 0  # without a table: code minus number
    floats: str = ""  # the floats that codes stand for (`quant.NUMBERS`), which dot products of bytes can't take
    middle: bool = False  # whether numbers that may be negative become bytes by adding 128, whatever their range

    @property
    def byte_bits(self) -> int:
        """The bits that an unsigned byte uses."""
        if self.byte_bias == 128:
            return 8
        return (max(self.table) - min(self.table)).bit_length() if self.table else self.bits

    @property
    def byte_bias(self) -> int:
        """Unsigned byte minus number."""
        if self.middle and (self.table or self.bias):
            return 128
        if not self.table:
            return self.bias
        return 128 if max(self.table) - min(self.table) > 127 else -min(self.table)


def packed_bytes(b: Builder, address: Value, codes: Codes, form: str) -> Weights:
    """The vectors of a packed group as unsigned bytes. form: a key of `LOOKUPS`, where there is a table."""
    packed, more = packed_codes(b, address, codes.bits), codes.byte_bias - codes.bias
    if not codes.table:
        return _added(b, packed, more) if more else packed
    found = [number + codes.byte_bias for number in codes.table]
    table = [number - 256 if number > 127 else number for number in found]  # as the signed bytes that LLVM expects
    return lambda j, row, rows: looked_up(b, packed(j, row, rows), table, form)


def _added(b: Builder, weights: Weights, more: int) -> Weights:
    """The same, each byte larger by so much."""

    def read(j: int, row: int, rows: int) -> Value:
        v = weights(j, row, rows)
        return b.add(v, constant(v.type, more))

    return read


def looked_up(b: Builder, v: Value, table: list[int], form: str) -> Value:
    """table[v] for each byte of a vector; looked up piecemeal where the instruction takes fewer."""
    name, size = LOOKUPS[form]
    if not name:
        return _selected(b, v, table)
    kind = ir.VectorType(I8, size)
    numbers = ir.Constant(kind, table * (size // len(table)))  # the instruction's tables have 16 bytes
    found = []
    for first in range(0, v.type.count, size):
        index = ir.Constant(ir.VectorType(I32, size), list(range(first, first + size)))
        codes = v if v.type.count == size else b.shuffle_vector(v, ir.Constant(v.type, ir.Undefined), index)
        found.append(call(b, name, kind, numbers, codes))
    return join(b, found)


def _selected(b: Builder, v: Value, table: list[int]) -> Value:
    """The same without such an instruction: each bit of the code masks one half of the entries that are left."""
    kind, left = v.type, [constant(v.type, number) for number in table]
    for bit in range(len(table).bit_length() - 1):
        is_set = b.icmp_unsigned("!=", b.and_(v, constant(kind, 1 << bit)), constant(kind, 0))
        mask = b.sext(is_set, kind)
        left = [b.xor(even, b.and_(b.xor(even, odd), mask)) for even, odd in zip(left[::2], left[1::2], strict=True)]
    return left[0]


# By form of the dot product: the instruction that looks bytes up in a table of 16, and how many bytes it takes.
LOOKUPS: dict[str, tuple[str, int]] = {
    "generic": ("", 0),
    "avx2": ("llvm.x86.avx2.pshuf.b", 32),
    "avxvnni": ("llvm.x86.avx2.pshuf.b", 32),
    "avx512": ("llvm.x86.avx512.pshuf.b.512", 64),
    "vnni": ("llvm.x86.avx512.pshuf.b.512", 64),
    "amx": ("llvm.x86.avx512.pshuf.b.512", 64),
    "sdot": ("llvm.aarch64.neon.tbl1.v16i8", 16),
}


def packed_codes(b: Builder, address: Value, bits: int) -> Weights:
    """The vectors of a group of 32 inputs of 16 rows, from its packed form (`panels.py`).

    Codes are cut into planes (`layout.PLANES`): of 6 bits, one plane has the lower four and another one the upper two.
    A plane of n bits is n vectors of 64 bytes. Of 4 bits: the j-th has vector j of the group in its low nibbles and
    vector 4 + j in its high nibbles. Of 1 or 2: each has 8 or 4 neighbouring vectors, the first in the lowest bits.
    """
    stored = stored_bytes(b, address)

    def cut(first: int, wide: int, j: int, row: int, rows: int) -> Value:
        """Vector j of the plane of `wide` bits that begins at the stored vector `first`."""
        at, place = place_in_plane(wide, j)
        v = stored(first + at, row, rows)
        v = b.lshr(v, constant(v.type, place)) if place else v
        return b.and_(v, constant(v.type, (1 << wide) - 1)) if place + wide < 8 else v

    def read(j: int, row: int, rows: int) -> Value:
        found, below = None, 0
        for wide in PLANES[bits]:
            v = cut(below, wide, j, row, rows)  # a plane of n bits is n vectors: the next begins after all bits below
            found = v if found is None else b.or_(found, b.shl(v, constant(v.type, below)))
            below += wide
        return found

    return read


def join(b: Builder, vectors: list[Value]) -> Value:
    """Vectors of integers concatenated; their number is a power of two."""
    while len(vectors) > 1:
        count = 2 * vectors[0].type.count
        index = ir.Constant(ir.VectorType(I32, count), list(range(count)))
        vectors = [b.shuffle_vector(vectors[i], vectors[i + 1], index) for i in range(0, len(vectors), 2)]
    return vectors[0]
