"""Packing a model's matrices into panels, by native code on several threads while the caller prepares other things."""

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from traceback import clear_frames

import numpy as np
import numpy.typing as npt

from sotol.backends.cpu.building.library import Code, Key
from sotol.backends.cpu.panels import ROWS
from sotol.backends.cpu.running.threads import Native, native
from sotol.errors import SotolError, again, explained
from sotol.formats.files import ModelFile, copy_bytes
from sotol.formats.weights import Weight
from sotol.workers import Workers

__all__ = ["Packing", "pack_key"]

UInt8Array = npt.NDArray[np.uint8]
Work = Sequence[tuple[Weight, UInt8Array, Code]]
Piece = Callable[[UInt8Array], None]  # of the work, given memory of the thread's own
Progress = Callable[[int, int], None]  # matrices packed so far, matrices to pack
PIECE_BYTES = 1 << 20  # of panels: what a thread does at a time
GLANCE = 0.05  # seconds between two reports of progress


def pack_key(weight: Weight) -> Key:
    """The key of the kernel that packs a matrix."""
    return "pack", weight.encoding.name


class Packing:
    """Matrices [N, K] becoming panels (`panels.pack`): each goes into uint8 of `panels.packed_shape`, by its kernel.

    files: what the matrices, and whatever else was taken from them, are views of. When all is packed, they must be as
    they were when they were opened; then they are let go.
    """

    def __init__(self, work: Work, threads: int, files: Sequence[ModelFile] = ()) -> None:
        """Raises SotolError if the threads can't be started."""
        self._total = len(work)
        self._job = _Job(work, threads, files)
        self._workers = Workers("packing", [self._job.drive] * threads, self._job.stop)
        self._over = False

    def wait(self, progress: Progress | None = None) -> None:
        """Until all is packed. Raises what a thread failed with, SotolError if it was stopped."""
        said, over = 0, self._over
        while not over:
            over = self._workers.wait(None if progress is None else GLANCE)
            done = self._total if over and self._job.error is None else self._job.begun - 1  # the last may be under way
            while progress is not None and said < done:
                said += 1
                progress(said, self._total)
        self._over = True
        if self._job.error is not None:
            raise again(self._job.error)

    def stop(self) -> None:
        """Leave the rest: for a model that nobody wants any more."""
        self._workers.close()


class _Job:
    """What the threads share."""

    def __init__(self, work: Work, threads: int, files: Sequence[ModelFile]) -> None:
        self.begun = 0
        self.error: Exception | None = None
        self._complete = False
        self._largest = max((_piece_panels(packed) * ROWS * w.rows().shape[1] for w, packed, _ in work), default=0)
        self._pieces, self._files = self._cut(work), files
        self._driving, self._lock = threads, threading.Lock()

    def drive(self) -> None:
        """A thread's part: pieces until none is left; the last to end looks whether the files have changed."""
        try:
            with explained("loading weights"):
                self._work()
        except Exception as error:  # noqa: BLE001  (whatever it is, `wait` raises it)
            clear_frames(error.__traceback__)  # they refer to us, who keep the error, and to the file
            self._fail(error)

    def _work(self) -> None:
        buffer = np.empty(self._largest, np.uint8)
        while (piece := self._next()) is not None:
            piece(buffer)
        if self._is_last():
            for file in self._files:
                file.check()
            self._complete = self.error is None
            self._let_go()

    def stop(self) -> None:
        """Make the threads return after the pieces that they are at."""
        self._fail(SotolError("the model is closed"))

    def _fail(self, error: Exception) -> None:
        if not self._complete:
            self.error = self.error or error
            self._let_go()

    def _let_go(self) -> None:
        self._pieces, self._files = iter(()), ()

    def _next(self) -> Piece | None:
        with self._lock:
            return next(self._pieces, None)

    def _is_last(self) -> bool:
        with self._lock:
            self._driving -= 1
            return self._driving == 0

    def _cut(self, work: Work) -> Iterator[Piece]:
        """Calls that together pack all matrices, in any order; they keep alive what they read and write."""
        for self.begun, (weight, packed, code) in enumerate(work, 1):
            function, rows = native(code), weight.rows()
            step = _piece_panels(packed)
            for first in range(0, len(packed), step):
                panels = packed[first : first + step]
                yield partial(_pack, function, rows[first * ROWS : (first + step) * ROWS], panels)


def _piece_panels(packed: UInt8Array) -> int:
    """How many of a matrix's panels are one piece of work."""
    count, size = packed.shape
    return min(count, max(1, PIECE_BYTES // size))


def _pack(function: Native, rows: UInt8Array, panels: UInt8Array, buffer: UInt8Array) -> None:
    """Rows to panels, by way of the buffer; rows beyond the last are zero."""
    flat, whole = rows.reshape(-1), buffer[: len(panels) * ROWS * rows.shape[1]]
    copy_bytes(flat, whole[: len(flat)])
    whole[len(flat) :] = 0
    function(whole.ctypes.data, panels.ctypes.data, len(panels), rows.shape[1], 0)
