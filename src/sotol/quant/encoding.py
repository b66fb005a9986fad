"""What an encoding of weights is: blocks of bytes that stand for blocks of numbers.

The functions here are shared by the files of this folder, one per family of encodings. An integer encoding says how
its numbers are laid out (`layout.Layout`) and where a block has its parts; what they mean is said once for all of them,
by `layout.decode_parts`.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from sotol.quant.layout import (
    BlockParts,
    Float16Array,
    Float32Array,
    FloatArray,
    Layout,
    UInt8Array,
    UInt16Array,
    decode_parts,
)

__all__ = [
    "BELOW_HALF", "Encoding", "as_blocks", "half_bytes", "halves", "integer_encoding", "pack_neighbours",
    "pack_nibbles", "pack_shared", "require_range", "to_half", "unpack_nibbles", "unpack_upper", "words",
]  # fmt: skip

UInt64Array = npt.NDArray[np.uint64]
MAX_MAGNITUDE = np.float32(2**28)  # 65504, the largest float16, times Q6_K's largest scale and number
# What is added before halves are rounded away from zero: with a half, the number before it would become one.
BELOW_HALF = np.nextafter(np.float32(0.5), np.float32(0))

EVERY_BYTE = np.uint64(0x0101010101010101)
LOW_HALVES = np.uint64(0x0F0F0F0F0F0F0F0F)

Number = TypeVar("Number", np.uint8, np.float32)


class Encoding(NamedTuple):
    """One way to store numbers: `values` of them in every `size` bytes.

    `decode` takes [..., B * size] bytes and gives [..., B * values] float32: it is the definition. `encode` goes the
    other way and raises ValueError for numbers that the encoding can't hold. Both are None where sotol only knows the
    encoding by name and size. An integer encoding has a layout, and `split`, which finds the parts of blocks:
    [..., B * size] bytes -> `BlockParts`.

    In most encodings a code's bits are bits of the block, so that devices only move them to where they read them.
    Others say numbers in another way: trits of a byte, items of a grid, 64-bit floats. Their rows become blocks of
    `recoded` first (`recode`), which stand for the same float32.
    """

    name: str
    values: int
    size: int
    ggml_type: int | None = None  # None: GGUF files have no such weights
    decode: Callable[[UInt8Array], Float32Array] | None = None
    encode: Callable[[Float32Array], UInt8Array] | None = None
    integer: Layout | None = None
    split: Callable[[UInt8Array], BlockParts] | None = None
    recoded: str | None = None  # the name of the encoding that its blocks become before devices read them

    @property
    def kind(self) -> str:
        """What its numbers are, for a kernel: the key of its layout, or the name of a float type."""
        return self.recoded or self.name if self.integer is None else self.integer.key()

    @property
    def whole(self) -> bool:
        """Whether its numbers are whole times factors: what int8 activations can be multiplied with."""
        return self.integer is not None and self.integer.whole


def integer_encoding(
    name: str,
    *,
    layout: Layout,
    size: int,
    split: Callable[[UInt8Array], BlockParts],
    encode: Callable[[Float32Array], UInt8Array] | None = None,
    ggml_type: int | None = None,
    recoded: bool = False,
) -> Encoding:
    """An encoding of `size`-byte blocks whose decode is `decode_parts` over its layout.

    recoded: whether its codes are more than moved bits, so that its blocks become plain ones of the layout.
    """
    return Encoding(
        name,
        values=layout.check().values,
        size=size,
        ggml_type=ggml_type,
        decode=lambda blocks: decode_parts(layout, split(blocks)),
        encode=encode,
        integer=layout,
        split=split,
        recoded=layout.key() if recoded else None,
    )


def as_blocks(data: npt.NDArray[Number], size: int) -> npt.NDArray[Number]:
    """The last axis cut into blocks: [..., B * size] -> [..., B, size]; ValueError if it is not whole blocks."""
    count, rest = divmod(data.shape[-1], size)
    if rest:
        raise ValueError(f"the last axis, {data.shape[-1]}, is not a multiple of the block, {size}")
    return data.reshape(*data.shape[:-1], count, size)


def halves(blocks: UInt8Array, offset: int) -> Float16Array:
    """The float16 at byte `offset` of every block: [..., size] -> [...], a view."""
    view: Float16Array = blocks[..., offset : offset + 2].view("<f2")[..., 0]
    return view


def half_bytes(factors: FloatArray | UInt8Array | UInt16Array) -> UInt8Array:
    """float16 factors of blocks as bytes, the inverse of `halves`: [B] -> [B, 2]."""
    return np.ascontiguousarray(factors)[:, None].view(np.uint8)


def words(data: UInt8Array) -> UInt64Array:
    """Runs of bytes copied next to each other, eight in a number: [..., n] -> [..., n / 8].

    Copied as whole runs, which NumPy does several times faster than byte by byte.
    """
    return np.ascontiguousarray(data.view(f"V{data.shape[-1]}")).view(np.uint64)


def unpack_nibbles(packed: UInt8Array, run: int) -> UInt8Array:
    """Low halves of each run of bytes, then its high halves: [..., k * run] -> [..., k, 2, run], 4 bits each."""
    whole = f"V{run}"
    both = words(packed)
    q = np.empty((*packed.shape[:-1], packed.shape[-1] // run, 2, run), np.uint8)
    runs = q.view(whole)[..., 0]  # [..., k, 2]
    runs[..., 0] = (both & LOW_HALVES).view(whole)
    runs[..., 1] = ((both >> np.uint64(4)) & LOW_HALVES).view(whole)
    return q


def unpack_upper(packed: UInt8Array, bits: int, at: int = 4) -> UInt8Array:
    """The numbers of 1 or 2 bits that share bytes, each from bit `at` on: [..., run] -> [..., 8 / bits, run].

    Item i of a byte comes from its bits i * bits and up. Shifts move bits between neighbouring bytes, too; the mask
    drops these. A run is a multiple of 8 bytes.
    """
    run = packed.shape[-1]
    whole = f"V{run}"
    mask = EVERY_BYTE * np.uint64(((1 << bits) - 1) << at)
    shared = words(packed)
    upper = np.empty((*packed.shape[:-1], 8 // bits, run), np.uint8)
    runs = upper.view(whole)[..., 0]  # [..., 8 / bits]
    for i in range(8 // bits):
        left = at - i * bits
        moved = shared << np.uint64(left) if left > 0 else shared >> np.uint64(-left)
        runs[..., i] = (moved & mask).view(whole)[..., 0]
    return upper


def pack_shared(q: UInt8Array, bits: int) -> UInt8Array:
    """The inverse of `unpack_upper` for numbers of `bits` bits: [..., 8 / bits, run] -> [..., run]."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    packed: UInt8Array = np.bitwise_or.reduce(q << shifts, axis=-2)
    return packed


def pack_neighbours(q: UInt8Array) -> UInt8Array:
    """Numbers of 2 bits, four neighbours in a byte, the first in its lowest bits: [..., 4 n] -> [..., n]."""
    fours = q.reshape(*q.shape[:-1], -1, 4) << np.array([0, 2, 4, 6], np.uint8)
    packed: UInt8Array = np.bitwise_or.reduce(fours, axis=-1)
    return packed


def pack_nibbles(q: UInt8Array) -> UInt8Array:
    """The inverse of `unpack_nibbles`: numbers of 4 bits [..., 2, run] -> [..., run], those of [..., 0, :] low."""
    packed: UInt8Array = q[..., 0, :] | q[..., 1, :] << np.uint8(4)
    return packed


def require_range(x: Float32Array) -> None:
    """ValueError if x has a NaN, an infinity, or a number that no float16 scale reaches and no sum of squares bears."""
    if not (np.abs(x) <= MAX_MAGNITUDE).all():
        raise ValueError(
            f"integer encodings hold numbers up to about {MAX_MAGNITUDE:g}: the weights have a NaN, an infinity or more"
        )


def to_half(x: Float32Array) -> Float16Array:
    """x rounded to float16; ValueError if a finite number is beyond its range."""
    with np.errstate(over="ignore"):
        half = x.astype("<f2")
    if (np.isinf(half) & np.isfinite(x)).any():
        raise ValueError(f"{np.abs(x[np.isfinite(x)]).max():g} is beyond the range of float16, 65504: use F32 or BF16")
    return half
