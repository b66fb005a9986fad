"""Packing a model's matrices into panels, by native code on several threads."""

import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from sotol.backends.cpu.library import Code, Key
from sotol.backends.cpu.panels import ROWS
from sotol.backends.cpu.threads import native
from sotol.formats.weights import Weight

__all__ = ["pack_all", "pack_key"]

UInt8Array = npt.NDArray[np.uint8]
Progress = Callable[[int, int], None]  # matrices packed so far, matrices to pack
PIECE_BYTES = 1 << 20  # of panels: what a thread does at a time


def pack_key(weight: Weight) -> Key:
    """The key of the kernel that packs a matrix."""
    return "pack", weight.encoding.name


def pack_all(work: Sequence[tuple[Weight, UInt8Array, Code]], threads: int, progress: Progress) -> None:
    """Write matrices [N, K] as panels (`panels.pack`): each into uint8 of `panels.packed_shape`, by its kernel."""
    pieces = _pieces(work, progress)
    lock = threading.Lock()

    def drive() -> None:
        while True:
            with lock:
                piece = next(pieces, None)
            if piece is None:
                return
            piece()

    helpers = [threading.Thread(target=drive, name=f"sotol-pack-{i}") for i in range(threads - 1)]
    for helper in helpers:
        helper.start()
    drive()
    for helper in helpers:
        helper.join()


def _pieces(work: Sequence[tuple[Weight, UInt8Array, Code]], progress: Progress) -> Iterator[Callable[[], object]]:
    """The native calls that pack all matrices, in any order."""
    for done, (weight, packed, code) in enumerate(work):
        progress(done, len(work))
        function, rows = native(code), weight.rows()
        count, size = packed.shape
        whole, width = len(rows) // ROWS, rows.shape[1]
        step = max(1, PIECE_BYTES // size)
        for first in range(0, whole, step):
            yield _call(function, rows[first * ROWS :], packed[first:], min(step, whole - first), width)
        if whole < count:
            last = np.zeros((ROWS, width), np.uint8)  # rows beyond the last are zero
            last[: len(rows) - whole * ROWS] = rows[whole * ROWS :]
            yield _call(function, last, packed[whole:], 1, width)
    progress(len(work), len(work))


def _call(
    function: Callable[[int, int, int, int, int], int], rows: UInt8Array, out: UInt8Array, count: int, width: int
) -> Callable[[], object]:
    return lambda: function(rows.ctypes.data, out.ctypes.data, count, width, 0)
