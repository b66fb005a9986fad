"""Running a fuzzer in child processes, so that a crash, a hang or a hunger for memory is caught and its case kept.

A fuzzer is a module with a function `case(rng, folder) -> bool`: it tries one random case, says whether the subject
accepted it, and raises `Broken` for a broken promise. Case n of seed s is always the same: `random.Random(f"{s}/{n}")`.
"""

import argparse
import contextlib
import faulthandler
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["Broken", "run"]

Case = Callable[[random.Random, Path], bool]

CPU_SECONDS = 2.0  # that a case may take
WALL_SECONDS = 60.0  # until a case counts as one that hangs: far more, for others use the machine too


class Broken(AssertionError):
    """A promise that the subject broke."""


def run(module: str, case: Case, warm_up: Callable[[Path], None] | None = None, *, memory: int = 1 << 30) -> int:
    """A fuzzer's command line: `--seconds`, `--seed`, and `--case n` to run a single one; gives the exit status.

    memory: bytes of address space that a child may take besides what it has after warming up.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=sys.modules["__main__"].__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)  # of a child's cases
    parser.add_argument("--case", type=int, help="run this case here, without a net")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)  # the folder that it works in
    options = parser.parse_args()
    if options.child is not None:
        if warm_up is not None:
            warm_up(options.child)
        _limit_memory(memory)
        return _child(case, options.child, options.seed, options.first, options.seconds)
    with tempfile.TemporaryDirectory() as folder:
        if options.case is not None:
            accepted = case(random.Random(f"{options.seed}/{options.case}"), Path(folder))
            sys.stdout.write(f"case {options.case}: {'accepted' if accepted else 'refused'}\n")
            return 0
        return _parent(module, Path(folder), options.seed, options.seconds)


def _parent(module: str, folder: Path, seed: int, seconds: float) -> int:
    """Start children until the time is over; each ends at its first broken promise."""
    tried = accepted = 0
    wrong: list[str] = []
    end = time.monotonic() + seconds
    while True:
        work = folder / str(tried)
        work.mkdir()
        left = max(0.0, end - time.monotonic())
        command = [sys.executable, "-m", module, "--child", str(work), "--seed", str(seed)]
        command += ["--first", str(tried), "--seconds", str(left)]
        child = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        counted = (work / "counts").read_text().split() if (work / "counts").exists() else ["0", "0"]
        tried, accepted = tried + int(counted[0]), accepted + int(counted[1])
        if child.returncode:
            kept = Path(tempfile.gettempdir()) / f"{module.rpartition('.')[2]}-{seed}-{tried}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(work, kept)
            (kept / "stderr").write_text(child.stderr)
            reason = (child.stderr.strip().splitlines() or ["no word"])[-1]
            wrong.append(f"--seed {seed} --case {tried}, kept in {kept}: exit {child.returncode}: {reason}")
            tried += 1
        if time.monotonic() >= end:
            break
    sys.stdout.write("\n".join([*wrong, f"{tried} cases, {accepted} accepted, {len(wrong)} broken promises"]) + "\n")
    return 1 if wrong else 0


def _child(case: Case, folder: Path, seed: int, first: int, seconds: float) -> int:
    """Try cases one after the other; the exit status is not 0 at the first broken promise."""
    faulthandler.enable()
    tried = accepted = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        (folder / "counts").write_text(f"{tried} {accepted}")
        faulthandler.dump_traceback_later(WALL_SECONDS, exit=True)
        started = time.process_time()
        good = case(random.Random(f"{seed}/{first + tried}"), folder)
        if (taken := time.process_time() - started) > CPU_SECONDS:
            raise Broken(f"took {taken:.1f} s")
        tried, accepted = tried + 1, accepted + good
    faulthandler.cancel_dump_traceback_later()
    (folder / "counts").write_text(f"{tried} {accepted}")
    return 0


def _limit_memory(memory: int) -> None:
    with contextlib.suppress(FileNotFoundError):  # only Linux says how much there is
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
