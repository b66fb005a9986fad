"""Compiled kernels on disk: TOP/kernels/SOURCES/LEVEL/KEY.o, each as `stored.py` says, in folders of `folder.py`.

What can't be trusted, read or written is passed over, and said through `complain`: a store makes starts faster, and
nothing depends on it.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from sotol.backends.cpu.folder import Lock, PrivateFolder
from sotol.backends.cpu.stored import Compiled, Key, file_name, label, unseal

__all__ = ["ENDING", "KERNELS", "KernelStore"]

Complain = Callable[[str], None]
Keep = Callable[[Key, bytes], None]

KERNELS, ENDING = "kernels", ".o"
_LOCK = "lock"
_DAY = 24 * 3600
_UNUSED = 30 * _DAY  # after so many seconds the kernels of other sources are removed
_GLANCE = 0.1  # seconds between two looks at what another process has compiled
_PATIENCE = 120  # seconds to wait for another process that stores nothing: far more than a kernel takes


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
        """Those of the kernels that are kept, whole and by nobody else's hand."""
        found = dict[Key, Compiled]()
        try:
            with self._folder() as folder:
                with suppress(OSError):  # kept by root, say
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
    def turn(self, missing: Callable[[], int], complain: Complain) -> Iterator[Keep]:
        """This process's turn to compile: gives what keeps a sealed kernel. It waits while another process compiles.

        missing: looks what is still to be compiled and says how many; at 0 there is no need to wait. It is asked once
        more when the wait is over.
        """
        try:
            folder = self._folder(make=True)
        except OSError as error:
            complain(_why(error, str(self)))
            yield lambda _key, _data: None
            return

        def keep(key: Key, data: bytes) -> None:
            try:
                folder.write(_file(key), data)
            except OSError as error:
                complain(_why(error, folder.path / _file(key)))

        with folder:
            try:
                lock = folder.lock(_LOCK)
            except OSError as error:  # a folder to read only: `keep` will fail, too
                complain(_why(error, folder.path))
                yield keep
                return
            with closing(lock):
                if _wait(lock, missing):
                    with suppress(OSError):
                        folder.remove_partial()
                missing()
                yield keep
                self._remove_unused()

    def _folder(self, *, make: bool = False) -> PrivateFolder:
        if self._top is None:
            raise OSError("no home folder is known: set HOME or XDG_CACHE_HOME")
        return PrivateFolder.open(self._top, KERNELS, self._sources, self._level, make=make)

    def _remove_unused(self) -> None:
        """Remove the kernels of sources that nobody has run for long."""
        assert self._top is not None
        with suppress(OSError):
            for version in (self._top / KERNELS).iterdir():
                used = max(path.stat().st_mtime for path in (version, *version.iterdir()))
                if version.name != self._sources and used < time.time() - _UNUSED:
                    shutil.rmtree(version)


def _wait(lock: Lock, missing: Callable[[], int]) -> bool:
    """Until this process has the lock (True), or needs it no more, or has reason to go on without it."""
    left, since = missing(), time.monotonic()
    while left and time.monotonic() - since < _PATIENCE:
        try:
            if lock.take():
                return True
        except OSError:  # a file system without locks
            return False
        time.sleep(_GLANCE)
        before, left = left, missing()
        since = time.monotonic() if left < before else since
    return False


def _file(key: Key) -> str:
    return file_name(key) + ENDING


def _why(error: Exception, path: str | Path) -> str:
    """One line for an error that met a path."""
    if isinstance(error, OSError) and error.errno is not None:
        return f"{os.strerror(error.errno)}: {str(path)!r}"
    return str(error) if isinstance(error, OSError) else f"{str(path)!r}: {error}"
