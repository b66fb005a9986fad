"""How an integer encoding's numbers are laid out and what they mean, said as data: kernels are made from a `Layout`.

A block is `groups` groups of `width` numbers, each stored as an unsigned code q of `bits` bits. What a number means:

    value = (d * scale) * (number(q) - zero) + (m * minimum)

number(q) is q less a bias, or what a table has for q: whole numbers, or the floats of a format that has a name. d and m
are floating-point factors: of the block where groups have scales (and minimums) of a byte, else each group's own. zero
is a whole number of the group. Without a part, a scale or minimum is 1, and zero or m is 0.

Nothing here is about a device: which layouts it has kernels for, a backend says (`backends/cpu/panels.py`).
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

__all__ = [
    "FACTORS", "NUMBERS", "BlockParts", "Float16Array", "Float32Array", "FloatArray", "Int8Array", "Layout",
    "UInt8Array", "UInt16Array", "decode_e4m3_half", "decode_e8m0_half", "decode_parts",
]  # fmt: skip

UInt8Array = npt.NDArray[np.uint8]
Int8Array = npt.NDArray[np.int8]
Float16Array = npt.NDArray[np.float16]
UInt16Array = npt.NDArray[np.uint16]
Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.floating[Any]]


def decode_e8m0_half(x: UInt8Array) -> Float32Array:
    """Half of what bytes of E8M0 stand for: 2^(x - 128), in float32, where 2^-127 and 2^-128 are subnormal.

    E8M0: OCP Microscaling Formats v1.0, 5.4.1. Half, since tables of E2M1 have its numbers doubled, as whole numbers.
    GGML reads 255, the NaN there, as 2^127.
    """
    wide = x.astype(np.uint32)
    small = np.uint32(0x00200000) << wide  # of 0 and 1
    bits = np.where(wide < 2, small, (wide - np.uint32(1)) << np.uint32(23))
    return bits.view(np.float32)


def decode_e4m3_half(x: UInt8Array) -> Float32Array:
    """Half of what bytes of E4M3 stand for without their sign, which is ignored; 0x7F, a NaN there, is 0 for GGML.

    E4M3: OCP 8-bit Floating Point v1.0, 5.1. Half: as of `decode_e8m0_half`.
    """
    exponent, mantissa = (x >> np.uint8(3)) & np.uint8(15), (x & np.uint8(7)).astype(np.float32)
    normal = np.ldexp(np.float32(1) + mantissa / np.float32(8), exponent.astype(np.int32) - 8)
    halved = np.where(exponent == 0, mantissa * np.float32(2**-10), normal)
    return np.where(x == 0x7F, np.float32(0), halved).astype(np.float32)


class Factor(NamedTuple):
    """How a factor is stored, and what it is."""

    dtype: np.dtype[Any]  # little-endian
    decode: Callable[[Any], Float32Array]
    signed: bool = True


def _widened(x: FloatArray) -> Float32Array:
    return x.astype(np.float32)


def _bfloats(x: UInt16Array) -> Float32Array:
    """A bfloat16 is the upper half of a float32."""
    return (x.astype(np.uint32) << np.uint32(16)).view(np.float32)


FACTORS = {
    "f16": Factor(np.dtype("<f2"), _widened),
    "f32": Factor(np.dtype("<f4"), _widened),
    "bf16": Factor(np.dtype("<u2"), _bfloats),
    "e8m0": Factor(np.dtype("u1"), decode_e8m0_half, signed=False),
    "e4m3": Factor(np.dtype("u1"), decode_e4m3_half, signed=False),
}


def _e4m3() -> Float32Array:
    """E4M3 (OCP 8-bit Floating Point v1.0, 5.1): no infinities, and NaN where all bits but the sign are 1."""
    codes = np.arange(256, dtype=np.uint8)
    sizes = np.where(codes & 127 == 127, np.float32(np.nan), 2 * decode_e4m3_half(codes & np.uint8(127)))
    return np.copysign(sizes, np.where(codes > 127, -1, 1)).astype(np.float32)


def _e5m2() -> Float32Array:
    """E5M2 (OCP 8-bit Floating Point v1.0, 5.1): the upper half of a float16."""
    with np.errstate(invalid="ignore"):  # some CPUs tell of a NaN that becomes a wider one
        return (np.arange(256, dtype="<u2") << np.uint16(8)).view("<f2").astype(np.float32)


# NormalFloat, quantiles of a normal distribution (Dettmers et al. 2023, arXiv 2305.14314, appendix E), as float32.
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
# The FP4 of bitsandbytes: a sign, 2 bits of exponent and one of mantissa, in an order of its own; its largest is 1.
FP4 = tuple(sign * x / 192 for sign in (1, -1) for x in (0, 1, 128, 192, 64, 96, 32, 48))

# Floats that codes stand for, by the name of their format: [2^bits]. Blocks have no codes of infinities or NaN: who
# makes them of a file's numbers refuses these.
NUMBERS: Mapping[str, Float32Array] = {
    "e4m3": _e4m3(),
    "e5m2": _e5m2(),
    "nf4": np.array(NF4, np.float32),
    "fp4": np.array(FP4, np.float32),
}
KEY = re.compile(
    r"q(?P<bits>\d)_(?P<width>\d{1,4})x(?P<groups>\d{1,4})"
    r"(?:_b(?P<bias>\d{1,4})|_t(?P<table>(?:[0-9a-f]{2})+)|_n(?P<named>" + "|".join(NUMBERS) + r"))?"
    r"(?:_(?P<factor>f32|bf16|e8m0|e4m3))?(?P<scales>_s|_e)?(?P<minimum>_m)?(?P<zeros>_z)?"
)


class BlockParts(NamedTuple):
    """The parts of B blocks of an integer encoding; views of the bytes where the layout allows it."""

    q: UInt8Array  # [..., B, groups, width]  codes in the order of the weights
    d: FloatArray | UInt8Array | UInt16Array  # [..., B] as stored; [..., B, groups] where there are several factors
    m: FloatArray | UInt16Array | None = None  # as d: the factor of the additive term; minus `dmin` for K-quants
    scales: UInt8Array | Int8Array | None = None  # [..., B, groups]  -128 … 127, or E4M3
    minimums: UInt8Array | Int8Array | None = None  # [..., B, groups]  -128 … 127
    zeros: UInt8Array | None = None  # [..., B, groups]  0 … 255


class Layout(NamedTuple):
    """The layout of a block."""

    bits: int  # of a code: 1 to 8
    width: int  # numbers that share a scale
    groups: int = 1  # of `width` numbers in a block
    # How much less than its code a number is; or the int8 of each code; or the name of the floats of all codes.
    numbers: int | tuple[int, ...] | str = 0
    factor: str = "f16"  # how d and m are stored: a key of FACTORS
    scales: bool = False  # whether a group has a multiplier of a byte, besides the block's factor
    minimum: bool = False  # whether there is an additive term
    zeros: bool = False  # whether a group has a zero point, which its numbers count from
    floating: bool = False  # whether multipliers are halved E4M3, as `FACTORS` has it, and not int8

    @property
    def whole(self) -> bool:
        """Whether numbers are whole, so that integers can be multiplied with them exactly."""
        return not isinstance(self.numbers, str)

    @property
    def values(self) -> int:
        """Numbers of a block."""
        return self.width * self.groups

    @property
    def factors(self) -> int:
        """How many d (and m) a block has."""
        return 1 if self.scales else self.groups

    def check(self) -> Self:
        """The layout itself; ValueError for one that sotol does not have, which says why."""
        problems = {
            "floating multipliers are scales, without a minimum": not self.floating
            or (self.scales and not self.minimum),
            "codes have 1 to 8 bits": 1 <= self.bits <= 8,
            "groups have one number or more": self.width > 0,
            "a block has one group or more": self.groups > 0,
            f"factors are one of {', '.join(FACTORS)}": self.factor in FACTORS,
        }
        if self.factor in FACTORS:
            problems["a minimum has a factor with a sign"] = FACTORS[self.factor].signed or not self.minimum
        if isinstance(self.numbers, tuple):
            problems["a table has an int8 for each code"] = len(self.numbers) == 1 << self.bits and all(
                -128 <= number <= 127 for number in self.numbers
            )
            problems["zero points and a table exclude each other"] = not self.zeros
        elif isinstance(self.numbers, str):
            table = NUMBERS.get(self.numbers)
            problems[f"floats are one of {', '.join(NUMBERS)}, of as many codes"] = (
                table is not None and len(table) == 1 << self.bits
            )
            problems["zero points and floats exclude each other"] = not self.zeros
        else:
            problems["a bias is from 0 to 128"] = 0 <= self.numbers <= 128
            problems["zero points and a bias exclude each other"] = not (self.zeros and self.numbers)
        if wrong := [problem for problem, good in problems.items() if not good]:
            raise ValueError(f"no such layout of numbers as {tuple(self)}: {'; '.join(wrong)}")
        return self

    def key(self) -> str:
        """The layout as a short text that names files: "q4_32x8_s_m" is Q4_K's. `parse` reads it."""
        words = [f"q{self.bits}", f"{self.width}x{self.groups}"]
        if isinstance(self.numbers, tuple):
            words.append("t" + np.array(self.numbers, np.int8).tobytes().hex())
        elif isinstance(self.numbers, str):
            words.append("n" + self.numbers)
        elif self.numbers:
            words.append(f"b{self.numbers}")
        if self.factor != "f16":
            words.append(self.factor)
        flags = {"e" if self.floating else "s": self.scales, "m": self.minimum, "z": self.zeros}
        return "_".join([*words, *(word for word, there in flags.items() if there)])

    @classmethod
    def parse(cls, key: str) -> "Layout":
        """The layout of a key; ValueError for a text that is none."""
        found = KEY.fullmatch(key)
        if found is None:
            raise ValueError(f"{key[:80]!r} is no layout of numbers")
        numbers: int | tuple[int, ...] | str = found["named"] or int(found["bias"] or 0)
        if found["table"]:
            numbers = tuple(np.frombuffer(bytes.fromhex(found["table"]), np.int8).tolist())
        return cls(
            bits=int(found["bits"]),
            width=int(found["width"]),
            groups=int(found["groups"]),
            numbers=numbers,
            factor=found["factor"] or "f16",
            scales=bool(found["scales"]),
            minimum=bool(found["minimum"]),
            zeros=bool(found["zeros"]),
            floating=found["scales"] == "_e",
        ).check()


def decode_parts(layout: Layout, fields: BlockParts) -> Float32Array:
    """The numbers that the parts of B blocks stand for, in float32: [..., B * groups * width]."""

    def of_groups(factor: npt.NDArray[Any]) -> Float32Array:
        """[..., B] or [..., B, groups] -> [..., B, 1 or groups]."""
        wide = FACTORS[layout.factor].decode(factor)
        return wide[..., None] if wide.ndim == fields.q.ndim - 2 else wide

    with np.errstate(invalid="ignore", over="ignore"):  # a broken file may hold infinite or huge scales
        step = of_groups(fields.d)
        if fields.scales is not None:
            multipliers = FACTORS["e4m3"].decode(fields.scales) if layout.floating else fields.scales.astype(np.float32)
            step = step * multipliers  # [..., B, groups]
        if isinstance(layout.numbers, tuple):
            values = np.array(layout.numbers, np.float32)[fields.q]  # [..., B, groups, width]
        elif isinstance(layout.numbers, str):
            values = NUMBERS[layout.numbers][fields.q]
        else:
            values = fields.q.astype(np.float32)
            values -= np.float32(layout.numbers)
        if fields.zeros is not None:
            values -= fields.zeros.astype(np.float32)[..., None]
        values *= step[..., None]
        if fields.m is not None:
            offset = of_groups(fields.m)
            if fields.minimums is not None:
                offset = offset * fields.minimums.astype(np.float32)
            values += offset[..., None]
    return values.reshape(*values.shape[:-3], -1)
