"""A vector's first lanes: for rows and heads whose width is no multiple of 16, since what lies behind is not theirs.

The lanes go through a vector on the stack one by one, so that nothing beyond them is read or written on any CPU: behind
a head lies the next one, which another thread may be writing, and behind the last one there may be no memory.
"""

import numpy as np
from numba import njit

from sotol.backends.cpu.vectors.simd import load, load_f32, splat, stack, store, store_f32


@njit(error_model="numpy")
def load_part(address, count):
    """The first `count` of 16 f32; the other lanes are 0. All, if count is 16 or more."""
    if count >= 16:
        return load(address)
    lanes = stack(64)
    store(lanes, splat(np.float32(0)))
    for i in range(0, 4 * count, 4):
        store_f32(lanes + i, load_f32(address + i))
    return load(lanes)


@njit(error_model="numpy")
def store_part(address, v, count):
    """Store the first `count` lanes of a vector; all, if count is 16 or more."""
    if count >= 16:
        store(address, v)
        return
    lanes = stack(64)
    store(lanes, v)
    for i in range(0, 4 * count, 4):
        store_f32(address + i, load_f32(lanes + i))
