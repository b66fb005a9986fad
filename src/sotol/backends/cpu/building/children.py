"""Child processes that compile kernels: the parent's side. `child.py` is what they run.

A child takes no code from the current folder and no setting from the environment; it is told where the packages are
that it may import. It reads keys from its standard input, as lines of JSON, and answers each with a frame on its
standard output. All else that it writes goes to its standard error; the end of that is kept for error messages.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import IO, NamedTuple

from sotol.backends.cpu.building.child import FRAME
from sotol.backends.cpu.building.sources import places, source_digest
from sotol.backends.cpu.building.stored import Key, file_name
from sotol.backends.cpu.target import Target
from sotol.backends.machine import available_memory, usable_cpus
from sotol.errors import SotolError

__all__ = ["compile_kernels", "numba_settings"]

# What a child runs. sotol's folder is last on the path, so that nothing in it hides a module of Python's own.
_CODE = "import sys; sys.path.append(sys.argv[1]); from sotol.backends.cpu.building.child import main; main()"
# NumPy's threads would only cost memory: a child multiplies no matrices.
_SETTINGS = {"OPENBLAS_NUM_THREADS": "1"}
# What a process needs to find its shared libraries and, on Windows, to start at all.
_KEPT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "SYSTEMROOT", "TEMP", "TMP")
_CHILD_BYTES = 300 << 20  # memory of a child
_DEATHS = 2  # children that may die of a kernel before compiling it is given up
_TAIL = 4000  # bytes kept of a child's standard error
_DYING = 5  # seconds to wait for a child whose pipe has closed to exit
_LINES = 3  # of its standard error that an error message quotes
_TEXT = 500  # characters of an error
_POLL = 0.2  # seconds: on Windows Ctrl-C is noticed between two waits


def numba_settings(target: Target) -> dict[str, str]:
    """Environment variables for a process that compiles for the target.

    LLVM optimises once, for the target, in compile.emit: Numba's own passes would only cost time. The CPU's name lets
    Numba's lowering accept instructions that this machine may lack.
    """
    return {"NUMBA_OPT": "0", "NUMBA_CPU_NAME": target.processor, "NUMBA_CPU_FEATURES": target.features}


def compile_kernels(keys: Sequence[Key], target: Target) -> Generator[tuple[Key, bytes], None, None]:
    """Yield sealed kernels (`stored.seal`) of distinct keys, each when it is ready. Closing this ends the children.

    There are as many children as this process may use logical CPUs (compilers wait for memory much of the time), or
    fewer if memory is short. Raises SotolError for a kernel that does not compile, and where no child
    can be started.
    """
    work = _Work(keys, target)
    try:
        while work.start_children():
            ready = work.wait()
            if ready is not None:
                yield ready
    finally:
        work.end()


class _Answer(NamedTuple):
    child: "_Child"
    good: bool | None  # False: the kernel did not compile; None: the child is dead
    data: bytes  # a sealed kernel, or an error's text


class _Work:
    """Kernels to compile, and the children that do."""

    def __init__(self, keys: Sequence[Key], target: Target) -> None:
        self._waiting, self._target = deque(keys), target
        self._busy = dict[_Child, Key]()
        self._most = _most_children(len(keys))
        self._deaths = Counter[Key]()
        self._answers = queue.SimpleQueue[_Answer]()

    def start_children(self) -> bool:
        """Start children for waiting kernels, as many as allowed; whether any work is left."""
        while self._waiting and len(self._busy) < self._most:
            try:
                child = _Child(self._target, self._answers)
            except (OSError, RuntimeError, MemoryError) as error:  # RuntimeError: no thread can be started
                if not self._busy:
                    raise SotolError(f"kernels can't be compiled: no process for it starts: {error}") from error
                self._most = len(self._busy)
            else:
                self._give(child)
        return bool(self._busy)

    def wait(self) -> tuple[Key, bytes] | None:
        """Wait until a kernel is ready, or return None if children have to be started."""
        child, good, data = _next(self._answers)
        if child not in self._busy:  # it was ended before
            return None
        key = self._busy[child]
        if good:
            if self._waiting:
                self._give(child)
            else:
                self._dismiss(child)
            return key, data
        why = child.last_words() if good is None else data.decode(errors="replace")
        self._dismiss(child)
        self._deaths[key] += 1
        if good is False or self._deaths[key] == _DEATHS:
            raise SotolError(f"kernel {file_name(key)} did not compile: {_one_line(why)}")
        self._waiting.append(key)
        self._most = max(1, self._most - 1)  # it may have been killed because memory is short
        return None

    def end(self) -> None:
        """Kill all children, whatever they are doing."""
        for child in self._busy:
            child.process.kill()
        for child in self._busy:
            child.end()

    def _give(self, child: "_Child") -> None:
        self._busy[child] = self._waiting.popleft()
        child.give(self._busy[child])

    def _dismiss(self, child: "_Child") -> None:
        child.end()
        del self._busy[child]


class _Child:
    """A child process, and two threads that read its standard output and error."""

    def __init__(self, target: Target, answers: "queue.SimpleQueue[_Answer]") -> None:
        """Raises OSError, MemoryError or RuntimeError if the process or a thread can't be started."""
        if not sys.executable or getattr(sys, "frozen", False):
            raise OSError("it would be Python, but sys.executable does not say where that is")
        job = json.dumps({"level": target.level, "sources": source_digest(), "places": places()})
        command = [sys.executable, "-I", "-S", *(["-B"] if sys.dont_write_bytecode else [])]
        self.process = subprocess.Popen(
            [*command, "-c", _CODE, places()["sotol"], job],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=sys.base_prefix,
            env={name: os.environ[name] for name in _KEPT if name in os.environ} | _SETTINGS | numba_settings(target),
        )
        self._tail = b""
        self._threads = [
            threading.Thread(target=self._read, args=(answers,), daemon=True, name="sotol-compiling"),
            threading.Thread(target=self._listen, daemon=True, name="sotol-compiling-errors"),
        ]
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:
            self.end()
            raise

    def give(self, key: Key) -> None:
        """Send it a kernel to compile. If it is dead, `_read` reports that."""
        with suppress(OSError):
            _pipe(self.process.stdin).write(json.dumps(key).encode() + b"\n")
            _pipe(self.process.stdin).flush()

    def end(self) -> None:
        """Kill it, and release all that belongs to it."""
        self.process.kill()
        self.process.wait()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            with suppress(OSError):  # the pipe is broken, and has data left to write
                _pipe(pipe).close()

    def last_words(self) -> str:
        """How it died, and the end of its standard error."""
        with suppress(subprocess.TimeoutExpired):  # the pipe closes before the process has exited
            self.process.wait(_DYING)
        self.end()
        status = self.process.returncode
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        said = self._tail.decode(errors="replace").strip().splitlines()[-_LINES:]
        return " ".join(("the process that compiled it", how, *said))

    def _read(self, answers: "queue.SimpleQueue[_Answer]") -> None:
        """A thread that passes on answers and, at the end of the pipe, that no more will come."""
        pipe = _pipe(self.process.stdout)
        while len(head := pipe.read(FRAME.size)) == FRAME.size:
            good, size = FRAME.unpack(head)
            if len(data := pipe.read(size)) < size:
                break
            answers.put(_Answer(self, good, data))
        answers.put(_Answer(self, None, b""))

    def _listen(self) -> None:
        """A thread that drains the standard error, so that the child never blocks on a full pipe."""
        descriptor = _pipe(self.process.stderr).fileno()
        while said := os.read(descriptor, 1 << 16):
            self._tail = (self._tail + said)[-_TAIL:]


def _next(answers: "queue.SimpleQueue[_Answer]") -> _Answer:
    while True:
        with suppress(queue.Empty):
            return answers.get(timeout=_POLL)


def _most_children(keys: int) -> int:
    memory = available_memory()
    return max(1, min(keys, usable_cpus(), keys if memory is None else memory // _CHILD_BYTES))


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # `Popen` was asked for all three
    return pipe


def _one_line(text: str) -> str:
    """The end of a text on one line: the last words of an error say what it was."""
    words = " ".join(text.split())
    return words if len(words) <= _TEXT else f"…{words[-_TEXT:]}"
