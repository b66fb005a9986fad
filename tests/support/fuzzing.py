"""Running a fuzzer in child processes, so that a crash, a hang or a hunger for memory is caught and its case kept.

A fuzzer is a module with a function `case(rng, folder) -> bool`: it tries one random case, says whether the subject
accepted it, and raises `Broken` for a broken promise. Case n of seed s is always the same: `random.Random(f"{s}/{n}")`.
Of every case is watched: CPU seconds, the address space that it asks for, and the files that it opens, all of which
must be in its folder; of one in sixteen also the bytes that it allocates.
"""

import argparse
import contextlib
import faulthandler
import logging
import mmap
import os
import random
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

__all__ = ["Bounds", "Broken", "Files", "Link", "files_in", "run", "sentence"]

Case = Callable[[random.Random, Path], bool]

WALL_SECONDS = 60.0  # until a case counts as one that hangs: far more, for others use the machine too
REARMED = 1.0  # seconds after which the alarm for that is set anew: doing so costs as much as a small case
MEASURED, PERIOD = 64, 1024  # of so many cases the first so many are under tracemalloc, which makes them slow
CODE = (".py", ".pyc", ".so")  # what Python itself opens for a late import
COUNTS = struct.Struct("<QQ")  # cases tried, cases accepted
MEMORY_DISKS = ("/dev/shm",)  # where files cost no disk


class Broken(AssertionError):
    """A promise that the subject broke."""


class Bounds(NamedTuple):
    """What a case may take."""

    seconds: float = 2.0  # of CPU
    memory: int = 1 << 30  # bytes of address space, besides what the process has after warming up
    allocated: int | None = None  # bytes at once, by tracemalloc; None: the address space alone counts
    alone: bool = True  # whether it may open no file but those in its folder


class Link(NamedTuple):
    """A symbolic link, among files."""

    target: str


class Remarks(logging.Handler):
    """Reads what is said to the log, each of which must be one line, and keeps none."""

    def emit(self, record: logging.LogRecord) -> None:
        if "\n" in (text := record.getMessage()):
            raise Broken(f"a remark of several lines: {text[:300]!r}")


class Files:
    """The files of a folder from case to case: only those that differ from the last case's are written."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self._there = folder, dict[str, bytes | Link]()

    def put(self, files: Mapping[str, bytes | Link]) -> None:
        """Let the folder have these files by name, and no others."""
        for name in [name for name, data in self._there.items() if files.get(name) is not data]:
            (self.folder / name).unlink()
            del self._there[name]
        for name in files.keys() - self._there.keys():
            data = files[name]
            if isinstance(data, Link):
                (self.folder / name).symlink_to(data.target)
            else:
                (self.folder / name).write_bytes(data)
            self._there[name] = data


@cache
def files_in(folder: Path) -> Files:
    """The one `Files` of a folder, which is made if it is not there."""
    return Files(folder)


def sentence(error: Exception, *named: str, limit: int = 1200) -> bool:
    """False, for a case that is refused; Broken unless the error is one line that has one of these names in it."""
    text = str(error)
    if not text or "\n" in text or len(text) > limit:
        raise Broken(f"not a message of one sentence: {text[:300]!r}") from error
    if "out of memory" in text:
        raise Broken(f"asks for too much memory: {text[:300]}") from error
    if named and not any(name in text for name in named):
        raise Broken(f"names no file or field: {text[:300]}") from error
    return False


def run(module: str, case: Case, warm_up: Callable[[Path], None] | None = None, bounds: Bounds | None = None) -> int:
    """A fuzzer's command line: `--seconds` or `--cases`, `--seed`, and `--case n` for a single one; the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=sys.modules["__main__"].__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--cases", type=int, help="try so many, however long it takes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--case", type=int, help="run this case here, without a net")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)  # the folder that it works in
    options = parser.parse_args()
    seconds = options.seconds if options.cases is None else float("inf")
    end = sys.maxsize if options.cases is None else options.first + options.cases
    if options.child is not None:
        if warm_up is not None:
            warm_up(options.child)
        return _child(case, options.child, options.seed, range(options.first, end), seconds, bounds or Bounds())
    place = next((disk for disk in MEMORY_DISKS if os.access(disk, os.W_OK)), None)
    with tempfile.TemporaryDirectory(dir=place) as folder:
        if options.case is not None:
            accepted = case(random.Random(f"{options.seed}/{options.case}"), Path(folder))
            sys.stdout.write(f"case {options.case}: {'accepted' if accepted else 'refused'}\n")
            return 0
        return _parent(module, Path(folder), options.seed, range(options.first, end), seconds)


def _parent(module: str, folder: Path, seed: int, cases: range, seconds: float) -> int:
    """Start children until the time is over or all cases are tried; each ends at its first broken promise."""
    name, tried, accepted = module.rpartition(".")[2], 0, 0
    wrong: list[str] = []
    started = time.monotonic()
    while True:
        work, first = folder / str(tried), cases.start + tried
        work.mkdir()
        left = max(0.0, started + seconds - time.monotonic())
        command = [sys.executable, "-m", module, "--child", str(work), "--seed", str(seed), "--first", str(first)]
        command += ["--seconds", str(left)] if cases.stop == sys.maxsize else ["--cases", str(cases.stop - first)]
        child = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        there = (work / "counts").exists()
        counted = COUNTS.unpack((work / "counts").read_bytes()) if there else (0, 0)
        tried, accepted = tried + counted[0], accepted + counted[1]
        if child.returncode:
            number = cases.start + tried
            kept = Path(tempfile.gettempdir()) / f"{name}-{seed}-{number}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(work, kept, symlinks=True)
            (kept / "stderr").write_text(child.stderr)
            reason = (child.stderr.strip().splitlines() or ["no word"])[-1]
            wrong.append(f"--seed {seed} --case {number}, kept in {kept}: exit {child.returncode}: {reason}")
            tried += 1
        if time.monotonic() - started >= seconds or tried >= len(cases) or not there:
            break
    rate = tried / (time.monotonic() - started)
    counts = f"{tried} cases, {accepted} accepted, {len(wrong)} broken promises, {rate:.0f} cases a second"
    sys.stdout.write("\n".join([*wrong, f"{name}: {counts}"]) + "\n")
    return 1 if wrong else 0


def _child(case: Case, folder: Path, seed: int, cases: range, seconds: float, bounds: Bounds) -> int:
    """Try cases one after the other; the exit status is not 0 at the first broken promise."""
    faulthandler.enable()
    logging.getLogger().addHandler(Remarks())
    counts = _shared(folder / "counts")
    _limit_memory(bounds.memory)
    opened = _watched(folder) if bounds.alone else []
    accepted = 0
    armed, end = -REARMED, time.monotonic() + seconds
    for tried, number in enumerate(cases):
        COUNTS.pack_into(counts, 0, tried, accepted)
        if (now := time.monotonic()) >= end:
            break
        if now - armed >= REARMED:
            faulthandler.dump_traceback_later(WALL_SECONDS, exit=True)
            armed = now
        rng = random.Random(f"{seed}/{number}")
        if bounds.allocated is not None and tried and number % PERIOD < MEASURED:  # the first makes what all need
            good = _measured(case, rng, folder, bounds.allocated)
        else:
            tracemalloc.stop()
            begun = time.process_time()
            good = case(rng, folder)
            if (taken := time.process_time() - begun) > bounds.seconds:
                raise Broken(f"took {taken:.1f} s")
        if opened:
            raise Broken(f"opened {opened[0]!r}, outside of its folder")
        accepted += good
    else:
        COUNTS.pack_into(counts, 0, len(cases), accepted)
    faulthandler.cancel_dump_traceback_later()
    return 0


def _measured(case: Case, rng: random.Random, folder: Path, most: int) -> bool:
    """A case whose allocations are counted."""
    tracemalloc.start()  # nothing, if the case before was measured, too: each start leaks some kilobytes
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    good = case(rng, folder)
    used = tracemalloc.get_traced_memory()[1] - before
    if used > most:
        raise Broken(f"allocated {used} bytes, more than {most}")
    return good


def _shared(path: Path) -> mmap.mmap:
    """The file of the counts, which keeps what is written to it when the process dies."""
    path.write_bytes(bytes(COUNTS.size))
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), COUNTS.size)


def _watched(folder: Path) -> list[str]:
    """A list that gets the path of each file that is opened from now on and is not in the folder, nor code."""
    inside, found = f"{folder.resolve()}/", list[str]()

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | os.PathLike):
            path = os.fspath(arguments[0])
            if Path(path).is_symlink() or not f"{path}/".startswith(inside):
                path = os.path.realpath(path)
            if not f"{path}/".startswith(inside) and not path.endswith(CODE):
                found.append(path)

    sys.addaudithook(hook)
    return found


def _limit_memory(memory: int) -> None:
    with contextlib.suppress(FileNotFoundError):  # only Linux says how much there is
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
