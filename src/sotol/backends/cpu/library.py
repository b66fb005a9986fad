"""The store of compiled kernels: on disk per CPU level and source version, in memory as callable addresses.

A kernel that the store lacks is compiled by child processes (`compile.py`); one that it has is loaded with llvmlite
alone, in about a millisecond, so a warm start never imports Numba. The folder is keyed by the sources of all kernel
files and the versions of Numba and llvmlite: an edited helper can never run as its old self.
"""

import hashlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import platformdirs

from sotol.backends.cpu.linking import Image, Memory, load
from sotol.backends.cpu.target import Target
from sotol.errors import SotolError

__all__ = ["Code", "Key", "Library", "file_name", "library_for"]

# Files beside the kernels that no kernel is made from: to edit them compiles nothing anew.
AROUND_KERNELS = frozenset({"library.py", "lower.py", "packing.py", "runner.py", "threads.py"})

Key = tuple[str | int, ...]  # a kernel's name in kernels.KERNELS, then its parameters
Progress = Callable[[int, int], None]  # kernels compiled so far, kernels to compile


def file_name(key: Key) -> str:
    """The file of a kernel's object code, and its symbol."""
    return "-".join(map(str, key))


def seal(fields: str, code: bytes) -> bytes:
    """A stored kernel: its digest, the text of its argument fields, its object code."""
    body = len(fields).to_bytes(4, "little") + fields.encode() + code
    return hashlib.sha256(body).digest() + body


def unseal(data: bytes) -> tuple[str, bytes] | None:
    """The fields and the object code; None for a damaged file."""
    digest, body = data[:32], data[32:]
    if hashlib.sha256(body).digest() != digest:
        return None
    size = int.from_bytes(body[:4], "little")
    return body[4 : 4 + size].decode(), body[4 + size :]


class Code(NamedTuple):
    """A kernel in memory."""

    address: int
    fields: str  # its argument block: see layout.parse_fields


class Library:
    """The kernels of one CPU level; `library_for` keeps one for each."""

    def __init__(self, target: Target, folder: Path) -> None:
        self.target = target
        self._folder = folder
        self._codes: dict[Key, Code] = {}
        self._memory: list[Memory] = []
        self._lock = threading.Lock()

    def load(self, keys: Sequence[Key], progress: Progress | None = None) -> dict[Key, Code]:
        """The kernels of these keys, compiling those that were never compiled on this machine.

        Raises SotolError if a kernel does not compile.
        """
        with self._lock:
            wanted = [key for key in dict.fromkeys(keys) if key not in self._codes]
            stored = {key: self._read(key) for key in wanted}
            missing = [key for key, found in stored.items() if found is None]
            if missing:
                _compile(missing, self.target, self._folder, progress or (lambda _done, _total: None))
                stored |= {key: self._read(key) for key in missing}
            images = []
            for key, found in stored.items():
                if found is None:
                    raise SotolError(f"kernel {file_name(key)} could not be read back from {self._folder}")
                images.append(Image.read(found[1]))
            if images:
                self._memory.append(load(images))
                for (key, found), address in zip(stored.items(), self._memory[-1].addresses, strict=True):
                    assert found is not None
                    self._codes[key] = Code(address, found[0])
            return {key: self._codes[key] for key in keys}

    def _read(self, key: Key) -> tuple[str, bytes] | None:
        try:
            return unseal((self._folder / f"{file_name(key)}.o").read_bytes())
        except FileNotFoundError:
            return None


@cache
def library_for(target: Target) -> Library:
    """The process's library for a target, in the user's cache folder."""
    return Library(target, _folder(target))


@cache
def source_digest() -> str:
    """A digest of all that decides what the kernels' machine code is."""
    package = Path(__file__).parent
    sotol = package.parents[1]
    kernels = [path for path in package.rglob("*.py") if path.name not in AROUND_KERNELS]
    digest = hashlib.sha256()
    for path in sorted([*kernels, *(sotol / "quant").glob("*.py"), sotol / "formats" / "weights.py"]):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    for name in ("numba", "llvmlite"):  # the file that says the version: to ask for it by name takes longer
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        digest.update(Path(spec.origin).with_name("_version.py").read_bytes())
    return digest.hexdigest()[:16]


def _folder(target: Target) -> Path:
    folder = Path(platformdirs.user_cache_dir("sotol")) / "kernels" / source_digest() / target.level
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # no home, or a read-only one: compile for this process alone
        return Path(tempfile.mkdtemp(prefix="sotol-kernels-"))
    return folder


def numba_settings(target: Target) -> dict[str, str]:
    """Environment variables for a process that compiles for the target.

    LLVM optimises once, for the target, in compile.emit: Numba's own passes would only cost time. The CPU's name lets
    Numba's lowering accept instructions that this machine may lack.
    """
    return {"NUMBA_OPT": "0", "NUMBA_CPU_NAME": target.processor, "NUMBA_CPU_FEATURES": target.features}


def _compile(keys: Sequence[Key], target: Target, folder: Path, progress: Progress) -> None:
    """Compile keys into the folder, with as many child processes as there are cores."""
    waiting: queue.SimpleQueue[Key] = queue.SimpleQueue()
    for key in keys:
        waiting.put(key)
    done, failures, lock = [0], list[str](), threading.Lock()
    progress(0, len(keys))

    def drive() -> None:
        command = [sys.executable, "-m", "sotol.backends.cpu.compile", target.level, str(folder), source_digest()]
        pipe, environment = subprocess.PIPE, os.environ | numba_settings(target)
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            assert child.stderr is not None
            while not failures:
                try:
                    key = waiting.get_nowait()
                except queue.Empty:
                    break
                child.stdin.write(json.dumps(key) + "\n")
                child.stdin.flush()
                if not child.stdout.readline():
                    failures.append(f"kernel {file_name(key)} did not compile: {child.stderr.read().strip()[-2000:]}")
                    break
                with lock:
                    done[0] += 1
                    progress(done[0], len(keys))
            child.stdin.close()

    drivers = [threading.Thread(target=drive) for _ in range(min(os.cpu_count() or 1, len(keys)))]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    if failures:
        raise SotolError(failures[0])
