"""What a machine allows at most: reading memory, products of int8, multiply-adds of f32. Measured, for any threads.

A single look says little: take the best of many, since other processes only take time away. Loops are made of what this
CPU level's kernels are made of (`limit_kernels.py`), at the level in use (SOTOL_CPU).
"""

import mmap
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import perf_counter
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from sotol.backends.cpu.building.children import numba_settings
from sotol.backends.cpu.target import Target, host_target

__all__ = ["F32", "INT8", "READS", "Arithmetic", "Reading"]

SECONDS = 0.003  # that a loop of arithmetic takes, at least
SHARE = 1024  # a thread's part of the memory is a multiple of so many bytes
LEAST = 2**26  # bytes to read, more than most caches hold
# Ways to read, of which one suits the machine best: in four places at once?, bytes ahead to prefetch (0: none).
READS = {
    "read, one stream": (False, 0),
    "read, one stream, prefetched": (False, 512),
    "read, four streams": (True, 0),
    "read, four streams, prefetched": (True, 512),
}
F32, INT8 = "f32 multiply-adds", "int8 multiply-adds"  # in registers


class Reading:
    """Plain streaming reads of memory as weights have it, in large pages: nothing that reads all of it is faster."""

    def __init__(self, size: int) -> None:
        """size: bytes, as many as a step of the model reads; LEAST where that is more."""
        kernels, target = _kernels()
        self._memory = _touched(max(size, LEAST))
        self._readers = [kernels.compiled(kernels.reader(prefetching=p), 5, target) for p in (False, True)]

    def rates(self, threads: int) -> dict[str, float]:
        """Bytes per second of one pass over the memory, for each way to read it."""
        rates = {}
        share = self._memory.size // threads // SHARE * SHARE
        starts = [self._memory.ctypes.data + i * share for i in range(threads)]
        for name, (scattered, ahead) in READS.items():
            stride, step = (share // 4, 64) if scattered else (64, 256)
            read = self._readers[ahead > 0]
            rates[name] = threads * share / _seconds(read, [(at, share, stride, step, ahead) for at in starts])
        return rates


class Arithmetic:
    """Multiply-adds in registers: of f32, and of int8 in the form of the level's dot products."""

    def __init__(self) -> None:
        kernels, target = _kernels()
        loops = {F32: kernels.floats(target), INT8: kernels.int8(target)}
        self._loops = {name: (kernels.compiled(loop, 2, target), work) for name, (loop, work) in loops.items()}

    def rates(self, threads: int) -> dict[str, float]:
        """Multiply-adds per second: F32 and INT8."""
        rates = {}
        for name, (loop, work) in self._loops.items():
            spaces = np.ones((threads, 4096), np.uint8)
            rounds, seconds = 10000, 0.0
            while seconds < SECONDS:
                rounds *= 2
                seconds = _seconds(loop, [(rounds, space.ctypes.data) for space in spaces])
            rates[name] = threads * rounds * work / seconds
        return rates


def _kernels() -> tuple[ModuleType, Target]:
    target = host_target()
    os.environ.update(numba_settings(target))  # before Numba is imported
    from bench import limit_kernels  # noqa: PLC0415

    return limit_kernels, target


def _seconds(function: Callable[..., Any], arguments: Sequence[tuple[int, ...]]) -> float:
    """The time of a native function in as many threads: from the first one's beginning to the last one's end."""
    together = threading.Barrier(len(arguments))

    def go(given: tuple[int, ...]) -> tuple[float, float]:
        together.wait()
        begin = perf_counter()
        function(*given)
        return begin, perf_counter()

    with ThreadPoolExecutor(len(arguments)) as pool:
        times = list(pool.map(go, arguments))
    return max(end for _, end in times) - min(begin for begin, _ in times)


def _touched(size: int) -> npt.NDArray[np.uint8]:
    """Memory of ones, in large pages where the system has them, as `CpuRunner` holds weights."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return np.ones(size, np.uint8)
    space = mmap.mmap(-1, size)
    with suppress(OSError):
        space.madvise(mmap.MADV_HUGEPAGE)
    memory = np.frombuffer(space, np.uint8)
    memory[:] = 1
    return memory
