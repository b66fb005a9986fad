"""A child process that compiles kernels for its parent. `children.py`, the parent's side, has the protocol.

The child imports Python's own library and the four packages that the parent names, from where the parent has them. It
imports nothing else: neither what is beside them in those folders, nor from the current folder or any other path.
"""

import json
import os
import queue
import signal
import struct
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

from sotol.backends.cpu.building.compile import compile_kernel
from sotol.backends.cpu.building.linking import link
from sotol.backends.cpu.building.sources import source_digest
from sotol.backends.cpu.building.stored import Compiled, Key, file_name, label, seal
from sotol.backends.cpu.target import target_for
from sotol.errors import SotolError

__all__ = ["FRAME", "main"]

FRAME = struct.Struct("<?Q")  # before an answer: whether it is a sealed kernel or an error's text; its size in bytes


class _Places(MetaPathFinder):
    """Finds top-level packages in the folders that the parent gave, and nowhere else."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = places

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        place = self._places.get(fullname) if path is None else None
        return None if place is None else PathFinder.find_spec(fullname, [place], target)


def main() -> None:
    """Compile the keys that arrive as lines, until the pipe is closed. Arguments: sotol's folder, the job as JSON."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which kills this process
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever libraries print must not mix with the answers
    place, job = sys.argv[1], json.loads(sys.argv[2])
    sys.path.remove(place)
    sys.meta_path.insert(0, _Places(job["places"]))
    keys = queue.SimpleQueue[Key]()
    threading.Thread(target=_receive, args=(keys,), daemon=True).start()
    import_module("sotol.backends.cpu.kernels")  # after the packages are known, and before the digest
    same = source_digest() == job["sources"]
    while True:
        key = keys.get()
        try:
            if not same:  # new code must not be stored as the old one's
                raise SotolError("sotol's sources have changed since this process began: start it again")
            code, fields = compile_kernel(key, target_for(job["level"]))
            kernel = Compiled(fields, bytes(link(code, file_name(key))))
            good, data = True, seal(label(job["sources"], job["level"], key), kernel)
        except Exception as error:  # noqa: BLE001  (whatever Numba raises; the parent tells it)
            kind = "" if isinstance(error, SotolError) else f"{type(error).__name__}: "
            good, data = False, f"{kind}{error}".encode(errors="replace")
        answers.write(FRAME.pack(good, len(data)) + data)
        answers.flush()


def _receive(keys: "queue.SimpleQueue[Key]") -> None:
    """A thread that receives keys. When the pipe is closed, also by the parent's death, the process ends at once."""
    for line in sys.stdin.buffer:
        keys.put(tuple(json.loads(line)))
    os._exit(0)
