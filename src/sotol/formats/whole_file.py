"""Files and folders that are there whole or not at all: written beside their place, renamed when all is on the disk."""

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from sotol.arrays import UInt8Array
from sotol.errors import SotolError, explained

__all__ = ["WholeFile", "check_replaceable", "check_room", "whole_folder"]

LEFT = {
    "partial": "left of a run that was killed: it can be removed",
    "old": "what was at {} before a run that was killed: rename it, or remove it",
}
MODEL_SUFFIXES = {".json", ".safetensors", ".jinja", ".model", ".txt", ".md"}  # of the files of a model's folder


class WholeFile:
    """Writes a file under another name, `<name>.<process>.partial`, which no format's reader takes for a model.

    As a context manager it takes its place when the block ends well; after an error or Ctrl-C nothing is left of it,
    and what was in its place is as it was. SotolError for what the system refuses, which names the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        with explained(f"writing {path}"):
            check_replaceable(path)
            tell_what_is_left(path)
            self._file = self._partial.open("wb")
        self.finished = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def write(self, *pieces: bytes | UInt8Array) -> None:
        """Write bytes, or contiguous arrays of them, where the last ones ended."""
        with explained(f"writing {self.path}"):
            for piece in pieces:
                self._file.write(piece if isinstance(piece, bytes) else piece.data)

    def seek(self, place: int) -> None:
        """Go on writing at this byte."""
        with explained(f"writing {self.path}"):
            self._file.seek(place)

    def finish(self) -> None:
        """Nothing more is written: all of it goes to the disk, still under the other name."""
        with explained(f"writing {self.path}"):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        self.finished = True

    def close(self) -> None:
        """Take the place of the file, after `finish` where that was not called."""
        try:
            if not self.finished:
                self.finish()
            with explained(f"writing {self.path}"):
                self._partial.replace(self.path)
                sync_folder(self.path.parent)
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove what was written, unless it has taken its place."""
        with suppress(OSError):  # what is still buffered, and a full disk does not take
            self._file.close()
        self._partial.unlink(missing_ok=True)


def check_replaceable(path: Path) -> None:
    """SotolError for what no file may take the place of: a folder, a pipe, a device (/dev/null would be gone)."""
    if path.is_dir():
        raise SotolError(f"{path}: is a folder: give the path of a file")
    if path.exists() and not path.is_file():
        raise SotolError(f"{path}: is a device or a pipe: give the path of a file")


def tell_what_is_left(path: Path) -> None:
    """Warn of what runs that were killed have left beside a path: nobody else would know whose it is.

    It is not removed here: on a disk that several machines share, the process may run on another one.
    """
    if os.name != "posix":  # elsewhere nothing tells whether a process is there without touching it
        return
    beside = list[Path]()
    with suppress(OSError):  # a folder may be written to, but not read
        beside = sorted(path.absolute().parent.iterdir())
    for other in beside:
        number, _, what = other.name.removeprefix(f"{path.name}.").partition(".")
        if f"{path.name}.{number}.{what}" != other.name or not number.isdecimal() or what not in LEFT or runs(number):
            continue
        logging.getLogger("sotol").warning("%s is %s", other, LEFT[what].format(path))


def runs(number: str) -> bool:
    """Whether there is a process with this number, on this machine."""
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def sync_folder(folder: Path) -> None:
    """Let a rename outlive a loss of power, where folders can be opened."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def check_room(path: Path, sizes: Iterable[int]) -> None:
    """SotolError if the disk of a file that is to be written there has less room than all of it takes.

    sizes: bytes of each file. What is there already counts as used: it stays until the new file is whole.
    """
    from shutil import disk_usage  # noqa: PLC0415  (a start imports this file, and writes nothing)

    needed = sum(sizes)
    with explained(f"writing {path}"):
        free = disk_usage(path.parent).free
    if needed > free:
        raise SotolError(
            f"{path}: would have {needed / 1e6:,.0f} MB, and its disk has {free / 1e6:,.0f} MB free: make room for it"
        )


@contextmanager
def whole_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder that is there whole or not at all: the block fills the one that it gets, which then has this path.

    replace: a model's folder that is there already goes when the new one is whole. SotolError for anything else that is
    there; after an error or Ctrl-C nothing is left of the new one.
    """
    from shutil import rmtree  # noqa: PLC0415  (as above)

    path = path.absolute()
    with explained(f"writing {path}"):
        there = path.exists() and not (path.is_dir() and not any(path.iterdir()))
        if there and not replace:
            raise SotolError(f"{path}: is there already: give another path, or --force")
        if there and not is_model_folder(path):
            raise SotolError(f"{path}: has more than a model's files, so it is not replaced: give another path")
        tell_what_is_left(path)
        partial, old = (path.with_name(f"{path.name}.{os.getpid()}.{what}") for what in ("partial", "old"))
        partial.mkdir()
    try:
        yield partial
        with explained(f"writing {path}"):
            if path.exists():
                path.rename(old)
            partial.rename(path)
            sync_folder(path.parent)
            rmtree(old, ignore_errors=True)
    finally:
        rmtree(partial, ignore_errors=True)


def is_model_folder(path: Path) -> bool:
    """Whether it is a folder of files alone, all of kinds that belong to a model, config.json among them."""
    return (
        path.is_dir()
        and (path / "config.json").is_file()
        and all(item.is_file() and item.suffix in MODEL_SUFFIXES for item in path.iterdir())
    )
