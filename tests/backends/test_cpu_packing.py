"""Packing by native code writes the very bytes of `panels.pack`, its definition."""

import threading

import numpy as np
import pytest

from sotol.backends.cpu import panels
from sotol.backends.cpu.library import library_for
from sotol.backends.cpu.packing import PIECE_BYTES, Packing, pack_key
from sotol.backends.cpu.target import Target, host_target
from sotol.formats.weights import Weight
from sotol.quant import ENCODINGS

RUNNABLE = [name for name, e in ENCODINGS.items() if e.decode is not None]


def matrix(name: str, encoding: str, rows: int, blocks: int) -> Weight:
    """A matrix of random bytes: every pattern of bits must pass."""
    e = ENCODINGS[encoding]
    data = np.random.default_rng(rows * blocks).integers(0, 256, rows * blocks * e.size, np.uint8)
    return Weight(name, e, (rows, blocks * e.values), data)


def packed(weights: list[Weight], target: Target, threads: int) -> list[panels.UInt8Array]:
    """The panels of several matrices, over whatever was in memory."""
    codes = library_for(target).load([pack_key(w) for w in weights])
    outs = [np.full(panels.packed_shape(w), 0xA5, np.uint8) for w in weights]
    work = [(w, out, codes[pack_key(w)]) for w, out in zip(weights, outs, strict=True)]
    Packing(work, threads).wait()
    return outs


def defined(weight: Weight) -> panels.UInt8Array:
    out = np.zeros(panels.packed_shape(weight), np.uint8)
    panels.pack(weight, out)
    return out


@pytest.mark.parametrize("encoding", RUNNABLE)
def test_the_same_bytes(target: Target, encoding: str) -> None:
    """Whole panels, rows beyond the last panel, and fewer rows than a panel has."""
    weights = [matrix("a", encoding, 48, 3), matrix("b", encoding, 37, 1), matrix("c", encoding, 3, 2)]
    for weight, out in zip(weights, packed(weights, target, 2), strict=True):
        np.testing.assert_array_equal(out, defined(weight))


@pytest.mark.parametrize("threads", [1, 3])
def test_a_matrix_of_many_pieces(threads: int) -> None:
    weight = matrix("a", "Q8_0", 4096 + 5, 40)
    assert np.prod(panels.packed_shape(weight)) > 3 * PIECE_BYTES
    (out,) = packed([weight], host_target(), threads)
    np.testing.assert_array_equal(out, defined(weight))


def test_progress_counts_matrices() -> None:
    weights = [matrix(name, "F16", 16, 16) for name in "ab"]
    codes = library_for(host_target()).load([pack_key(w) for w in weights])
    seen: list[tuple[int, int]] = []
    work = [(w, np.empty(panels.packed_shape(w), np.uint8), codes[pack_key(w)]) for w in weights]
    Packing(work, 1).wait(lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


def test_a_failure_is_raised_where_the_weights_are_waited_for() -> None:
    weight = matrix("a", "F16", 16, 16)
    code = library_for(host_target()).load([pack_key(weight)])[pack_key(weight)]
    packing = Packing([(weight, np.empty(3, np.uint8), code)], 2)  # not of two dimensions
    for _ in range(2):
        with pytest.raises(ValueError, match="not enough values to unpack"):
            packing.wait()


def test_stopping_ends_the_threads() -> None:
    weights = [matrix("a", "Q8_0", 4096, 40)]
    codes = library_for(host_target()).load([pack_key(w) for w in weights])
    packing = Packing([(w, np.empty(panels.packed_shape(w), np.uint8), codes[pack_key(w)]) for w in weights], 2)
    packing.stop()
    assert not any(thread.name.startswith("sotol-packing") for thread in threading.enumerate())
