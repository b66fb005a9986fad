"""Packing a model's matrices into panels, by native code on several threads while the caller prepares other things."""

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from sotol.backends.cpu.library import Code, Key
from sotol.backends.cpu.panels import ROWS
from sotol.backends.cpu.threads import native
from sotol.formats.weights import Weight, release_pages

__all__ = ["Packing", "pack_key"]

UInt8Array = npt.NDArray[np.uint8]
Work = Sequence[tuple[Weight, UInt8Array, Code]]
Progress = Callable[[int, int], None]  # matrices packed so far, matrices to pack
PIECE_BYTES = 1 << 20  # of panels: what a thread does at a time
GLANCE = 0.05  # seconds between two reports of progress


def pack_key(weight: Weight) -> Key:
    """The key of the kernel that packs a matrix."""
    return "pack", weight.encoding.name


class Packing:
    """Matrices [N, K] becoming panels (`panels.pack`): each goes into uint8 of `panels.packed_shape`, by its kernel."""

    def __init__(self, work: Work, threads: int) -> None:
        self._total = len(work)
        self._job = _Job(work)
        self._threads = [
            # They may be lost at the end of the process: nothing is left half done but memory.
            threading.Thread(target=self._job.drive, name=f"sotol-packing-{i}", daemon=True)
            for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def wait(self, progress: Progress | None = None) -> None:
        """Until all is packed. Raises what a thread failed with."""
        said = 0
        while self._threads:
            self._threads[-1].join(None if progress is None else GLANCE)
            if not self._threads[-1].is_alive():
                self._threads.pop()
            done = self._job.begun - 1 if self._threads else self._total  # the last begun may still be under way
            while progress is not None and said < done:
                said += 1
                progress(said, self._total)
        if self._job.error is not None:
            raise self._job.error

    def stop(self) -> None:
        """Leave the rest: for a model that nobody wants any more."""
        self._job.stopped = True
        for thread in self._threads:
            thread.join()


class _Job:
    """What the threads share."""

    def __init__(self, work: Work) -> None:
        self.begun, self.stopped = 0, False
        self._pieces, self._lock = self._cut(work), threading.Lock()
        self.error: Exception | None = None

    def drive(self) -> None:
        """A thread's part: pieces until none is left."""
        try:
            while (piece := self._next()) is not None:
                piece()
        except Exception as error:  # noqa: BLE001  (whatever it is, `wait` raises it)
            self.error, self.stopped = error, True

    def _next(self) -> Callable[[], object] | None:
        with self._lock:
            return None if self.stopped else next(self._pieces, None)

    def _cut(self, work: Work) -> Iterator[Callable[[], object]]:
        """Native calls that together pack all matrices, in any order; they keep alive what they read and write."""
        for self.begun, (weight, packed, code) in enumerate(work, 1):
            function, rows = native(code), weight.rows()
            count, size = packed.shape
            whole, width = len(rows) // ROWS, rows.shape[1]
            step = max(1, PIECE_BYTES // size)
            for first in range(0, whole, step):
                part = slice(first, min(first + step, whole))
                yield partial(_pack, function, rows[part.start * ROWS : part.stop * ROWS], packed[part])
            if whole < count:
                last = np.zeros((ROWS, width), np.uint8)  # rows beyond the last are zero
                last[: len(rows) - whole * ROWS] = rows[whole * ROWS :]
                yield partial(_pack, function, last, packed[whole:])


def _pack(function: Callable[[int, int, int, int, int], int], rows: UInt8Array, panels: UInt8Array) -> None:
    function(rows.ctypes.data, panels.ctypes.data, len(panels), rows.shape[1], 0)
    release_pages(rows)  # nobody reads them again: a model is in memory once, not twice
