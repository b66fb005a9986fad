"""Packing a model's matrices into panels, by native code on several threads, in the background of the loading."""

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from traceback import clear_frames

import numpy as np

from sotol.arrays import UInt8Array
from sotol.backends.cpu.building.library import Code, Key
from sotol.backends.cpu.panels import ROWS, moved_encoding, packed_shape
from sotol.backends.cpu.running.threads import NativeFunction, native_function
from sotol.errors import SotolError, explained, own_copy
from sotol.formats.files import ModelFile, copy_bytes
from sotol.formats.weights import Weight
from sotol.quant import Encoding, recode
from sotol.workers import Workers

__all__ = ["Packing", "cut_into_matrices", "pack_key", "room_for"]

Work = Sequence[tuple[Weight, UInt8Array, Code]]
Piece = Callable[[UInt8Array], None]  # packs some panels; is given the thread's buffer for their rows
CountProgress = Callable[[int, int], None]  # matrices packed so far, matrices to pack
PIECE_BYTES = 1 << 20  # of panels
GLANCE = 0.05  # seconds between two reports of progress


def pack_key(weight: Weight) -> Key:
    """The key of the kernel that packs a matrix, or what its rows are recoded to."""
    return "pack", moved_encoding(weight.encoding).name


def room_for(weight: Weight) -> tuple[int, int]:
    """Panels of a matrix [N, K] or of experts [E, N, K], and the bytes of each."""
    if len(weight.shape) == 2:
        return packed_shape(weight)
    panels, size = packed_shape(weight.expert(0))
    return weight.shape[0] * panels, size


def cut_into_matrices(weight: Weight, packed: UInt8Array) -> Iterator[tuple[Weight, UInt8Array]]:
    """Matrices, each with the room for its panels. Every expert's begin with a panel of their own."""
    if len(weight.shape) == 2:
        yield weight, packed
        return
    count = len(packed) // weight.shape[0]
    for i in range(weight.shape[0]):
        yield weight.expert(i), packed[i * count : (i + 1) * count]


class Packing:
    """Matrices [N, K] becoming panels (`panels.pack`): each goes into uint8 of `panels.packed_shape`, by its kernel.

    files: those that the matrices, and other weights that were read before, are views of. When all is packed, they must
    not have changed since they were opened; then they are closed, as far as nobody else keeps them.
    """

    def __init__(self, work: Work, threads: int, files: Sequence[ModelFile] = ()) -> None:
        """Raises SotolError if the threads can't be started."""
        self._total = len(work)
        self._job = _Job(work, threads, files)
        self._workers = Workers("packing", [self._job.drive] * threads, self._job.stop)
        self._over = False

    def wait(self, progress: CountProgress | None = None) -> None:
        """Wait until all is packed. Raises what a thread failed with, SotolError after `stop`."""
        said, over = 0, self._over
        while not over:
            over = self._workers.wait(None if progress is None else GLANCE)
            done = (
                self._total if over and self._job.error is None else self._job.begun - 1
            )  # the last may be in progress
            while progress is not None and said < done:
                said += 1
                progress(said, self._total)
        self._over = True
        if self._job.error is not None:
            raise own_copy(self._job.error)

    def stop(self) -> None:
        """Stop packing: the model is closed."""
        self._workers.close()


class _Job:
    """The work, shared by the threads."""

    def __init__(self, work: Work, threads: int, files: Sequence[ModelFile]) -> None:
        self.begun = 0
        self.error: Exception | None = None
        self._complete = False
        self._largest = max((_piece_panels(packed) * ROWS * w.row_bytes for w, packed, _ in work), default=0)
        self._pieces, self._files = self._cut(work), files
        self._driving, self._lock = threads, threading.Lock()

    def drive(self) -> None:
        """One thread's work: pieces until none is left; the last thread checks that the files have not changed."""
        try:
            with explained("loading weights"):
                self._work()
        except Exception as error:  # noqa: BLE001  (whatever it is, `wait` raises it)
            clear_frames(error.__traceback__)  # its frames refer to this job, which keeps the error, and to the file
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
        """Make the threads return after their current pieces."""
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
            function, last = native_function(code), weight.row_count
            count = _piece_panels(packed)
            for first in range(0, len(packed), count):
                rows = partial(weight.rows, first * ROWS, min((first + count) * ROWS, last))
                yield partial(_pack, function, weight.encoding, rows, packed[first : first + count])


def _piece_panels(packed: UInt8Array) -> int:
    """How many of a matrix's panels a piece has."""
    count, size = packed.shape
    return min(count, max(1, PIECE_BYTES // size))


def _pack(
    function: NativeFunction,
    encoding: Encoding,
    read: Callable[[], UInt8Array],
    panels: UInt8Array,
    buffer: UInt8Array,
) -> None:
    """Rows to panels. The rows are copied to the buffer first, with zeros for those beyond the last."""
    rows = read()
    whole = buffer[: len(panels) * ROWS * rows.shape[1]]
    copy_bytes(rows, whole[: rows.size])
    whole[rows.size :] = 0
    whole = whole.reshape(-1, rows.shape[1])
    if encoding.recoded is not None:
        whole = recode(encoding, whole)
    function(whole.ctypes.data, panels.ctypes.data, len(panels), whole.shape[1], 0)
