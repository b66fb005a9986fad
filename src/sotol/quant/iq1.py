"""GGML's IQ encodings of one bit and a half: runs of 8 numbers -1, 0, 1 from a grid (`grids.py`), moved by an eighth.

Layouts: ggml's `block_iq1_s`, `block_iq1_m` (ggml-common.h). 256 weights have one float16, groups of 32 (IQ1_S) or 16
(IQ1_M) a scale of 3 bits, s, which stands for 2 s + 1; a run's index has 11 bits. An eighth is added to all weights of
a group (IQ1_S) or of a run (IQ1_M), or taken away.

Eight times a number is whole, so codes stand for -9 … 9: a digit of the grid, and in the bit above whether an eighth is
taken away.
"""

from functools import partial

import numpy as np
import numpy.typing as npt

from sotol.quant.encoding import Encoding, as_blocks, halves, integer_encoding, to_half
from sotol.quant.grid_search import fit_runs
from sotol.quant.grids import digits_of
from sotol.quant.iquants import CHUNK, as_bytes, odd_scales, part_of, runs_of, words_of
from sotol.quant.layout import BlockParts, Float32Array, Layout, UInt8Array
from sotol.quant.search import EncodeWeighted, deviations, encode_chunks, over

__all__ = ["IQ1", "WEIGHTED_IQ1"]

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


def eighths(sign: int) -> Float32Array:
    """The grid's numbers times 8, moved up (1) or down (-1): [2048, 8]."""
    return 8 * digits_of("iq1").astype(np.float32) - 8 + np.float32(sign)


def errors(x: Float32Array, scale: Float32Array, numbers: Float32Array, weight: Float32Array | None) -> Float32Array:
    """Squared errors of runs: x and numbers [B, groups, width], scale [B, groups] -> [B, groups, runs].

    weight: as x, how much each counts.
    """
    wrong = (scale[..., None] * numbers - x) ** 2
    wrong = wrong if weight is None else weight * wrong
    found: Float32Array = wrong.reshape(*x.shape[:2], -1, 8).sum(-1)
    return found


def fit(
    blocks: Float32Array, width: int, importance: Float32Array | None
) -> tuple[UInt8Array, UInt8Array, npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Blocks [B, 256] as d's bytes [B, 2], scales s [B, groups], and of each run [B, 32] its index and whether it is
    lowered: the same for all runs of a group of 32. importance: [B, 256], how much weights count, or None."""
    x = blocks.reshape(len(blocks), -1, width)
    weight = None if importance is None else deviations(blocks, importance).reshape(x.shape)
    tables = [eighths(sign) for sign in (1, -1)]
    first = [fit_runs(x, table, 9.0, weight=weight) for table in tables]
    lost = [
        errors(x, scale, table[index].reshape(x.shape), weight).sum(-1)
        for table, (scale, index) in zip(tables, first, strict=True)
    ]
    scale = np.where(lost[1] < lost[0], first[1][0], first[0][0])
    d = to_half(scale.max(-1, keepdims=True) / np.float32(15 / 8))
    step = d.astype(np.float32) / np.float32(8)
    scales = np.clip(np.rint((over(scale, step) - 1) / 2), 0, 7)
    scale = step * (2 * scales + 1)
    index = [fit_runs(x, table, 9.0, scale, weight)[1] for table in tables]  # [B, groups, runs]
    wrong = [errors(x, scale, table[at].reshape(x.shape), weight) for table, at in zip(tables, index, strict=True)]
    if width == 32:
        wrong = [np.broadcast_to(each.sum(-1, keepdims=True), each.shape) for each in wrong]
    lowered = wrong[1] < wrong[0]
    chosen = np.where(lowered, index[1], index[0])
    return d.view(np.uint8), scales.astype(np.uint8), chosen.reshape(len(x), 32), lowered.reshape(len(x), 32)


def encode_iq1_s(blocks: Float32Array, importance: Float32Array | None = None) -> UInt8Array:
    """[B, 256] -> [B, 50]."""
    d, scales, index, lowered = fit(blocks, 32, importance)
    more = np.bitwise_or.reduce((index >> 8).reshape(-1, 8, 4) << np.array([0, 3, 6, 9]), axis=-1)
    more |= scales.astype(np.int64) << 12 | lowered[:, ::4].astype(np.int64) << 15
    return np.concatenate([d, (index & 255).astype(np.uint8), as_bytes(more, "<u2")], axis=-1)


def encode_iq1_m(blocks: Float32Array, importance: Float32Array | None = None) -> UInt8Array:
    """[B, 256] -> [B, 56]."""
    d, scales, index, lowered = fit(blocks, 16, importance)
    more = (index >> 8 | lowered.astype(np.int64) << 3).astype(np.uint8)
    words = np.bitwise_or.reduce(
        scales.astype(np.uint16).reshape(-1, 4, 4) << np.array([0, 3, 6, 9], np.uint16), axis=-1
    )
    words |= (d.view("<u2") >> np.array([0, 4, 8, 12], np.uint16) & np.uint16(15)) << np.uint16(12)
    parts = [(index & 255).astype(np.uint8), more[:, ::2] | more[:, 1::2] << np.uint8(4), as_bytes(words, "<u2")]
    return np.concatenate(parts, axis=-1)


LAYOUTS = {width: Layout(3, width, 256 // width, numbers=EIGHTHS, factor="f32", scales=True) for width in (16, 32)}

IQ1: tuple[Encoding, ...] = (
    integer_encoding(
        "IQ1_S",
        ggml_type=19,
        size=50,
        layout=LAYOUTS[32],
        split=split_iq1_s,
        encode=partial(encode_chunks, encode=encode_iq1_s, chunk=CHUNK),
        recoded=True,
    ),
    integer_encoding(
        "IQ1_M",
        ggml_type=29,
        size=56,
        layout=LAYOUTS[16],
        split=split_iq1_m,
        encode=partial(encode_chunks, encode=encode_iq1_m, chunk=CHUNK),
        recoded=True,
    ),
)

WEIGHTED_IQ1: dict[str, EncodeWeighted] = {
    "IQ1_S": partial(encode_chunks, encode=encode_iq1_s, chunk=CHUNK),
    "IQ1_M": partial(encode_chunks, encode=encode_iq1_m, chunk=CHUNK),
}
