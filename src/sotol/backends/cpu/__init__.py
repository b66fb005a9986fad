"""The CPU backend: Programs as tapes of kernels that Numba compiled."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sotol.backends.cpu.running.runner import PRECISIONS, CpuRunner, OpTime

__all__ = ["PRECISIONS", "CpuRunner", "OpTime"]


def __getattr__(name: str) -> Any:
    """Import the runner when it is asked for: processes that only compile kernels have no use for it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sotol.backends.cpu.running import runner  # noqa: PLC0415

    return getattr(runner, name)
