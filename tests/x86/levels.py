"""Kernels and small models on an emulated CPU of each level, to be compared with this machine's own.

    python tests/x86/levels.py host FOLDER OUT.npz    on this machine, at its best level; FOLDER: tests/arm/logits.py's
    python tests/x86/levels.py LEVEL FOLDER OUT.npz   at a level, on the emulated CPU that has it and little more

`make test-x86` runs both and compares all bits with tests/arm/logits.py.
"""

import sys
import time
from contextlib import closing
from pathlib import Path
from unittest import mock

import numpy as np
from tests.arm.logits import logits_of, say
from tests.x86.cases import kernel_results, matrix_product
from tests.x86.emulator import CPUS, Emulator, EmulatorError

from sotol.backends.cpu.building.library import Code
from sotol.backends.cpu.running import packing, threads
from sotol.backends.cpu.target import Target, host_target, target_for

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
        save(host_target(), folder, out)
        return
    with closing(Emulator(CPUS[level])) as emulator:

        def emulated(code: Code) -> threads.NativeFunction:
            return lambda *arguments: emulator.call(code.address, *arguments)

        name = "native_function"
        with mock.patch.object(threads, name, emulated), mock.patch.object(packing, name, emulated):
            try:
                matrix_product(target_for(TOO_MUCH[level]))
                sys.exit(f"the emulated CPU of {level} runs {TOO_MUCH[level]}")
            except EmulatorError as error:
                say(f"{level}: the kernel of {TOO_MUCH[level]} stops on {error}")
            # Without an instruction for it, fma is a call of the C library: too slow for whole models.
            save(target_for(level), None if level == "generic" else folder, out)


def save(target: Target, folder: Path | None, out: Path) -> None:
    """Write the results of the cases, and of the models in a folder."""
    begin = time.monotonic()
    found = dict(kernel_results(target))
    say(f"{target.level}: {len(found)} results, {time.monotonic() - begin:.0f} s")
    if folder is not None:
        found |= logits_of(folder, threads=1, target=target)
        say(f"{target.level}: {len(found)} results, {time.monotonic() - begin:.0f} s")
    np.savez(out, allow_pickle=False, **found)


if __name__ == "__main__":
    main()
