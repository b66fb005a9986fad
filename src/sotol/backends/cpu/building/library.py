"""The kernels of this process: callable addresses, from the store on disk (`store.py`) or from child processes that
compile them (`children.py`).

A stored kernel is linked already, and only has to be put into memory (`linking.py`): so a start with stored kernels
imports neither Numba nor LLVM. The store's key is a digest of all sources of kernels (`sources.py`), so no kernel is
used after an edit of any of them.
"""

import os
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import platformdirs

from sotol.backends.cpu.building.linking import Image, Memory, load
from sotol.backends.cpu.building.sources import source_digest
from sotol.backends.cpu.building.store import KernelStore
from sotol.backends.cpu.building.stored import Compiled, Key, unseal
from sotol.backends.cpu.target import Target
from sotol.errors import SotolError, explained

if TYPE_CHECKING:
    from sotol.backends.cpu.building.stores import Store

__all__ = ["Code", "Key", "Library", "clear", "library_for", "stores"]

CountProgress = Callable[[int, int], None]  # kernels compiled so far, kernels to compile

_LIBRARIES = dict["Target", "Library"]()  # never removed: code that is in use must stay where it is
# Held while a library is made and while the process forks, so that a child finds the table consistent.
_TABLE = threading.RLock()


class Code(NamedTuple):
    """A kernel in memory."""

    address: int
    fields: str  # its argument block: see layout.parse_fields


class Library:
    """The kernels of one CPU level; `library_for` keeps one for each. Threads may share it."""

    def __init__(self, target: Target, store: KernelStore) -> None:
        """Keep a library as long as its code may run: the memory of the code is freed with it."""
        self.target = target
        self._store = store
        self._codes: dict[Key, Code] = {}
        self._memory: list[Memory] = []
        self._turn = threading.RLock()  # one thread compiles; others wait, and may find their kernels done

    def load(self, keys: Sequence[Key], progress: CountProgress | None = None) -> dict[Key, Code]:
        """The kernels of these keys; those that are not stored are compiled.

        progress is called by this thread; if it raises, compiling ends, and the exception is raised here. Without it, a
        log message says that kernels are compiled. Raises SotolError if a kernel does not compile, or no process for it
        can be started.
        """
        with self._turn:
            wanted = [key for key in dict.fromkeys(keys) if key not in self._codes]
            if wanted:
                self._map(self._obtain(wanted, progress))
            return {key: self._codes[key] for key in keys}

    def renew_lock(self) -> None:
        """For a child after a fork: it has no other threads, which could release the lock."""
        self._turn = threading.RLock()

    def _obtain(self, keys: Sequence[Key], progress: CountProgress | None) -> dict[Key, Compiled]:
        """Read the kernels from the store, or compile them, together with other processes that need the same."""
        said = list[str]()

        def complain(why: str) -> None:
            if not said:  # one line for all files
                _log().warning("kernels are compiled for this process: %s", why)
            said.append(why)

        found = self._store.read(keys, complain)
        total = len(keys) - len(found)
        if not total:
            return found
        # Programs that do not configure logging show only warnings; without one they would seem to hang for a minute.
        tell = _log().warning if progress is None and not said else _log().info
        tell("compiling %d kernels for this CPU, to keep them in %s", total, self._store)

        def report() -> None:
            if progress is not None:
                progress(total - (len(keys) - len(found)), total)

        def missing() -> list[Key]:
            """What is still to be compiled, after looking for what other processes have stored meanwhile."""
            before = len(found)
            found.update(self._store.read([key for key in keys if key not in found], complain))
            if len(found) > before:
                report()
            return [key for key in keys if key not in found]

        report()
        with self._store.sharing(complain) as sharing:
            for claimed in sharing.claims(missing):
                with closing(_compiled(claimed, self.target)) as ready:
                    for key, data in ready:
                        found[key] = unseal(data, self._store.label(key))
                        sharing.keep(key, data)
                        report()
        return found

    def _map(self, found: Mapping[Key, Compiled]) -> None:
        """Put kernels into executable memory."""
        with explained("putting kernels into memory"):
            memory = load([Image.read(compiled.code) for compiled in found.values()])
        self._memory.append(memory)
        for (key, compiled), address in zip(found.items(), memory.addresses, strict=True):
            self._codes[key] = Code(address, compiled.fields)


def library_for(target: Target) -> Library:
    """The process's library for a target, in the user's cache folder."""
    with _TABLE:
        if target not in _LIBRARIES:
            _LIBRARIES[target] = Library(target, KernelStore(_cache_folder(), source_digest(), target.level))
        return _LIBRARIES[target]


def stores() -> "list[Store]":
    """All compiled kernels on this machine's disk, by version of sotol and CPU level: those in use, then the newest.

    Raises SotolError where the cache folder can't be read.
    """
    from sotol.backends.cpu.building.stores import stores_in  # noqa: PLC0415  (running a model does not need it)

    top = _cache_folder()
    try:
        return [] if top is None else stores_in(top, source_digest())
    except OSError as error:
        raise SotolError(f"the folder of compiled kernels can't be read: {error}") from error


def clear() -> None:
    """Remove all compiled kernels from the disk; processes that run keep theirs.

    Raises SotolError where that can't be done.
    """
    from sotol.backends.cpu.building.stores import remove_stores  # noqa: PLC0415  (running a model does not need it)

    top = _cache_folder()
    try:
        if top is not None:
            remove_stores(top)
    except OSError as error:
        raise SotolError(f"the folder of compiled kernels can't be removed: {error}") from error


def _compiled(keys: Sequence[Key], target: Target) -> Generator[tuple[Key, bytes], None, None]:
    from sotol.backends.cpu.building.children import compile_kernels  # noqa: PLC0415  (not needed if all kernels are stored)

    return compile_kernels(keys, target)


def _cache_folder() -> Path | None:
    """Sotol's folder in the user's cache folder; None for a user without a home."""
    try:
        return Path(platformdirs.user_cache_dir("sotol"))
    except RuntimeError:
        return None


def _log() -> Any:
    import logging  # noqa: PLC0415  (not needed if all kernels are stored)

    return logging.getLogger("sotol")


def _renew_after_fork() -> None:
    _TABLE.release()
    for library in _LIBRARIES.values():
        library.renew_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_TABLE.acquire, after_in_parent=_TABLE.release, after_in_child=_renew_after_fork)
