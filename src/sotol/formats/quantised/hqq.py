"""HQQ (Badri and Shaji 2023, mobiusml.github.io/hqq_blog): whole numbers of 1 to 8 bits around points that are floats.

Layout: the hqq package's HQQLinear and BitPack, as `transformers` saves them. A matrix of `shape` [N, K] is cut into
groups of `group_size` of a row's numbers, one after another (axis 1). `W_q` has the codes of several groups in a word,
the first in the highest bits: of 4 bits, row i has those of group i and of group i + half of all. `scale` and `zero`
have a number for each group: a number is scale * (code - zero), so scale * code - scale * zero, in float32 to the bit
where factors are of 16 bits. Everything else is a tensor of one number, or of a text's letters.

Axis 1 is transformers' default (HqqConfig), and was since it has saved such models. Of axis 0, all numbers of a row
have factors of their own, which other rows share: no blocks of a row do, so such weights can't be run from their bits.
"""

from typing import NamedTuple

import numpy as np

from sotol.formats.quantised.grids import width_of
from sotol.formats.quantised.settings import Settings
from sotol.formats.quantised.tensors import BYTE, FACTOR_KINDS, Tensors, failure, numbers
from sotol.formats.weights import Weight
from sotol.quant import FACTORS, BlockParts, Float32Array, Layout, UInt8Array

__all__ = ["join_hqq"]

# By `packing`: the bits of a code in words, the words, and how many codes a word has.
PACKINGS = {
    "8bit_u8": (8, "<u1", 1), "4bit_u8": (4, "<u1", 2), "3bit_32": (3, "<i4", 10), "2bit_u8": (2, "<u1", 4),
    "1bit_u8": (1, "<u1", 8),
}  # fmt: skip
BITS = (1, 2, 3, 4, 5, 6, 8)
SAID = (
    "unpack_view_dtype", "view_as_float", "compute_dtype", "offload_meta", "encoded_state_dict",
    "stores_quant_config", "channel_wise", "optimize", "round_zero",
)  # fmt: skip
INTEGERS = ("I32", "I64", "U8")


class Packed(NamedTuple):
    """Groups of codes, several in a word."""

    words: Weight  # bytes: [rows, bytes of each]
    dtype: str
    bits: int
    each: int  # codes of a word

    def groups(self, first: int, end: int) -> UInt8Array:
        """Those of groups first … end - 1: [end - first, group]."""
        rows, parts = self.words.shape[0], list[UInt8Array]()
        while first < end:  # groups side by side are in one place of the words, up to the last row
            place, begin = divmod(first, rows)
            stop = min(rows, begin + end - first)
            words = numbers(self.words, begin, stop).view(self.dtype)
            shift = self.bits * (self.each - 1 - place)
            parts.append((words >> shift & ((1 << self.bits) - 1)).astype(np.uint8))
            first += stop - begin
        return np.concatenate(parts)


def join_hqq(settings: Settings, tensors: Tensors) -> None:
    """The weights of a checkpoint whose quant_method is "hqq". What form a weight has, its tensors say."""
    settings.ignore("quant_config", "skip_modules")
    settings.finish()
    for name in tensors.ending(".W_q"):
        put_hqq(tensors, name)


def put_hqq(tensors: Tensors, name: str) -> None:
    """One weight."""
    for key in ("quant_scale", "quant_zero"):
        found = tensors.find(f"{name}.{key}", *INTEGERS)
        if found is not None and numbers(found).any():
            raise tensors.fail(found.name, "is not 0: factors are quantised themselves, which sotol does not support")
    if (axis := one_of(tensors, name, "axis")) != 1:
        raise tensors.fail(f"{name}.axis", f"is {axis}: its groups lie along outputs; sotol runs those along inputs, 1")
    for key in SAID:
        tensors.find(f"{name}.{key}", *INTEGERS)
    shape = tensors.take(f"{name}.shape", "I64", "I32", shape=(2,))
    rows, width = (int(x) for x in numbers(shape)[0])
    bits, group = one_of(tensors, name, "nbits"), one_of(tensors, name, "group_size")
    said = numbers(tensors.take(f"{name}.packing", "U8")).tobytes().decode("ascii", "replace")
    given = tensors.take(f"{name}.W_q", "U8", "I32", "F16", "BF16", "F32")  # floats: a view of the same bytes
    stored, dtype, each = PACKINGS.get(said, (0, "<u1", 1))
    if bits not in BITS or bits > stored or min(rows, width, group) < 1 or width % group:
        wrong = f"has {bits} bits, packing {said!r:.20} and groups of {group}, for a weight of {rows} x {width}"
        raise tensors.fail(given.name, wrong)
    count = rows * width // group
    words, size = -(-count // each), np.dtype(dtype).itemsize
    if given.nbytes != words * group * size:
        raise tensors.fail(given.name, f"has {given.nbytes} bytes, and should have {words} rows of {group} words")
    flat = Weight.from_bytes(given.name, BYTE, (words, group * size), given.rows().reshape(-1))
    packed = Packed(flat, dtype, stored, each)
    scale, zero = (tensors.take(f"{name}.{key}", *FACTOR_KINDS, shape=(count, 1)) for key in ("scale", "zero"))
    put_groups(tensors, f"{name}.weight", (rows, width), packed, (scale, zero), bits)


def one_of(tensors: Tensors, name: str, key: str) -> int:
    """The number of a tensor that has one; 1.58 bits, of three numbers, are 2."""
    tensor = tensors.take(f"{name}.{key}", *INTEGERS, "F32")
    found = numbers(tensor).reshape(-1)
    if found.size != 1 or not np.isfinite(found[0]):
        raise tensors.fail(tensor.name, f"has {found.size} numbers, not a finite one")
    return int(np.ceil(found[0]))


def put_groups(
    tensors: Tensors, name: str, shape: tuple[int, int], packed: Packed, factors: tuple[Weight, Weight], bits: int
) -> None:
    """The weight of packed groups, its points as minimums in float32."""
    scale, zero = factors
    each = shape[0] * shape[1] // scale.shape[0]
    size, path, per_row = width_of(tensors, name, shape[1], each), tensors.path, shape[1] // each
    layout = Layout(bits, size, factor="f32", minimum=True)

    def read(first: int, end: int) -> BlockParts:
        groups = first * per_row, end * per_row
        q = packed.groups(*groups)
        if bits < packed.bits and (q >> bits).any():
            raise failure(path, packed.words.name, f"has a code of more than {bits} bits")
        d, points = (wide(x, *groups) for x in (scale, zero))
        blocks = (np.repeat(x, each // size).reshape(end - first, -1) for x in (d, -d * points))
        return BlockParts(q.reshape(end - first, -1, 1, size), *blocks)

    tensors.put(name, shape, layout, (packed.words, scale, zero), read)


def wide(tensor: Weight, first: int, end: int) -> Float32Array:
    """Factors first … end - 1 in float32."""
    return FACTORS[FACTOR_KINDS[tensor.encoding.name]].decode(numbers(tensor, first, end)[:, 0])
