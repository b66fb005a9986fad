"""Recurrent layers: a state for each sequence, which its tokens rewrite in order.

A piece is 64 channels of one sequence, for all its tokens in the step, in order. So a state is the same, bit for bit,
wherever a prompt is cut into steps.
"""

import numpy as np

from sotol.backends.cpu.kernel import Kernel
from sotol.backends.cpu.layout import VECTOR_BYTES
from sotol.backends.cpu.target import Target
from sotol.backends.cpu.vectors.simd import fma, load, load_i32, splat, store

PIECE_CHANNELS = 64


def moving_average(_target: Target) -> Kernel:
    """h = decay * h + (1 - decay) * x. slots: the number of each sequence's state; a state has `size` bytes."""

    def pieces(a):
        return a.sequences * ((a.width + PIECE_CHANNELS - 1) // PIECE_CHANNELS)

    def piece(a, p):
        across = (a.width + PIECE_CHANNELS - 1) // PIECE_CHANNELS  # pieces of a sequence
        sequence, channel = p // across, p % across * PIECE_CHANNELS
        begin, end = load_i32(a.starts + 4 * sequence), load_i32(a.starts + 4 * sequence + 4)
        state = a.states + load_i32(a.slots + 4 * sequence) * a.size
        for i in range(4 * channel, 4 * min(channel + PIECE_CHANNELS, a.width), VECTOR_BYTES):
            decay, h = load(a.decay + i), splat(np.float32(0))
            gain = splat(np.float32(1)) - decay
            if load_i32(a.positions + 4 * begin) > 0:
                h = load(state + i)
            for token in range(begin, end):
                h = fma(decay, h, gain * load(a.x + token * a.row + i))
                store(a.out + token * a.row + i, h)
            store(state + i, h)

    return Kernel("sequences:count width row starts positions slots states size decay x out", pieces, piece)
