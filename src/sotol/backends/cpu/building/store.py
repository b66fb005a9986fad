"""Compiled kernels on disk: TOP/kernels/SOURCES/LEVEL/KEY.o, each as `stored.py` says, in folders of `folder.py`.

Files that can't be trusted, read or written are skipped and reported through `complain`: the store only makes starts
faster, and nothing depends on it.
"""

import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from sotol.backends.cpu.building.folder import Locks, PrivateFolder
from sotol.backends.cpu.building.stored import Compiled, Key, file_name, label, unseal

__all__ = ["ENDING", "KERNELS", "KernelStore", "Sharing"]

Complain = Callable[[str], None]

KERNELS, ENDING = "kernels", ".o"
_LOCKS = "lock"
_DAY = 24 * 3600
_UNUSED = 30 * _DAY  # kernels of other sources that were not used for so long are removed
_POLL = 0.1  # seconds between two looks for what another process has compiled
_PATIENCE = 120  # seconds to wait for another process to store a kernel: far more than compiling one takes


class KernelStore:
    """Where the kernels of one level are kept."""

    def __init__(self, top: Path | None, sources: str, level: str) -> None:
        """top: the cache folder of sotol, None where none is known."""
        self._top, self._sources, self._level = top, sources, level

    def __str__(self) -> str:
        """Its folder, for messages."""
        return "memory" if self._top is None else str(self._top.joinpath(KERNELS, self._sources, self._level))

    def label(self, key: Key) -> str:
        """What a kernel must be for to be kept here (`stored.label`)."""
        return label(self._sources, self._level, key)

    def read(self, keys: Sequence[Key], complain: Complain) -> dict[Key, Compiled]:
        """Those of the kernels that are stored, undamaged and trustworthy."""
        found = dict[Key, Compiled]()
        try:
            with self._folder() as folder:
                with suppress(OSError):  # it may belong to root
                    folder.touch(_DAY, time.time())
                for key in keys:
                    try:
                        found[key] = unseal(folder.read(_file(key)), self.label(key))
                    except FileNotFoundError:
                        continue
                    except (OSError, ValueError) as error:
                        complain(_why(error, folder.path / _file(key)))
        except FileNotFoundError:
            pass
        except OSError as error:
            complain(_why(error, str(self)))
        return found

    @contextmanager
    def sharing(self, complain: Complain) -> Iterator["Sharing"]:
        """While kernels are compiled: divides the work with other processes, and stores what is compiled."""
        with ExitStack() as stack:
            folder, locks = None, None
            try:
                folder = stack.enter_context(self._folder(make=True))
                locks = stack.enter_context(closing(folder.locks(_LOCKS)))
            except OSError as error:  # in a read-only folder, storing will fail, too
                complain(_why(error, str(self)))
            yield Sharing(folder, locks, complain)
            if locks is not None:
                self._remove_unused()

    def _folder(self, *, make: bool = False) -> PrivateFolder:
        if self._top is None:
            raise OSError("no home folder is known: set HOME or XDG_CACHE_HOME")
        return PrivateFolder.open(self._top, KERNELS, self._sources, self._level, make=make)

    def _remove_unused(self) -> None:
        """Remove the kernels of other versions of the sources that nobody has used for long."""
        assert self._top is not None
        with suppress(OSError):
            for version in (self._top / KERNELS).iterdir():
                used = max(path.stat().st_mtime for path in (version, *version.iterdir()))
                if version.name != self._sources and used < time.time() - _UNUSED:
                    shutil.rmtree(version)


class Sharing:
    """Kernels that are being compiled, by this process and others. Use `KernelStore.sharing`."""

    def __init__(self, folder: PrivateFolder | None, locks: Locks | None, complain: Complain) -> None:
        """folder: where kernels go, None for nowhere; locks: one for each kernel, None where there are none."""
        self._folder, self._locks, self._complain = folder, locks, complain

    def claims(self, missing: Callable[[], Sequence[Key]]) -> Iterator[Sequence[Key]]:
        """Yield what this process is to compile, until nothing is missing. Waits for what other processes compile.

        missing: returns which kernels are not stored yet. If a process dies, the others compile its kernels; if it
        stores none for long, they stop waiting for it.
        """
        left, since = missing(), time.monotonic()
        while left:
            mine = self._claim(left) if time.monotonic() - since < _PATIENCE else left
            before, left = len(left), missing()  # another process may have stored one just before it was claimed
            self._release([key for key in mine if key not in left])
            if mine := [key for key in mine if key in left]:
                yield mine
                left = missing()
            elif left:
                time.sleep(_POLL)
            if len(left) < before:
                since = time.monotonic()

    def keep(self, key: Key, data: bytes) -> None:
        """Store a sealed kernel, for later starts and for other processes that wait for it."""
        if self._folder is not None:
            try:
                self._folder.write(_file(key), data)
            except OSError as error:
                self._complain(_why(error, self._folder.path / _file(key)))
        self._release([key])

    def _claim(self, keys: Sequence[Key]) -> Sequence[Key]:
        """Lock those kernels that no other process is compiling, and return them; all if there are no locks."""
        if self._locks is None or self._folder is None:
            return keys
        try:
            claimed = [key for key in keys if self._locks.take(_number(key))]
        except OSError:  # a file system without locks
            self._locks = None
            return keys
        if claimed:
            with suppress(OSError):
                self._folder.remove_partial({_file(key) for key in claimed})
        return claimed

    def _release(self, keys: Sequence[Key]) -> None:
        for key in keys:
            if self._locks is not None:
                with suppress(OSError):
                    self._locks.release(_number(key))


def _number(key: Key) -> int:
    """The number of a kernel's lock."""
    return zlib.crc32(file_name(key).encode())


def _file(key: Key) -> str:
    return file_name(key) + ENDING


def _why(error: Exception, path: str | Path) -> str:
    """One line that names an error and its path."""
    if isinstance(error, OSError) and error.errno is not None:
        return f"{os.strerror(error.errno)}: {str(path)!r}"
    return str(error) if isinstance(error, OSError) else f"{str(path)!r}: {error}"
