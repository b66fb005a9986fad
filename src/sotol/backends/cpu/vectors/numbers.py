"""From unpacked codes to the numbers that they stand for, as f32: whole numbers, and floats of 4 and 8 bits.

`codes.py` has the order of bytes; `quant.NUMBERS` the floats, which these have to the bit.
"""

from typing import NamedTuple

from llvmlite import ir

from sotol.backends.cpu.vectors.codes import Codes, join, looked_up
from sotol.backends.cpu.vectors.simd import F32, I32, VF, VI, Builder, Value, call, constant, fma_ir
from sotol.quant import NUMBERS, Float32Array

__all__ = ["four_numbers"]

SIGN = -(1 << 31)


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
        return [_widened(b, b.bitcast(v, VI), i, EIGHTS[codes.floats]) for i in range(4)]
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


def _widened(b: Builder, words: Value, i: int, kind: Small) -> Value:
    """Byte i of each word, a finite float of 8 bits, as f32.

    Exponent and mantissa move to their places, where the bias is another. The exponent 0 has no leading 1, and the same
    size as 1: twice the number that was read, less the 1. Exact, and without subnormal f32, which are slow.
    """
    top = b.shl(words, constant(VI, 24 - 8 * i)) if i < 3 else words  # the sign in the highest bit, then the exponent
    bits = ((1 << (kind.exponent + kind.mantissa)) - 1) << (23 - kind.mantissa)
    magnitude = b.and_(b.lshr(top, constant(VI, 8 - kind.exponent)), constant(VI, bits))
    normal = b.bitcast(b.add(magnitude, constant(VI, (127 - kind.bias) << 23)), VF)
    subnormal = fma_ir(b, normal, constant(VF, 2.0), constant(VF, -(2.0 ** (1 - kind.bias))))
    value = b.select(b.icmp_unsigned("<", magnitude, constant(VI, 1 << 23)), subnormal, normal)
    return b.bitcast(b.or_(b.bitcast(value, VI), b.and_(top, constant(VI, SIGN))), VF)
