"""A thread whose floats are not as by default: other libraries of a program may have it so."""

import ctypes
import ctypes.util
import platform
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["unusual_floats"]

# Where glibc's fenv_t has the control word, and the bits: subnormal numbers are 0, and rounding is towards zero.
PLACES = {"x86_64": (7, 0x8040 | 0x6000), "aarch64": (0, 1 << 24 | 3 << 22)}


@contextmanager
def unusual_floats() -> Iterator[None]:
    """Round towards zero and flush subnormal numbers to zero, in this thread and in those that it starts. On Linux."""
    library, usual, other = ctypes.CDLL(ctypes.util.find_library("m")), (ctypes.c_uint32 * 8)(), (ctypes.c_uint32 * 8)()
    at, bits = PLACES[platform.machine()]
    library.fegetenv(usual)
    ctypes.memmove(other, usual, ctypes.sizeof(usual))
    other[at] |= bits
    library.fesetenv(other)
    try:
        yield
    finally:
        library.fesetenv(usual)
