"""The CPU backend: runs a Program as a tape of kernels, which are Python compiled by Numba."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sotol.backends.cpu.running.runner import CpuRunner, OpTime

__all__ = ["CpuRunner", "OpTime"]


def __getattr__(name: str) -> Any:
    """Import the runner on first use: processes that only compile kernels do not need it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sotol.backends.cpu.running import runner  # noqa: PLC0415

    return getattr(runner, name)
