"""GGML's IQ encodings of one bit and a half: runs of 8 numbers -1, 0, 1 from a grid (`grids.py`), moved by an eighth.

Layouts: ggml's `block_iq1_s`, `block_iq1_m` (ggml-common.h). 256 weights have one float16, groups of 32 (IQ1_S) or 16
(IQ1_M) a scale of 3 bits, s, which stands for 2 s + 1; a run's index has 11 bits. An eighth is added to all weights of
a group (IQ1_S) or of a run (IQ1_M), or taken away.

Eight times a number is whole, so codes stand for -9 … 9: a digit of the grid, and in the bit above whether an eighth is
taken away.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from sotol.quant.encoding import Encoding, as_blocks, halves, integer_encoding
from sotol.quant.grid_search import GridFit, encode_runs
from sotol.quant.iquants import as_bytes, odd_scales, part_of, runs_of, words_of
from sotol.quant.layout import BlockParts, Layout, UInt8Array, UInt16Array

__all__ = ["IQ1", "IQ1_FITS"]

EIGHTHS = (-7, 1, 9, 0, -9, -1, 7, 0)  # of the codes
LOWERED = np.uint64(0x0404040404040404)  # a run whose codes all have the bit above the digit


def codes(index: npt.NDArray[np.uint16], lowered: npt.NDArray[np.bool_], width: int) -> UInt8Array:
    """The codes of blocks: index [..., B, 32] and whether an eighth is taken away -> [..., B, groups, width]."""
    runs = runs_of("iq1")[index] | np.where(lowered, LOWERED, np.uint64(0))
    q: UInt8Array = runs.view(np.uint8).reshape(*index.shape[:-1], -1, width)
    return q


def split_iq1_s(data: UInt8Array) -> BlockParts:
    """d; 32 bytes of indices; for each 32 weights 2 bytes: the 3 upper bits of 4 indices, the scale, a sign."""
    blocks = as_blocks(data, 50)
    more = words_of(blocks[..., 34:], "<u2")  # [..., 8]
    upper = (more[..., None] >> np.array([0, 3, 6, 9], np.uint16)) & np.uint16(7)
    index = blocks[..., 2:34] | upper.reshape(*blocks.shape[:-1], 32) << np.uint16(8)
    q = codes(index, np.repeat(more >> np.uint16(15) == 1, 4, axis=-1), 32)
    return BlockParts(q, part_of(halves(blocks, 0), 1 / 8), scales=odd_scales(more >> np.uint16(12) & np.uint16(7)))


def split_iq1_m(data: UInt8Array) -> BlockParts:
    """32 bytes of indices; 16 whose halves have the 3 upper bits of an index and a sign; 4 words with 4 scales each.

    The bits above the scales, 4 of each word, are those of d, the lowest first.
    """
    blocks = as_blocks(data, 56)
    lead = blocks.shape[:-1]
    more = np.stack([blocks[..., 32:48] & np.uint8(15), blocks[..., 32:48] >> np.uint8(4)], axis=-1).reshape(*lead, 32)
    index = blocks[..., :32] | (more & np.uint8(7)).astype(np.uint16) << np.uint16(8)
    words = words_of(blocks[..., 48:], "<u2")  # [..., 4]
    scales = (words[..., None] >> np.array([0, 3, 6, 9], np.uint16)) & np.uint16(7)
    quarters = words >> np.uint16(12) << np.array([0, 4, 8, 12], np.uint16)
    d = np.bitwise_or.reduce(quarters, axis=-1).astype("<u2").view("<f2")
    return BlockParts(codes(index, more > 7, 16), part_of(d, 1 / 8), scales=odd_scales(scales.reshape(*lead, 16)))


def join_iq1_s(d: UInt8Array, scales: UInt8Array, index: UInt16Array, lowered: UInt8Array) -> UInt8Array:
    """The inverse of `split_iq1_s`, see `GridFit.join`."""
    more = np.bitwise_or.reduce((index >> np.uint16(8)).reshape(-1, 8, 4) << np.array([0, 3, 6, 9], np.uint16), axis=-1)
    more |= scales.astype(np.uint16) << np.uint16(12) | lowered[:, ::4].astype(np.uint16) << np.uint16(15)
    return np.concatenate([d, index.astype(np.uint8), as_bytes(more, "<u2")], axis=-1)


def join_iq1_m(d: UInt8Array, scales: UInt8Array, index: UInt16Array, lowered: UInt8Array) -> UInt8Array:
    """The inverse of `split_iq1_m`."""
    more = (index >> np.uint16(8)).astype(np.uint8) | lowered << np.uint8(3)
    words = np.bitwise_or.reduce(
        scales.astype(np.uint16).reshape(-1, 4, 4) << np.array([0, 3, 6, 9], np.uint16), axis=-1
    )
    words |= (d.view("<u2") >> np.array([0, 4, 8, 12], np.uint16) & np.uint16(15)) << np.uint16(12)
    parts = [index.astype(np.uint8), more[:, ::2] | more[:, 1::2] << np.uint8(4), as_bytes(words, "<u2")]
    return np.concatenate(parts, axis=-1)


TABLES = EIGHTHS[:3], EIGHTHS[4:7]
IQ1_FITS = {
    "IQ1_S": GridFit("iq1", TABLES, 32, 1 / 8, 3, (1.0,), join_iq1_s, "", together=4),
    "IQ1_M": GridFit("iq1", TABLES, 16, 1 / 8, 3, (1.0,), join_iq1_m, ""),
}


def iq1(name: str, ggml_type: int, size: int, split: Callable[[UInt8Array], BlockParts]) -> Encoding:
    """A row of the table."""
    fit = IQ1_FITS[name]
    return integer_encoding(
        name,
        ggml_type=ggml_type,
        size=size,
        layout=Layout(3, fit.width, fit.groups, numbers=EIGHTHS, factor="f32", scales=True),
        split=split,
        encode=partial(encode_runs, fit),
        recoded=True,
    )


IQ1: tuple[Encoding, ...] = (iq1("IQ1_S", 19, 50, split_iq1_s), iq1("IQ1_M", 29, 56, split_iq1_m))
