"""One or two bits a number, and one float16 for a whole block: TQ1_0 and TQ2_0 (-1, 0, 1), Q1_0 (-1, 1), Q2_0 (-1 … 2).

Layouts and rounding: ggml's `block_tq1_0`, `block_tq2_0`, `block_q1_0`, `block_q2_0` and `quantize_row_*_ref`
(ggml-common.h, ggml-quants.c). They are made for models that were trained to have such weights (BitNet b1.58,
arXiv:2402.17764), which they hold exactly.

TQ1_0 has five numbers in a byte, its trits. The byte is not their sum t0 * 81 + … + t4, below 243, but that times
256 / 243, rounded up: a fraction in base 3, of which byte * 3^i mod 256 drops the first i digits, and the upper part of
that times 3 is the next one.
"""

import numpy as np

from sotol.quant.encoding import (
    Encoding,
    as_blocks,
    halves,
    integer_encoding,
    pack_neighbours,
    pack_shared,
    require_range,
    to_half,
    unpack_upper,
)
from sotol.quant.layout import BlockParts, Float32Array, Layout, UInt8Array
from sotol.quant.search import over

__all__ = ["TERNARY"]

# Of a block of TQ1_0: first byte, bytes, trits of each. Trit i of a run's bytes are neighbouring numbers.
TRIT_RUNS = ((0, 32, 5), (32, 16, 5), (48, 4, 4))


def split_tq1_0(data: UInt8Array) -> BlockParts:
    """52 bytes of trits, d."""
    blocks = as_blocks(data, 54)
    q = np.empty((*blocks.shape[:-1], 256), np.uint8)
    at = 0
    for first, count, trits in TRIT_RUNS:
        packed = blocks[..., first : first + count]
        for i in range(trits):
            fraction = packed * np.uint8(3**i)
            q[..., at : at + count] = (fraction.astype(np.uint16) * np.uint16(3)) >> np.uint16(8)
            at += count
    return BlockParts(q[..., None, :], halves(blocks, 52))


def split_tq2_0(data: UInt8Array) -> BlockParts:
    """2 times 32 bytes of 4 runs of 32 numbers, the first in bits 0-1; d."""
    blocks = as_blocks(data, 66)
    runs = unpack_upper(blocks[..., :64].reshape(*blocks.shape[:-1], 2, 32), 2, at=0)
    return BlockParts(runs.reshape(*blocks.shape[:-1], 1, 256), halves(blocks, 64))


def split_q1_0(data: UInt8Array) -> BlockParts:
    """d, 16 bytes whose bits are neighbours, bit 0 first."""
    blocks = as_blocks(data, 18)
    return BlockParts(np.unpackbits(blocks[..., None, 2:], axis=-1, bitorder="little"), halves(blocks, 0))


def split_q2_0(data: UInt8Array) -> BlockParts:
    """d, 16 bytes whose bit pairs are neighbours, bits 0-1 first."""
    blocks = as_blocks(data, 18)
    pairs = (blocks[..., 2:, None] >> np.array([0, 2, 4, 6], np.uint8)) & np.uint8(3)
    return BlockParts(pairs.reshape(*blocks.shape[:-1], 1, 64), halves(blocks, 0))


def round_to_steps(x: Float32Array, values: int) -> tuple[UInt8Array, UInt8Array]:
    """Blocks of `values` numbers as steps of their largest magnitude, -1, 0 or 1: codes that are 1 more, and d."""
    blocks = as_blocks(np.asarray(x, np.float32), values)
    require_range(blocks)
    d = np.abs(blocks).max(-1, keepdims=True)
    scaled = blocks * over(np.float32(1), d)
    steps = np.sign(scaled) * (np.abs(scaled) >= np.float32(0.5))  # none is larger than one: 0, or 1 with a sign
    return (steps + 1).astype(np.uint8), to_half(d).view(np.uint8)


def flat(*parts: UInt8Array) -> UInt8Array:
    """Parts [..., B, n] of blocks, one after the other: [..., B * bytes of all]."""
    blocks = np.concatenate(parts, axis=-1)
    return blocks.reshape(*blocks.shape[:-2], -1)


def encode_tq1_0(x: Float32Array) -> UInt8Array:
    """[..., B * 256] -> [..., B * 54] bytes."""
    q, d = round_to_steps(x, 256)
    parts, at = list[UInt8Array](), 0
    for _, count, trits in TRIT_RUNS:
        run = q[..., at : at + count * trits].reshape(*q.shape[:-1], trits, count).astype(np.uint16)
        whole = (run * (3 ** np.arange(4, 4 - trits, -1, dtype=np.uint16))[:, None]).sum(axis=-2, dtype=np.uint16)
        parts.append(((whole * np.uint32(256) + np.uint32(242)) // np.uint32(243)).astype(np.uint8))
        at += count * trits
    return flat(*parts, d)


def encode_tq2_0(x: Float32Array) -> UInt8Array:
    """[..., B * 256] -> [..., B * 66] bytes."""
    q, d = round_to_steps(x, 256)
    return flat(pack_shared(q.reshape(*q.shape[:-1], 2, 4, 32), 2).reshape(*q.shape[:-1], 64), d)


def encode_q1_0(x: Float32Array) -> UInt8Array:
    """[..., B * 128] -> [..., B * 18] bytes: signs, and the mean of the magnitudes."""
    blocks = as_blocks(np.asarray(x, np.float32), 128)
    require_range(blocks)
    d = to_half(np.abs(blocks).mean(-1, keepdims=True, dtype=np.float32))
    return flat(d.view(np.uint8), np.packbits(blocks >= 0, axis=-1, bitorder="little"))


def encode_q2_0(x: Float32Array) -> UInt8Array:
    """[..., B * 64] -> [..., B * 18] bytes: as GGML's, which uses the number 2 for nothing."""
    q, d = round_to_steps(x, 64)
    return flat(d, pack_neighbours(q))


TRITS = Layout(2, 256, numbers=1)

TERNARY: tuple[Encoding, ...] = (
    integer_encoding(
        "TQ1_0", ggml_type=34, size=54, layout=TRITS, split=split_tq1_0, encode=encode_tq1_0, recoded=True
    ),
    integer_encoding("TQ2_0", ggml_type=35, size=66, layout=TRITS, split=split_tq2_0, encode=encode_tq2_0),
    integer_encoding(
        "Q1_0", ggml_type=41, size=18, layout=Layout(1, 128, numbers=(-1, 1)), split=split_q1_0, encode=encode_q1_0
    ),
    integer_encoding(
        "Q2_0", ggml_type=42, size=18, layout=Layout(2, 64, numbers=1), split=split_q2_0, encode=encode_q2_0
    ),
)
