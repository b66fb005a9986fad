"""The CPU levels that tests compile kernels for: each costs minutes.

The least, AVX2, which most x86-64 CPUs have, and the best of this machine; SOTOL_TEST_LEVELS=all for every one that it
has. `make test-x86` has them all on emulated CPUs.
"""

import os

from sotol.backends.cpu.target import levels

__all__ = ["LEVELS"]


def _chosen(able: tuple[str, ...]) -> tuple[str, ...]:
    if os.environ.get("SOTOL_TEST_LEVELS") == "all":
        return able
    return tuple(level for level in able if level in {able[0], "avx2", able[-1]})


LEVELS = _chosen(levels())
