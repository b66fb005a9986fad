"""Blocks of -1, 0, 1 without a search, as native code: the bytes of `quant/ternary.py`'s encoders of TQ1_0, TQ2_0 and
Q2_0. (Q1_0's takes no longer in NumPy.)
"""

import numpy as np

from sotol.backends.cpu.kernels.fit import compiled, number
from sotol.backends.cpu.layout import LANES, VECTOR_BYTES
from sotol.backends.cpu.vectors.choosing import choose, truncated
from sotol.backends.cpu.vectors.simd import (
    absolute,
    lane_max,
    load,
    load_i32,
    maximum,
    splat,
    stack,
    store_bytes,
    store_i32,
    to_int,
)  # fmt: skip
from sotol.quant.encoding import BELOW_HALF
from sotol.quant.search import LARGEST
from sotol.quant.ternary import TRIT_RUNS


def _largest_of(values: int):
    """largest(x): the largest magnitude of a block."""
    vectors = values // LANES

    @compiled
    def largest(x):
        most = absolute(load(x))
        for i in range(1, vectors):
            most = maximum(most, absolute(load(x + VECTOR_BYTES * i)))
        return lane_max(most)

    return largest


@compiled
def inverse(d):
    """1 / d, and 0 where that is not finite."""
    quotient = np.float32(1) / d
    return quotient if abs(quotient) < LARGEST else np.float32(0)


@compiled
def codes(x, factor):
    """The codes 0, 1, 2 of 16 numbers in steps, rounded to -1, 0 or 1, halves away from zero."""
    scaled, one, zero = load(x) * factor, number(1), number(0)
    size = choose(absolute(scaled), number(BELOW_HALF), one, zero)
    return one + choose(zero, scaled, zero - size, size)


def block_of_tq2_0(store_half):
    """block(x, out) -> whether d is beyond float16: 64 bytes of 4 codes of 2 bits, 32 numbers apart; d."""
    largest = _largest_of(256)

    @compiled
    def block(x, out):
        d = largest(x)
        factor = splat(inverse(d))
        for half in range(2):
            for part in range(2):
                at = x + VECTOR_BYTES * (8 * half + part)
                byte = codes(at, factor)
                for i in range(1, 4):
                    byte = byte + number(1 << 2 * i) * codes(at + 2 * VECTOR_BYTES * i, factor)
                store_bytes(out + 32 * half + LANES * part, to_int(byte))
        return store_half(out + 64, d)

    return block


def block_of_tq1_0(store_half):
    """block(x, out) -> whether d is beyond float16: runs of bytes of trits, as fractions of 256 / 243; d."""
    largest, trits_of_runs = _largest_of(256), TRIT_RUNS

    @compiled
    def run(x, factor, out, count, trits):
        for part in range(0, count, LANES):
            whole = number(0)
            for i in range(trits):
                whole = whole * number(3) + codes(x + 4 * (count * i + part), factor)
            if trits == 4:
                whole = whole * number(3)
            store_bytes(out + part, to_int(truncated((whole * number(256) + number(242)) / number(243))))

    @compiled
    def block(x, out):
        d = largest(x)
        factor = splat(inverse(d))
        at = x
        for i in range(2):
            first, count, trits = trits_of_runs[i]
            run(at, factor, out + first, count, trits)
            at += 4 * count * trits
        # The last run is 4 bytes: a vector has all its 16 numbers.
        first, count, trits = trits_of_runs[2]
        places = stack(VECTOR_BYTES)
        store_bytes(places, to_int(codes(at, factor)))
        word = load_i32(places)
        for i in range(1, trits):
            word = word * np.int32(3) + load_i32(places + count * i)  # no byte overflows: 80 at most
        four = np.int32(0)
        for i in range(count):
            whole = np.int32(3) * ((word >> np.int32(8 * i)) & np.int32(255))
            four |= np.int32((whole * np.int32(256) + np.int32(242)) // np.int32(243) << np.int32(8 * i))
        store_i32(out + first, four)
        return store_half(out + 52, d)

    return block


def block_of_q2_0(store_half):
    """block(x, out) -> whether d is beyond float16: d, 16 bytes of 4 neighbouring codes of 2 bits."""
    largest = _largest_of(64)

    @compiled
    def block(x, out):
        d = largest(x)
        factor = splat(inverse(d))
        places = stack(VECTOR_BYTES)
        for i in range(4):
            store_bytes(places + LANES * i, to_int(codes(x + VECTOR_BYTES * i, factor)))
        for i in range(4):
            four = np.int32(0)
            for k in range(4):
                word = load_i32(places + LANES * i + 4 * k)
                byte = (word | word >> np.int32(6) | word >> np.int32(12) | word >> np.int32(18)) & np.int32(255)
                four |= byte << np.int32(8 * k)
            store_i32(out + 2 + 4 * i, four)
        return store_half(out, d)

    return block
