"""Weights in their new encodings, made by several threads: each some rows at once, given in order.

No weight is ever whole in memory, but for an expert whose rows its source can only read together.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np

from sotol.arrays import Float32Array, UInt8Array
from sotol.backends.cpu.running.fitting import Encoder
from sotol.backends.cpu.running.threads import default_threads
from sotol.errors import ModelError
from sotol.formats.files import copied, copied_rows
from sotol.formats.weights import Weight
from sotol.quant import Encoding
from sotol.tools.encoding import Planned
from sotol.tools.in_order import in_order

__all__ = ["EncodingThreads"]

PIECE_VALUES = 1 << 18  # numbers that a thread encodes at once
# Of experts, numbers that are read at once: sources of transposed ones read a whole expert for any of its rows.
EXPERT_VALUES = 1 << 24


class EncodingThreads:
    """Threads that encode. They end with the `with` block; what they have not begun by then is left out."""

    def __init__(
        self,
        encoder: Encoder,
        threads: int | None = None,
        told: Callable[[int], None] = lambda _: None,
    ) -> None:
        """threads: as many as there are cores, unless given. told: of bytes, after each piece that was taken."""
        self._encoder, self._told = encoder, told
        self._count = threads or default_threads()
        self._pool = ThreadPoolExecutor(self._count)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)

    def rows(self, plan: Planned, importance: Float32Array | None = None) -> Iterator[UInt8Array]:
        """The bytes of a weight in its new encoding, in order; as they are where that is its own.

        importance: [matrices, K], how much each column counts. ModelError for numbers that the encoding can't hold.
        """
        weight, encoding = plan
        if weight.encoding.name == encoding.name:
            return self._counted(copied_rows(weight))
        return self.made(self._pieces(weight, encoding, importance))

    def made(self, tasks: Iterable[Callable[[], UInt8Array]]) -> Iterator[UInt8Array]:
        """What calls give, in order. Several of them run at once."""
        return self._counted(in_order(self._pool, self._count, tasks))

    def _counted(self, pieces: Iterable[UInt8Array]) -> Generator[UInt8Array, None, None]:
        for piece in pieces:
            yield piece
            self._told(piece.size)

    def _pieces(
        self, weight: Weight, encoding: Encoding, importance: Float32Array | None
    ) -> Iterator[partial[UInt8Array]]:
        """Calls that encode a weight's rows in order, each some of one matrix."""
        rows = weight.shape[-2] if len(weight.shape) > 1 else 1
        each = max(1, (EXPERT_VALUES if len(weight.shape) > 2 else PIECE_VALUES) // weight.shape[-1])
        for matrix in range(weight.row_count // rows):
            counts = None if importance is None else importance[matrix]
            for first in range(0, rows, each):
                begin, end = matrix * rows + first, matrix * rows + min(first + each, rows)
                yield partial(_encode, self._encoder, weight, begin, end, encoding, counts)


def _encode(
    encoder: Encoder, weight: Weight, first: int, end: int, encoding: Encoding, importance: Float32Array | None
) -> UInt8Array:
    """Rows first … end - 1 as bytes of the encoding, flat."""
    rows = copied(weight.rows(first, end))
    assert weight.encoding.decode is not None
    out = np.empty((end - first, weight.shape[-1] // encoding.values * encoding.size), np.uint8)
    each = max(1, PIECE_VALUES // weight.shape[-1])
    for begin in range(0, end - first, each):  # no more numbers of 32 bits at once
        part = slice(begin, begin + each)
        try:
            out[part] = encoder.encode(encoding, weight.encoding.decode(rows[part]), importance)
        except ValueError as error:
            where = f"rows {first + begin} to {min(first + begin + each, end) - 1}"
            raise ModelError(f"weight {weight.name}, {where}, can't be {encoding.name}: {error}") from None
    return out.reshape(-1)
