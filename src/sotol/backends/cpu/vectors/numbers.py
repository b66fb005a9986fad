"""From unpacked codes to the numbers that they stand for, as f32: whole numbers, and floats of 4 and 8 bits.

`codes.py` has the order of bytes; `quant.NUMBERS` the floats, which these have to the bit.
"""

from typing import NamedTuple

from llvmlite import ir

from sotol.backends.cpu.layout import LANES
from sotol.backends.cpu.vectors.codes import Codes, join, looked_up
from sotol.backends.cpu.vectors.simd import F32, I16, I32, VF, VI, Builder, Value, call, constant
from sotol.quant import NUMBERS, Float32Array

__all__ = ["four_numbers"]


class Small(NamedTuple):
    """A float of a sign, so many bits of exponent, and of mantissa: 8 in all."""

    exponent: int
    mantissa: int

    @property
    def bias(self) -> int:
        """What a stored exponent is more than the exponent."""
        return (1 << (self.exponent - 1)) - 1


# By form of the dot product: the instruction that picks f32 of a register by indices, and the register's lanes.
PERMUTES: dict[str, tuple[str, int]] = {
    "avx2": ("llvm.x86.avx2.permps", 8),
    "avxvnni": ("llvm.x86.avx2.permps", 8),
    "avx512": ("llvm.x86.avx512.permvar.sf.512", 16),
    "vnni": ("llvm.x86.avx512.permvar.sf.512", 16),
    "amx": ("llvm.x86.avx512.permvar.sf.512", 16),
}
EIGHTS = {"e4m3": Small(4, 3), "e5m2": Small(5, 2)}


def four_numbers(b: Builder, v: Value, codes: Codes, form: str) -> list[Value]:
    """The numbers of four inputs of 16 rows, 16 f32 each, from a vector of 64 bytes, as `codes.packed_bytes` gives it.

    form: a key of `codes.LOOKUPS`.
    """
    if codes.floats in EIGHTS:
        return _widened(b, v, EIGHTS[codes.floats])
    if codes.floats and form in PERMUTES:
        return _permuted(b, v, NUMBERS[codes.floats], *PERMUTES[form])
    if codes.floats:
        return _from_table(b, v, codes.floats, form)
    bias = constant(VI, codes.byte_bias)
    return [b.sitofp(b.sub(byte, bias), VF) for byte in _bytes(b, v)]


def _bytes(b: Builder, v: Value) -> list[Value]:
    """Byte 0 of each of 16 words, byte 1, 2 and 3: as i32."""
    words = b.bitcast(v, VI)
    return [b.and_(b.lshr(words, constant(VI, 8 * i)), constant(VI, 255)) for i in range(4)]


def _permuted(b: Builder, v: Value, numbers: Float32Array, name: str, lanes: int) -> list[Value]:
    """Floats of 4 bits by the instruction that picks f32 of a register by indices, whose upper bits it ignores.

    Of a register of 16; or of two of 8, by the code's top bit.
    """
    kind, index = ir.VectorType(F32, lanes), ir.VectorType(I32, lanes)
    tables = [ir.Constant(kind, numbers[at : at + lanes].tolist()) for at in range(0, 16, lanes)]
    found = []
    for byte in _bytes(b, v):
        parts = []
        for first in range(0, 16, lanes):
            places = ir.Constant(index, list(range(first, first + lanes)))
            codes = byte if lanes == 16 else b.shuffle_vector(byte, ir.Constant(VI, ir.Undefined), places)
            picked = [call(b, name, kind, table, codes) for table in tables]
            above = len(tables) > 1 and b.icmp_unsigned(">", codes, constant(index, 7))
            parts.append(b.select(above, picked[1], picked[0]) if above else picked[0])
        found.append(join(b, parts))
    return found


def _from_table(b: Builder, v: Value, floats: str, form: str) -> list[Value]:
    """Floats of 4 bits: each of their four bytes is looked up for all codes at once, and then they are put together."""
    stored = NUMBERS[floats].view("i1").reshape(-1, 4)  # signed, as LLVM expects them
    planes = [_bytes(b, looked_up(b, v, stored[:, k].tolist(), form)) for k in range(4)]
    numbers = []
    for i in range(4):
        word = planes[0][i]
        for k in range(1, 4):
            word = b.or_(word, b.shl(planes[k][i], constant(VI, 8 * k)))
        numbers.append(b.bitcast(word, VF))
    return numbers


def _widened(b: Builder, v: Value, kind: Small) -> list[Value]:
    """Floats of 8 bits, finite ones, as f32.

    Sign, exponent and mantissa move to their places in the upper 16 bits of a f32, two floats at once. Its bias is
    another, so it is too small by a power of two, and subnormal where it was before: a multiplication mends both,
    exactly, since kernels keep subnormal numbers (`arguments.use_standard_floats`).
    """
    shorts, moved = ir.VectorType(I16, 2 * LANES), 8 - kind.exponent
    odd = b.bitcast(v, shorts)  # bytes 1 and 3 of a word, in the upper halves of 16 bits
    kept = constant(shorts, ((1 << 7) - 1 << kind.exponent) - (1 << 15))  # the sign, and not its copies by the shift
    found = []
    for pairs in (b.shl(odd, constant(shorts, 8)), odd):
        words = b.bitcast(b.and_(b.ashr(pairs, constant(shorts, moved)), kept), VI)
        halves = b.shl(words, constant(VI, 16)), b.and_(words, constant(VI, -(1 << 16)))
        found.append([b.fmul(b.bitcast(word, VF), constant(VF, 2.0 ** (127 - kind.bias))) for word in halves])
    return [found[byte % 2][byte // 2] for byte in range(4)]
