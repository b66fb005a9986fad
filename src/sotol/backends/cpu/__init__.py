"""The CPU backend: Programs as tapes of kernels that Numba compiled."""

from sotol.backends.cpu.runner import PRECISIONS, CpuRunner, OpTime

__all__ = ["PRECISIONS", "CpuRunner", "OpTime"]
