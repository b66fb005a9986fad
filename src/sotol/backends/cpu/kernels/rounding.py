"""Blocks without a search, as native code: the table of all, and the bytes of `quant/legacy.py`'s encoders.

A block of these is 32 numbers, two vectors; what is said of all of it, such as its largest number, goes across their
lanes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numba import njit

from sotol.backends.cpu.kernels import e2m1, ternary
from sotol.backends.cpu.layout import VECTOR_BYTES
from sotol.backends.cpu.target import Target
from sotol.backends.cpu.vectors.choosing import choose, half_storer, lanes_above, truncated
from sotol.backends.cpu.vectors.simd import (
    absolute,
    lane_max,
    load,
    load_f32,
    maximum,
    splat,
    store_bytes,
    store_i32,
    to_int,
)  # fmt: skip
from sotol.quant.encoding import BELOW_HALF

WIDTH = 32

compiled = njit(error_model="numpy")


def round_blocks(target: Target, name: str):
    """round_blocks(x, out, blocks, 0, 0) -> in how many blocks a factor is beyond its type: f32 to blocks at out."""
    values, size, factory = ROUNDERS[name]
    block, block_bytes = factory(half_storer(target.f16)), 4 * values

    def round_all(x, out, blocks, _4, _5):
        beyond = 0
        for i in range(blocks):
            beyond += block(x + block_bytes * i, out + size * i)
        return beyond

    return round_all


@compiled
def inverse(d):
    """1 / d, and 0 where that is not finite."""
    quotient = np.float32(1) / d
    return quotient if abs(quotient) < np.float32(np.inf) else np.float32(0)


@compiled
def largest(low, high, at):
    """The number of largest magnitude of a block, the first one of several."""
    most = lane_max(maximum(low, high))
    least = -lane_max(maximum(splat(np.float32(0)) - low, splat(np.float32(0)) - high))
    if most != -least:
        return most if most > -least else least
    for i in range(WIDTH):
        if abs(load_f32(at + 4 * i)) == most:
            return load_f32(at + 4 * i)
    return most


def _whole_bytes(store_half):
    """Q8_0: -127 … 127, halves away from zero."""

    @compiled
    def code(v, factor):
        scaled = v * factor
        zero = splat(np.float32(0))
        size = truncated(absolute(scaled) + splat(BELOW_HALF))
        return to_int(choose(zero, scaled, zero - size, size))

    @compiled
    def block(at, out):
        low, high = load(at), load(at + VECTOR_BYTES)
        d = lane_max(maximum(absolute(low), absolute(high))) / np.float32(127)
        factor = splat(inverse(d))
        beyond = store_half(out, d)
        store_bytes(out + 2, code(low, factor))
        store_bytes(out + 18, code(high, factor))
        return beyond

    return block


def _codes_storer(bits: int):
    """store(out, low, high): the codes of a block, with the fifth bits before them, if there are any."""

    @compiled
    def store_four(out, low, high):
        store_bytes(out, to_int(low + high * splat(np.float32(16))))

    @compiled
    def store_five(out, low, high):
        edge, sixteen, zero = splat(np.float32(15.5)), splat(np.float32(16)), splat(np.float32(0))
        store_i32(out, np.int32(lanes_above(low, edge) | lanes_above(high, edge) << 16))
        low, high = low - choose(low, edge, sixteen, zero), high - choose(high, edge, sixteen, zero)
        store_four(out + 4, low, high)

    return store_four if bits == 4 else store_five


def _symmetric(store_half, bits: int):
    """Q4_0 and Q5_0: the number of largest magnitude gets code 0."""
    middle, store_codes = 1 << (bits - 1), _codes_storer(bits)

    @compiled
    def code(v, factor):
        q = truncated(v * factor + splat(np.float32(middle + 0.5)))
        top = splat(np.float32(2 * middle - 1))
        return choose(q, top, top, q)

    @compiled
    def block(at, out):
        low, high = load(at), load(at + VECTOR_BYTES)
        d = largest(low, high, at) / np.float32(-middle)
        factor = splat(inverse(d))
        beyond = store_half(out, d)
        store_codes(out + 2, code(low, factor), code(high, factor))
        return beyond

    return block


def _ranged(store_half, bits: int):
    """Q4_1 and Q5_1: the codes divide the range from the least to the largest number."""
    steps, store_codes = (1 << bits) - 1, _codes_storer(bits)

    @compiled
    def code(v, least, factor):
        q = truncated((v - least) * factor + splat(np.float32(0.5)))
        top = splat(np.float32(steps))
        return choose(q, top, top, q)

    @compiled
    def block(at, out):
        low, high = load(at), load(at + VECTOR_BYTES)
        most = lane_max(maximum(low, high))
        zero = splat(np.float32(0))
        least = np.float32(0) - lane_max(maximum(zero - low, zero - high))
        d = (most - least) / np.float32(steps)
        factor, start = splat(inverse(d)), splat(least)
        beyond = store_half(out, d) + store_half(out + 2, least)
        store_codes(out + 4, code(low, start, factor), code(high, start, factor))
        return beyond

    return block


# Numbers of a block, its bytes, and a factory: block(x, out) -> whether a factor is beyond what its type holds.
ROUNDERS: dict[str, tuple[int, int, Callable[[Any], Any]]] = {
    "Q8_0": (32, 34, _whole_bytes),
    "Q4_0": (32, 18, partial(_symmetric, bits=4)),
    "Q5_0": (32, 22, partial(_symmetric, bits=5)),
    "Q4_1": (32, 20, partial(_ranged, bits=4)),
    "Q5_1": (32, 24, partial(_ranged, bits=5)),
    "MXFP4": (32, 17, e2m1.block_of_mxfp4),
    "NVFP4": (64, 36, e2m1.block_of_nvfp4),
    "TQ1_0": (256, 54, ternary.block_of_tq1_0),
    "TQ2_0": (256, 66, ternary.block_of_tq2_0),
    "Q2_0": (64, 18, ternary.block_of_q2_0),
}
