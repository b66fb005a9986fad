"""Kernels and small models on an emulated CPU of each level, to be compared with this machine's own.

    python -m tests.x86.levels host FOLDER OUT.npz    on this machine, at its best level
    python -m tests.x86.levels LEVEL FOLDER OUT.npz   at a level, on the emulated CPU that has it and little more

`make test-x86` has tests/emulated/results.py write the folder, runs both, and compares all bits.
"""

import sys
from contextlib import closing
from pathlib import Path
from unittest import mock

from tests.emulated.cases import matrix_product
from tests.emulated.results import run, say
from tests.x86.emulator import CPUS, Emulator, EmulatorError

from sotol.backends.cpu.building.library import Code
from sotol.backends.cpu.running import fitting, packing, threads
from sotol.backends.cpu.target import host_target, target_for

# A level that each emulated CPU lacks: its matrix kernel must stop there, or the emulator would judge nothing.
TOO_MUCH = {
    "generic": "avx2",
    "avx2": "avx512",
    "avxvnni": "avx512",
    "avx512": "vnni",
    "vnni": "avxvnni",
    "amx": "avxvnni",
}


def main() -> None:
    level, folder, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    if level == "host":
        run(folder, out, host_target(), threads=1)
        return
    with closing(Emulator(CPUS[level])) as emulator:

        def emulated(code: Code) -> threads.NativeFunction:
            return lambda *arguments: emulator.call(code.address, *arguments)

        for user in (threads, packing, fitting):
            mock.patch.object(user, "native_function", emulated).start()
        try:
            matrix_product().results(target_for(TOO_MUCH[level]), 1)
            sys.exit(f"the emulated CPU of {level} runs {TOO_MUCH[level]}")
        except EmulatorError as error:
            say(f"{level}: the kernel of {TOO_MUCH[level]} stops on {error}")
        # Without an instruction for it, fma is a call of the C library: too slow for whole models.
        run(folder, out, target_for(level), threads=1, models=level != "generic")


if __name__ == "__main__":
    main()
