"""Blocks for any layout: what rows become whose format keeps codes and factors in tensors apart.

A plain block is, one after the other: the factors d, then the factors m, little-endian; a byte for each group's scale,
minimum and zero point, each kind together; the codes. Codes of 4 bits share bytes, in runs of 32: byte j of 16 has code
j in its low half and code j + 16 in its high half. Others have a byte each. What a layout lacks is left out.
"""

from functools import cache

import numpy as np

from sotol.quant.encoding import Encoding, as_blocks, integer_encoding, unpack_nibbles
from sotol.quant.floats import encode_f32
from sotol.quant.layout import FACTORS, BlockParts, FloatArray, Layout, UInt8Array

__all__ = ["join_plain", "plain_encoding", "recode"]


@cache
def plain_encoding(layout: Layout) -> Encoding:
    """The encoding of plain blocks of a layout, which is named by the layout's key: one object for each layout."""
    layout = layout.check()
    if layout.bits == 4 and layout.values % 32:
        raise ValueError(f"no layout of numbers for plain blocks: {layout.values} codes of 4 bits, not runs of 32")
    return integer_encoding(
        layout.key(), layout=layout, size=_places(layout)["end"], split=lambda data: _split(layout, data)
    )


def join_plain(layout: Layout, fields: BlockParts) -> UInt8Array:
    """Plain blocks of these parts: [..., B * bytes of a block]."""
    blocks = fields.q.shape[:-2]
    factor, parts = FACTORS[layout.factor].dtype, list[UInt8Array]()
    for factors in (fields.d, fields.m):
        if factors is not None:
            stored = np.ascontiguousarray(factors.reshape(*blocks, -1), factor)
            parts.append(stored.view(np.uint8))
    for small in (fields.scales, fields.minimums, fields.zeros):
        if small is not None:
            parts.append(np.ascontiguousarray(small).view(np.uint8))
    q = fields.q.reshape(*blocks, -1)
    if layout.bits == 4:
        q = _halves(q)
    parts.append(q)
    return np.concatenate(parts, axis=-1).reshape(*blocks[:-1], -1)


def _halves(q: UInt8Array) -> UInt8Array:
    """Codes of 4 bits, two in a byte: [..., n] -> [..., n / 2]. Eight bytes at once, of all runs of 32."""
    eights = np.ascontiguousarray(q).reshape(-1).view(np.uint64)
    both = np.empty(len(eights) // 2, np.uint64)
    for i in range(2):
        both[i::2] = eights[i::4] | eights[i + 2 :: 4] << np.uint64(4)
    return both.view(np.uint8).reshape(*q.shape[:-1], -1)


def recode(encoding: Encoding, rows: UInt8Array) -> UInt8Array:
    """Rows [..., B * size] as blocks of `encoding.recoded`, which stand for the same float32."""
    if encoding.integer is not None:
        assert encoding.split is not None
        return join_plain(encoding.integer, encoding.split(rows))
    assert encoding.decode is not None
    return encode_f32(encoding.decode(rows))


def _places(layout: Layout) -> dict[str, int]:
    """Where the parts of a block begin, and where it ends, in bytes."""
    sizes = {
        "d": layout.factors * FACTORS[layout.factor].dtype.itemsize,
        "m": layout.minimum * layout.factors * FACTORS[layout.factor].dtype.itemsize,
        "scales": layout.scales * layout.groups,
        "minimums": (layout.minimum and layout.scales) * layout.groups,
        "zeros": layout.zeros * layout.groups,
        "q": layout.values // (2 if layout.bits == 4 else 1),
        "end": 0,
    }
    places, at = dict[str, int](), 0
    for name, size in sizes.items():
        places[name], at = at, at + size
    return places


def _split(layout: Layout, data: UInt8Array) -> BlockParts:
    """The parts of plain blocks: [..., B * size] -> as `BlockParts` has them."""
    at = _places(layout)
    blocks = as_blocks(data, at["end"])
    lead, dtype = blocks.shape[:-1], FACTORS[layout.factor].dtype

    def factors(name: str) -> FloatArray:
        stored = np.ascontiguousarray(blocks[..., at[name] : at[name] + layout.factors * dtype.itemsize])
        found: FloatArray = stored.view(dtype)
        return found[..., 0] if layout.factors == 1 else found

    def small(name: str) -> UInt8Array:
        return blocks[..., at[name] : at[name] + layout.groups]

    codes, multipliers = blocks[..., at["q"] :], small("scales") if layout.floating else small("scales").view(np.int8)
    q = unpack_nibbles(codes, 16) if layout.bits == 4 else codes & np.uint8((1 << layout.bits) - 1)
    return BlockParts(
        q.reshape(*lead, layout.groups, layout.width),
        factors("d"),
        factors("m") if layout.minimum else None,
        multipliers if layout.scales else None,
        small("minimums").view(np.int8) if layout.minimum and layout.scales else None,
        small("zeros") if layout.zeros else None,
    )
