"""The kernels of this process: callable addresses, from the store on disk (`store.py`) or from child processes that
compile them (`children.py`).

A kernel that is kept is put into memory as it is (`linking.py`), so a warm start imports neither Numba nor LLVM. It is
kept by a digest of all that it is made from (`sources.py`): an edited helper can never run as its old self.
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

Progress = Callable[[int, int], None]  # kernels compiled so far, kernels to compile

_LIBRARIES = dict["Target", "Library"]()  # the process's, for good: code in use stays where it is
# Held while a library is made, and while the process forks: a child finds the table whole.
_TABLE = threading.RLock()


class Code(NamedTuple):
    """A kernel in memory."""

    address: int
    fields: str  # its argument block: see layout.parse_fields


class Library:
    """The kernels of one CPU level; `library_for` keeps one for each. Threads may share it."""

    def __init__(self, target: Target, store: KernelStore) -> None:
        """For good: if a library is lost, so is the code that it gave out."""
        self.target = target
        self._store = store
        self._codes: dict[Key, Code] = {}
        self._memory: list[Memory] = []
        self._turn = threading.RLock()  # one thread compiles, and others wait for what it may bring

    def load(self, keys: Sequence[Key], progress: Progress | None = None) -> dict[Key, Code]:
        """The kernels of these keys, compiling those that were never compiled on this machine.

        progress is called by this thread; what it raises ends the compiling and is raised here. Without it a line in
        the log says that kernels are compiled. Raises SotolError if a kernel does not compile, or no process for it can
        be started.
        """
        with self._turn:
            wanted = [key for key in dict.fromkeys(keys) if key not in self._codes]
            if wanted:
                self._map(self._obtain(wanted, progress))
            return {key: self._codes[key] for key in keys}

    def renew_lock(self) -> None:
        """For a child after a fork, in which no other thread is left to end its turn."""
        self._turn = threading.RLock()

    def _obtain(self, keys: Sequence[Key], progress: Progress | None) -> dict[Key, Compiled]:
        """The kernels, from the store or by compiling, which is done together with other processes."""
        said = list[str]()

        def complain(why: str) -> None:
            if not said:  # one line, however many files it is about
                _log().warning("kernels are compiled for this process: %s", why)
            said.append(why)

        found = self._store.read(keys, complain)
        total = len(keys) - len(found)
        if not total:
            return found
        # A warning is what programs show that set up no log. Without any word they would seem to hang for a minute.
        tell = _log().warning if progress is None and not said else _log().info
        tell("compiling %d kernels for this CPU, to keep them in %s", total, self._store)

        def report() -> None:
            if progress is not None:
                progress(total - (len(keys) - len(found)), total)

        def missing() -> list[Key]:
            """What is still to be compiled, less what other processes have kept meanwhile."""
            before = len(found)
            found.update(self._store.read([key for key in keys if key not in found], complain))
            if len(found) > before:
                report()
            return [key for key in keys if key not in found]

        report()
        with self._store.sharing(complain) as sharing:
            for part in sharing.parts(missing):
                with closing(_compiled(part, self.target)) as ready:
                    for key, data in ready:
                        found[key] = unseal(data, self._store.label(key))
                        sharing.keep(key, data)
                        report()
        return found

    def _map(self, found: Mapping[Key, Compiled]) -> None:
        """Put kernels into memory where they can run."""
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
    from sotol.backends.cpu.building.stores import stores_in  # noqa: PLC0415  (a model has no use for it)

    top = _cache_folder()
    try:
        return [] if top is None else stores_in(top, source_digest())
    except OSError as error:
        raise SotolError(f"the folder of compiled kernels can't be read: {error}") from error


def clear() -> None:
    """Remove all compiled kernels from the disk; processes that run keep theirs.

    Raises SotolError where that can't be done.
    """
    from sotol.backends.cpu.building.stores import remove_stores  # noqa: PLC0415  (a model has no use for it)

    top = _cache_folder()
    try:
        if top is not None:
            remove_stores(top)
    except OSError as error:
        raise SotolError(f"the folder of compiled kernels can't be removed: {error}") from error


def _compiled(keys: Sequence[Key], target: Target) -> Generator[tuple[Key, bytes], None, None]:
    from sotol.backends.cpu.building.children import compile_kernels  # noqa: PLC0415  (a warm start compiles nothing)

    return compile_kernels(keys, target)


def _cache_folder() -> Path | None:
    """Sotol's folder in the user's cache folder; None for a user without a home."""
    try:
        return Path(platformdirs.user_cache_dir("sotol"))
    except RuntimeError:
        return None


def _log() -> Any:
    import logging  # noqa: PLC0415  (a warm start has nothing to say)

    return logging.getLogger("sotol")


def _renew_after_fork() -> None:
    _TABLE.release()
    for library in _LIBRARIES.values():
        library.renew_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_TABLE.acquire, after_in_parent=_TABLE.release, after_in_child=_renew_after_fork)
