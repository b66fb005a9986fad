"""The CPU backend, as `program/runner.py` asks for it."""

from collections.abc import Sequence

from sotol.backends.cpu.running.lower import missing as lacking
from sotol.backends.cpu.running.lowerings import LOWERINGS
from sotol.backends.cpu.running.memory import Codecs
from sotol.backends.cpu.running.runner import CpuRunner, block_sizes
from sotol.backends.machine import available_memory
from sotol.program.fuse import fuse
from sotol.program.memory import Group
from sotol.program.program import Program
from sotol.program.step import Limits
from sotol.progress import Progress

__all__ = ["available_memory", "block_bytes", "make_runner", "missing"]


def missing(program: Program, context: int = 1) -> list[str]:
    """What the CPU backend lacks for a program; one sentence each."""
    return lacking(fuse(program), LOWERINGS, context)


def block_bytes(groups: Sequence[Group]) -> list[int]:
    """Bytes of a block of each group."""
    return block_sizes(groups, Codecs())


def make_runner(
    program: Program, limits: Limits, *, threads: int | None = None, progress: Progress | None = None
) -> CpuRunner:
    """A runner; errors as of `CpuRunner`."""
    return CpuRunner(program, limits, threads=threads, progress=progress)
