"""Records: what attention keeps of a query row and a span of keys, in f32, until all spans are merged.

    [ weighted sum of values: `width` channels | maximum, 16 equal lanes | sum of weights, 16 equal lanes ]

Weights are exp(score - maximum). `spans.py` computes records and says how; `attention.py` merges them.
"""

import numpy as np
from numba import njit

from sotol.backends.cpu.kernels.first_lanes import store_first
from sotol.backends.cpu.layout import LANES, SPAN_EXTRA, VECTOR_BYTES, WIDEST_HEAD
from sotol.backends.cpu.vectors.simd import exp, fma, lane_sum, load, load_f32, maximum, splat, store
from sotol.backends.cpu.vectors.tiles import LOWEST

RECORD_BYTES = 4 * (WIDEST_HEAD + SPAN_EXTRA)  # of the widest


def records_of(rows: int):
    """open(sums, state, width) and close(…): the records of a register tile before any key, and after the last."""

    @njit(error_model="numpy")
    def open_span(sums, state, width):
        for r in range(rows):
            for i in range(0, 4 * width, VECTOR_BYTES):
                store(sums + 4 * r * (width + SPAN_EXTRA) + i, splat(np.float32(0)))
        store(state, splat(np.float32(LOWEST)))
        for i in range(VECTOR_BYTES, VECTOR_BYTES * (2 + rows), VECTOR_BYTES):
            store(state + i, splat(np.float32(0)))

    @njit(error_model="numpy")
    def close_span(sums, state, width):
        for r in range(rows):
            at = sums + r * 4 * (width + SPAN_EXTRA) + 4 * width
            store(at, splat(load_f32(state + 4 * r)))
            store(at + VECTOR_BYTES, splat(lane_sum(load(state + VECTOR_BYTES * (2 + r)))))

    return open_span, close_span


@njit(error_model="numpy")
def clear_record(total, width):
    """A record of no keys."""
    for i in range(0, 4 * width, VECTOR_BYTES):
        store(total + i, splat(np.float32(0)))
    store(total + 4 * width, splat(np.float32(LOWEST)))
    store(total + 4 * width + VECTOR_BYTES, splat(np.float32(0)))


@njit(error_model="numpy")
def merge_records(total, other, width):
    """total += other, over their common maximum: total * exp(m_total - top) + other * exp(m_other - top)."""
    m_total, m_other = load(total + 4 * width), load(other + 4 * width)
    top = maximum(m_total, m_other)
    old, new = exp(m_total - top), exp(m_other - top)
    store(total + 4 * width, top)
    for i in range(0, 4 * width, VECTOR_BYTES):
        store(total + i, fma(load(total + i), old, load(other + i) * new))
    weights = 4 * width + VECTOR_BYTES
    store(total + weights, fma(load(total + weights), old, load(other + weights) * new))


@njit(error_model="numpy")
def add_sink(total, score, width):
    """total += a score without a value: merged like a record whose sum of values is 0 and whose sum of weights is 1."""
    m_total, sink = load(total + 4 * width), splat(score)
    top = maximum(m_total, sink)
    old = exp(m_total - top)
    store(total + 4 * width, top)
    for i in range(0, 4 * width, VECTOR_BYTES):
        store(total + i, load(total + i) * old)
    weights = 4 * width + VECTOR_BYTES
    store(total + weights, fma(load(total + weights), old, exp(sink - top)))


@njit(error_model="numpy")
def copy_record(source, to, width):
    for i in range(0, 4 * (width + SPAN_EXTRA), VECTOR_BYTES):
        store(to + i, load(source + i))


@njit(error_model="numpy")
def finish_record(total, out, width, padded):
    """out [width] = the sum of values / the sum of weights."""
    for i in range(0, width, LANES):
        weights = load(total + 4 * padded + VECTOR_BYTES)
        store_first(out + 4 * i, load(total + 4 * i) / weights, width - i)
