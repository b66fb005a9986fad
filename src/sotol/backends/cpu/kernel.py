"""What a file of `kernels/` declares a kernel as. Imports neither Numba nor any kernel."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Kernel"]


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel before it is compiled: two functions of its arguments `a`, whose fields it reads by name.

    fields: names and kinds of the arguments (`layout.parse_fields`). pieces(a): the number of pieces of its work, by
    shapes and results of earlier phases, never by the number of threads; what it reads may not change before the step
    ends, since a late thread may ask again. piece(a, p): does piece p. Pieces may run at
    the same time, on any threads, in any order.
    """

    fields: str
    pieces: Callable[..., Any]
    piece: Callable[..., Any]
