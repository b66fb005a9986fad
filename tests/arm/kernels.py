"""Makes ARM64 kernels on this machine, for the emulated one, where LLVM takes some ten times as long.

    python -m tests.arm.kernels FOLDER LEVEL …   those that cases and models of FOLDER need, at these levels

XDG_CACHE_HOME says where they go. Their arithmetic is that of the code which the emulated machine would make. Kernels
without parameters are left to it, so that it compiles some, too.
"""

import sys
from pathlib import Path
from unittest import mock

from tests.emulated.keys import keys_of
from tests.emulated.results import cases_in, say

from sotol.backends.cpu.building import children
from sotol.backends.cpu.building.library import library_for
from sotol.backends.cpu.target import host_target, target_for

__all__: list[str] = []


def main() -> None:
    keys = [key for key in keys_of(cases_in(Path(sys.argv[1]))) if len(key) > 1]
    # Numba lowers for a CPU that it can run code on, whatever LLVM then makes of that.
    settings = children.numba_settings(host_target())
    with mock.patch.object(children, "numba_settings", return_value=settings):
        for level in sys.argv[2:]:
            library_for(target_for(level)).load(keys)
            say(f"{level}: {len(keys)} kernels")


if __name__ == "__main__":
    main()
