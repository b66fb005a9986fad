"""The CPU backend: Programs as tapes of kernels that Numba compiled."""

from sotol.backends.cpu.runner import CODECS, PRECISIONS, CpuRunner, OpTime

__all__ = ["CODECS", "PRECISIONS", "CpuRunner", "OpTime"]
