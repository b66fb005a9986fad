"""A folder of files that will be executed: only this user and root may be able to write there.

Folders are opened one inside the other, and files inside the last; each is checked through its open descriptor. So
nobody can swap it between the check and the use. Windows has no such calls; there the user's own profile is trusted.
"""

import os
import stat
import sys
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["Locks", "PrivateFolder"]

_LARGEST = 1 << 26  # bytes of a file: a kernel has some ten thousand
_PARTIAL = ".partial"
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_BINARY = getattr(os, "O_BINARY", 0)  # on Windows
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # opening a named pipe would block


class PrivateFolder:
    """An open folder. Every method raises OSError; PermissionError says who else could have written what it names."""

    def __init__(self, path: Path, descriptor: int | None) -> None:
        """Use `open`. Takes over the descriptor, which is None on Windows."""
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def open(cls, top: Path, *names: str, make: bool = False) -> Self:
        """The folder top/name/name/…; with make, missing folders are made, for this user alone whatever the umask.

        The top may be reached through links, but the folders below it may not be links.
        """
        if not top.is_absolute():
            raise OSError(f"{str(top)!r} is not an absolute path: set XDG_CACHE_HOME to one")
        if make:
            for outer in reversed([top, *top.parents]):
                if not outer.exists():
                    _make(str(outer), None)
        folder = cls._opened(top, str(top), None, follow=True)
        for name in names:
            with folder:
                folder = folder._inner(name, make)
        return folder

    def _inner(self, name: str, make: bool) -> Self:
        if make:
            _make(self._place(name), self._descriptor)
        return self._opened(self.path / name, self._place(name), self._descriptor, follow=False)

    @classmethod
    def _opened(cls, path: Path, place: str, inside: int | None, *, follow: bool) -> Self:
        if sys.platform == "win32":
            if not path.is_dir():
                raise FileNotFoundError(f"{str(path)!r} is no folder")
            return cls(path, None)
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | (0 if follow else _NO_LINK), dir_fd=inside)
        try:
            _trust(os.fstat(descriptor), path)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def read(self, name: str) -> bytes:
        """A file's bytes, which may be cut short if it changes meanwhile. FileNotFoundError where there is none."""
        place = self._place(name)
        descriptor = os.open(place, os.O_RDONLY | _NO_LINK | _NO_WAIT | _BINARY, dir_fd=self._descriptor)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
                raise OSError(f"{str(self.path / name)!r} is no file of this kind")
            _trust(status, self.path, name)
            return os.read(descriptor, status.st_size)
        finally:
            os.close(descriptor)

    def write(self, name: str, data: bytes) -> None:
        """Write a file, readable for this user alone, atomically: it is there whole or not at all."""
        partial = self._place(f"{name}.{os.getpid()}{_PARTIAL}")
        with suppress(FileNotFoundError):  # left by a process that had this one's id
            os.unlink(partial, dir_fd=self._descriptor)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK | _BINARY
        descriptor = os.open(partial, flags, 0o600, dir_fd=self._descriptor)
        try:
            with os.fdopen(descriptor, "wb") as file:
                if sys.platform != "win32":
                    os.fchmod(descriptor, 0o600)
                file.write(data)
            place, inside = self._place(name), self._descriptor
            os.replace(partial, place, src_dir_fd=inside, dst_dir_fd=inside)
        except BaseException:
            with suppress(OSError):
                os.unlink(partial, dir_fd=self._descriptor)
            raise

    def remove_partial(self, names: Collection[str]) -> None:
        """Remove partial files of killed writers. The caller holds the locks of these names, so no writer is alive."""
        with os.scandir(self.path if self._descriptor is None else self._descriptor) as entries:
            for entry in entries:
                if entry.name.endswith(_PARTIAL) and entry.name.removesuffix(_PARTIAL).rpartition(".")[0] in names:
                    os.unlink(self._place(entry.name), dir_fd=self._descriptor)

    def touch(self, age: float, now: float) -> None:
        """Set the folder's time to `now`, which shows that it is in use, if it is older than `age` seconds."""
        status = self.path.stat() if self._descriptor is None else os.fstat(self._descriptor)
        if status.st_mtime < now - age:
            os.utime(self.path if self._descriptor is None else self._descriptor, (now, now))

    def locks(self, name: str) -> "Locks":
        """Locks between processes, on a file of this name."""
        flags = os.O_RDWR | os.O_CREAT | _NO_LINK | _BINARY
        descriptor = os.open(self._place(name), flags, 0o600, dir_fd=self._descriptor)
        if sys.platform != "win32":
            with suppress(PermissionError):  # it is root's, and has the right mode
                os.fchmod(descriptor, 0o600)
        return Locks(descriptor)

    def _place(self, name: str) -> str:
        return name if self._descriptor is not None else str(self.path / name)


class Locks:
    """Numbered locks, each held by one process at a time. The system releases them when a process ends, however."""

    def __init__(self, descriptor: int) -> None:
        """Takes over the descriptor of a file: lock n is its byte n, which need not exist."""
        self._descriptor = descriptor

    def take(self, number: int) -> bool:
        """Take a lock, or say that another process has it. OSError where the system has no locks for the file."""
        try:
            if sys.platform == "win32":
                os.lseek(self._descriptor, number, os.SEEK_SET)
                msvcrt.locking(self._descriptor, msvcrt.LK_NBLCK, 1)
            else:
                # Unlike flock's, this lock is not inherited by forked processes, which may outlive the owner.
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def release(self, number: int) -> None:
        """Release a lock."""
        if sys.platform == "win32":
            os.lseek(self._descriptor, number, os.SEEK_SET)
            msvcrt.locking(self._descriptor, msvcrt.LK_UNLCK, 1)
        else:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, number)

    def close(self) -> None:
        """Release all locks."""
        os.close(self._descriptor)


def _make(place: str, inside: int | None) -> None:
    """Make a folder that only this user can read, if there is none."""
    with suppress(FileExistsError):
        os.mkdir(place, 0o700, dir_fd=inside)
        if sys.platform != "win32":
            os.chmod(place, 0o700, dir_fd=inside)  # the umask may have removed permissions


def _trust(status: os.stat_result, folder: Path, name: str = "") -> None:
    """Raise PermissionError if others than this user and root could have written the folder, or the file in it."""
    if sys.platform == "win32":
        return
    if status.st_uid not in (0, os.geteuid()):
        raise PermissionError(f"{str(folder / name)!r} belongs to another user: remove it or set XDG_CACHE_HOME")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"{str(folder / name)!r} may be written by other users: remove it or set XDG_CACHE_HOME")
