"""Loads and stores of a vector's first lanes only: for rows and heads whose width is not a multiple of 16.

Behind a head lies the next one, which another thread may be writing, and behind the last one memory may end. So the
lanes go one by one through a vector on the stack, and nothing beyond them is read or written.
"""

import numpy as np
from numba import njit

from sotol.backends.cpu.layout import LANES, VECTOR_BYTES
from sotol.backends.cpu.vectors.simd import load, load_f32, splat, stack, store, store_f32


@njit(error_model="numpy")
def load_first(address, count):
    """The first `count` of 16 f32, the other lanes 0; all 16 if count is larger."""
    if count >= LANES:
        return load(address)
    lanes = stack(VECTOR_BYTES)
    store(lanes, splat(np.float32(0)))
    for i in range(0, 4 * count, 4):
        store_f32(lanes + i, load_f32(address + i))
    return load(lanes)


@njit(error_model="numpy")
def store_first(address, v, count):
    """Store the first `count` lanes of a vector; all 16 if count is larger."""
    if count >= LANES:
        store(address, v)
        return
    lanes = stack(VECTOR_BYTES)
    store(lanes, v)
    for i in range(0, 4 * count, 4):
        store_f32(address + i, load_f32(lanes + i))
