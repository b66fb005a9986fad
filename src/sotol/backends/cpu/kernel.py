"""How a kernel's file declares it. Knows neither Numba nor any kernel."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Kernel"]


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel before it is compiled.

    fields: the argument block (`layout.parse_fields`). pieces(a): how many pieces its work has, from shapes and from
    what earlier phases of the step wrote, never from threads. piece(a, p): does piece p; pieces may run at once, on any
    thread, in any order.
    """

    fields: str
    pieces: Callable[..., Any]
    piece: Callable[..., Any]
