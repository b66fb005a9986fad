"""Recurrent layers: a state for each sequence, which its tokens rewrite in order.

A piece is some channels of one sequence, for all its tokens in the step, in order. So a state is the same, bit for bit,
wherever a prompt is cut into steps. Channels of a state are independent of each other: a piece's part of it stays in
the first-level cache, or in registers, while the tokens pass.

A state of matrices, [H, d, e] in the op, lies as [H, e / 16, d, 16]: a vector has 16 of a row's channels, and the d
vectors of a piece lie side by side. Sums over d go lane by lane, with no sum across a vector.
"""

import numpy as np
from numba import njit

from sotol.backends.cpu.kernel import Kernel
from sotol.backends.cpu.kernels.elementwise import silu
from sotol.backends.cpu.kernels.first_lanes import load_first, store_first
from sotol.backends.cpu.layout import LANES, MOST_TAPS, VECTOR_BYTES
from sotol.backends.cpu.target import Target
from sotol.backends.cpu.vectors.simd import (
    absolute,
    exp,
    fma,
    lane_sum,
    load,
    load_f32,
    load_i32,
    maximum,
    splat,
    sqrt,
    stack,
    store,
)

PIECE_CHANNELS = 64


def _channel_pieces(a):
    """The number of pieces of 64 channels of all sequences."""
    return a.sequences * ((a.width + PIECE_CHANNELS - 1) // PIECE_CHANNELS)


@njit(error_model="numpy")
def _place(a, sequence):
    """A sequence's first token, its end, the address of its state, and whether it goes on from there."""
    begin, end = load_i32(a.starts + 4 * sequence), load_i32(a.starts + 4 * sequence + 4)
    state = a.states + load_i32(a.slots + 4 * sequence) * a.size
    return begin, end, state, load_i32(a.positions + 4 * begin) > 0


def moving_average(_target: Target) -> Kernel:
    """h = decay * h + (1 - decay) * x. slots: the number of each sequence's state; a state has `size` bytes."""

    def piece(a, p):
        across = (a.width + PIECE_CHANNELS - 1) // PIECE_CHANNELS  # pieces of a sequence
        channel = p % across * PIECE_CHANNELS
        begin, end, state, going_on = _place(a, p // across)
        for i in range(4 * channel, 4 * min(channel + PIECE_CHANNELS, a.width), VECTOR_BYTES):
            decay, h = load(a.decay + i), splat(np.float32(0))
            gain = splat(np.float32(1)) - decay
            if going_on:
                h = load(state + i)
            for token in range(begin, end):
                h = fma(decay, h, gain * load(a.x + token * a.row + i))
                store(a.out + token * a.row + i, h)
            store(state + i, h)

    return Kernel("sequences:count width row starts positions slots states size decay x out", _channel_pieces, piece)


@njit(error_model="numpy")
def _same(x):
    return x


def convolve(_target: Target, act: str) -> Kernel:
    """act(bias + the last `taps` inputs of each channel, each times its weight), the oldest first.

    weight: [taps, channels]; a state has as many rows less one. All rows are `row` bytes apart.
    """
    active = {"none": _same, "silu": silu}[act]
    room = MOST_TAPS * VECTOR_BYTES

    def piece(a, p):
        across = (a.width + PIECE_CHANNELS - 1) // PIECE_CHANNELS
        channel = p % across * PIECE_CHANNELS
        begin, end, state, going_on = _place(a, p // across)
        kept, before = stack(room), a.taps - 1  # inputs before the step's
        for i in range(4 * channel, 4 * min(channel + PIECE_CHANNELS, a.width), VECTOR_BYTES):
            for k in range(before):
                store(kept + VECTOR_BYTES * k, load(state + k * a.row + i) if going_on else splat(np.float32(0)))
            for token in range(begin, end):
                total = load(a.bias + i)
                for k in range(a.taps):
                    at = token - before + k
                    x = a.x + at * a.row + i if at >= begin else kept + VECTOR_BYTES * (at - begin + before)
                    total = fma(load(a.weight + k * a.row + i), load(x), total)
                store(a.out + token * a.row + i, active(total))
            for k in range(before):
                at = end - before + k
                x = a.x + at * a.row + i if at >= begin else kept + VECTOR_BYTES * (at - begin + before)
                store(state + k * a.row + i, load(x))

    fields = "sequences:count width row taps starts positions slots states size weight bias x out"
    return Kernel(fields, _channel_pieces, piece)


@njit(error_model="numpy")
def softplus(x):
    """log(1 + e**x), with an error of a few units in the last place for small results, too.

    It is max(x, 0) + log(1 + u) for u = e**-|x|, and log(1 + u) is twice the inverse hyperbolic tangent of u / (u + 2),
    which is at most 1/3: nine terms of its series.
    """
    u = exp(splat(np.float32(0)) - absolute(x))
    s = u / (u + splat(np.float32(2)))
    z = s * s
    series = splat(np.float32(1 / 17))
    series = fma(series, z, splat(np.float32(1 / 15)))
    series = fma(series, z, splat(np.float32(1 / 13)))
    series = fma(series, z, splat(np.float32(1 / 11)))
    series = fma(series, z, splat(np.float32(1 / 9)))
    series = fma(series, z, splat(np.float32(1 / 7)))
    series = fma(series, z, splat(np.float32(1 / 5)))
    series = fma(series, z, splat(np.float32(1 / 3)))
    series = fma(series, z, splat(np.float32(1)))
    return maximum(splat(np.float32(0)), x) + (s + s) * series


def time_steps(_target: Target) -> Kernel:
    """Steps softplus(x + bias), and e**(rate * step). A piece is a row."""

    def pieces(a):
        return a.rows

    def piece(a, p):
        row = p * a.width * 4
        for i in range(0, a.width * 4, VECTOR_BYTES):
            step = softplus(load(a.x + row + i) + load(a.bias + i))
            store(a.out + row + i, step)
            store(a.decay + row + i, exp(load(a.rate + i) * step))

    return Kernel("rows:count width bias rate x out decay", pieces, piece)


# ---- states of matrices


def _matrix_pieces(a):
    """The number of pieces of 16 channels of a head's values, of all sequences."""
    return a.sequences * a.heads * ((a.value_width + LANES - 1) // LANES)


@njit(error_model="numpy")
def _matrix_place(a, p):
    """Of piece p: its head, its first channel, how many it has, and as `_place` says, of its part of the state."""
    tiles = (a.value_width + LANES - 1) // LANES
    tile, head = p % tiles, p // tiles % a.heads
    begin, end, state, going_on = _place(a, p // (tiles * a.heads))
    state += (head * tiles + tile) * a.key_width * VECTOR_BYTES
    if not going_on:
        for i in range(a.key_width):
            store(state + VECTOR_BYTES * i, splat(np.float32(0)))
    return head, tile * LANES, min(LANES, a.value_width - tile * LANES), begin, end, state


@njit(error_model="numpy")
def _read(state, width, key):
    """S' k: four sums in turn, so that one need not wait for the other."""
    first = second = third = fourth = splat(np.float32(0))
    whole = width // 4 * 4
    for i in range(0, whole, 4):
        s, k = state + VECTOR_BYTES * i, key + 4 * i
        first = fma(load(s), splat(load_f32(k)), first)
        second = fma(load(s + VECTOR_BYTES), splat(load_f32(k + 4)), second)
        third = fma(load(s + 2 * VECTOR_BYTES), splat(load_f32(k + 8)), third)
        fourth = fma(load(s + 3 * VECTOR_BYTES), splat(load_f32(k + 12)), fourth)
    for i in range(whole, width):
        first = fma(load(state + VECTOR_BYTES * i), splat(load_f32(key + 4 * i)), first)
    return (first + second) + (third + fourth)


@njit(error_model="numpy")
def _row(state, decay, key, change, query, total):
    """One vector s of a state becomes decay s + k change; returns total + s q. key, query: addresses of k and q."""
    s = fma(splat(load_f32(key)), change, decay * load(state))
    store(state, s)
    return fma(s, splat(load_f32(query)), total)


@njit(error_model="numpy")
def _update(state, width, decay, key, change, query):
    """S = decay S + k change'; returns S' q, in four sums as `_read`."""
    first = second = third = fourth = splat(np.float32(0))
    whole = width // 4 * 4
    for i in range(0, whole, 4):
        s, k, q = state + VECTOR_BYTES * i, key + 4 * i, query + 4 * i
        first = _row(s, decay, k, change, q, first)
        second = _row(s + VECTOR_BYTES, decay, k + 4, change, q + 4, second)
        third = _row(s + 2 * VECTOR_BYTES, decay, k + 8, change, q + 8, third)
        fourth = _row(s + 3 * VECTOR_BYTES, decay, k + 12, change, q + 12, fourth)
    for i in range(whole, width):
        first = _row(state + VECTOR_BYTES * i, decay, key + 4 * i, change, query + 4 * i, first)
    return (first + second) + (third + fourth)


@njit(error_model="numpy")
def _inverse_length(x, width, eps):
    """1 / the length of a vector of `width` numbers, to whose square eps is added."""
    total = splat(np.float32(0))
    for i in range(0, width, LANES):
        v = load_first(x + 4 * i, width - i)
        total = fma(v, v, total)
    return np.float32(1) / sqrt(lane_sum(total) + eps)


def delta_rule(_target: Target, tiled: int) -> Kernel:
    """The gated delta rule (`recurrent_ops.delta_rule`). Rows of mixed are `mixed_row` bytes apart, those of decay and
    gain `head_row`, those of out `out_row`. scale: of queries; eps: see the op.
    """

    def piece(a, p):
        head, channel, count, begin, end, state = _matrix_place(a, p)
        shared = head % a.key_heads if tiled else head // (a.heads // a.key_heads)
        for token in range(begin, end):
            query = a.mixed + token * a.mixed_row + 4 * shared * a.key_width
            key = query + 4 * a.key_heads * a.key_width
            value = a.mixed + token * a.mixed_row + 4 * (2 * a.key_heads * a.key_width + head * a.value_width + channel)
            decay = splat(load_f32(a.decay + token * a.head_row + 4 * head))
            gain = splat(load_f32(a.gain + token * a.head_row + 4 * head))
            # Keys and queries are not divided by their length: what is made of them is.
            of_key = splat(_inverse_length(key, a.key_width, a.eps))
            of_query = splat(_inverse_length(query, a.key_width, a.eps) * a.scale)
            known = decay * (of_key * _read(state, a.key_width, key))
            change = of_key * (gain * (load_first(value, count) - known))
            read = of_query * _update(state, a.key_width, decay, key, change, query)
            store_first(a.out + token * a.out_row + 4 * (head * a.value_width + channel), read, count)

    fields = (
        "sequences:count heads key_heads key_width value_width scale:f32 eps:f32 starts positions slots states size "
        "mixed mixed_row decay gain head_row out out_row"
    )
    return Kernel(fields, _matrix_pieces, piece)


def selective_scan(_target: Target) -> Kernel:
    """Mamba-2's scan (`recurrent_ops.selective_scan`). Rows of mixed are `mixed_row` bytes apart, those of steps and
    decay `head_row`, those of out `out_row`. key_width: numbers of a state for each channel.
    """

    def piece(a, p):
        head, channel, count, begin, end, state = _matrix_place(a, p)
        group = head // (a.heads // a.groups)
        skip, inner = splat(load_f32(a.skip + 4 * head)), a.heads * a.value_width
        for token in range(begin, end):
            row = a.mixed + token * a.mixed_row
            b = row + 4 * (inner + group * a.key_width)
            c = b + 4 * a.groups * a.key_width
            x = load_first(row + 4 * (head * a.value_width + channel), count)
            decay = splat(load_f32(a.decay + token * a.head_row + 4 * head))
            change = splat(load_f32(a.steps + token * a.head_row + 4 * head)) * x
            read = fma(skip, x, _update(state, a.key_width, decay, b, change, c))
            store_first(a.out + token * a.out_row + 4 * (head * a.value_width + channel), read, count)

    fields = (
        "sequences:count heads groups key_width value_width starts positions slots states size mixed mixed_row steps "
        "decay head_row skip out out_row"
    )
    return Kernel(fields, _matrix_pieces, piece)
