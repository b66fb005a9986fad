"""What cases and small models give, to be compared between kinds of CPU: the same files, another machine.

    python -m tests.emulated.results write FOLDER         write the cases and the models
    python -m tests.emulated.results run FOLDER OUT.npz   what they give on this machine (SOTOL_CPU chooses the level)
    python -m tests.emulated.results compare OUT.npz …    exit status 1, and what differs, unless all bits are the same

ONLY in the environment, a regular expression, says which names of cases and models to run: all, if it is not there.

`make test-arm` runs the second on an emulated ARM64, `make test-x86` has tests/x86/levels.py for emulated levels.
"""

import argparse
import hashlib
import os
import platform
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tests.emulated.case import Case, read_cases
from tests.emulated.keys import keys_of
from tests.emulated.models import Model, models_in

from sotol.backends.cpu.building.library import library_for
from sotol.backends.cpu.target import Target, host_target

__all__ = ["cases_in", "compare", "run", "say"]

CASES = "cases.pickle"  # in the folder of the models


def cases_in(folder: Path, *, models: bool = True) -> list[Case | Model]:
    """The cases of the folder, and its models, as far as ONLY says."""
    every = [*read_cases(folder / CASES), *(models_in(folder) if models else ())]
    return [case for case in every if re.search(os.environ.get("ONLY", ""), case.name)]


def run(folder: Path, out: Path, target: Target, *, threads: int, models: bool = True) -> None:
    """Write what the cases of the folder give, and its models."""
    begin, cases = time.monotonic(), cases_in(folder, models=models)
    library_for(target).load(keys_of(cases))  # compiled side by side
    results = dict[str, npt.NDArray[Any]]()
    for number, case in enumerate(cases, 1):
        results[case.name] = case.results(target, threads)
        if number % 100 == 0 or number == len(cases):
            say(f"{platform.machine()} {target.level}: {number} of {len(cases)}, {time.monotonic() - begin:.0f} s")
    np.savez(out, allow_pickle=False, **results)


def compare(files: Sequence[Path]) -> int:
    """1 if any file's bits differ from the first one's, in what both have."""
    first, *others = (dict(np.load(file)) for file in files)
    status = 0
    for file, other in zip(files[1:], others, strict=True):
        for name, expected in first.items():
            different = np.flatnonzero((expected.view(np.uint8) != other[name].view(np.uint8)).any(axis=1))
            if different.size:
                status = 1
                say(f"{name}: {file.name} differs from {files[0].name} in {different.size} rows, first {different[0]}")
    if not status:
        digest = hashlib.sha256(b"".join(first[name].tobytes() for name in sorted(first)))
        say(f"the same bits in {', '.join(file.stem for file in files)}: {len(first)} results, "
            f"SHA-256 {digest.hexdigest()[:16]}")  # fmt: skip
    return status


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("what", choices=["write", "run", "compare"])
    parser.add_argument("paths", nargs="+", type=Path)
    options = parser.parse_args()
    if options.what == "compare":
        return compare(options.paths)
    if options.what == "run":
        folder, out = options.paths
        run(folder, out, host_target(), threads=2)
        return 0
    # Only the machine that writes them needs what cases are made of, such as Hypothesis.
    from tests.emulated.case import write_cases
    from tests.emulated.cases import cases
    from tests.emulated.models import write_models

    (folder,) = options.paths
    write_models(folder)
    write_cases(folder / CASES, cases())
    return 0


if __name__ == "__main__":
    sys.exit(main())
