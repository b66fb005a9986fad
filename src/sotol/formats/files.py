"""A model's file while it is being loaded: regular, open, mapped, and the same from beginning to end.

Weights are views of the mapping, which costs no memory until it is read. To read them there is dangerous, though: the
system answers with SIGBUS where the file was cut short meanwhile. `copy_bytes` takes the same bytes with read(), which
gives an error.
"""

import mmap
import os
import stat
import threading
from collections.abc import Iterable
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import Self

import numpy as np

from sotol.errors import FormatError, ModelNotFoundError, explained
from sotol.formats.weights import Weight
from sotol.quant import UInt8Array

__all__ = ["ModelFile", "copy_bytes", "files_of", "in_memory"]


class ModelFile(mmap.mmap):
    """A file that stays open and mapped while an array of its bytes lives."""

    path: Path
    _file: "Held"
    _facts: tuple[int, ...]  # what changes if somebody writes to it
    _turn: threading.Lock  # for systems that can't read at a place

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raises ModelNotFoundError, FormatError for what is not a regular file or is empty, else SotolError."""
        with explained(f"opening {path}"):
            try:
                # Before it is opened: a pipe would wait for a writer, and some devices act on being opened.
                check_kind(path, path.stat())
                file = Held(path)
            except FileNotFoundError:
                raise ModelNotFoundError(f"{path}: there is no such file") from None
            except ValueError as error:  # a zero in the name, or half a surrogate pair
                raise FormatError(f"{str(path)!r:.200} can't be the name of a file: {error}") from None
            found = os.fstat(file.fileno())
            check_kind(path, found)
            if found.st_size == 0:
                raise FormatError(f"{path}: is empty")
            self = cls(file.fileno(), found.st_size, access=mmap.ACCESS_READ)
            self.path, self._file, self._facts, self._turn = path, file, facts(found), threading.Lock()
            return self

    def copy_to(self, out: UInt8Array, start: int) -> None:
        """Fill a flat array with the bytes from `start` on. FormatError if the file has become too short."""
        view, done = out.data, 0
        with explained(f"reading {self.path}"):
            while done < len(view):
                count = self._read(view[done:], start + done)
                if count == 0:
                    self.fail()
                done += count

    def _read(self, view: memoryview, start: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._file.fileno(), [view], start)
        with self._turn:
            self._file.seek(start)
            return self._file.readinto(view)

    def check(self) -> None:
        """FormatError if the file is not as it was when it was opened, or another has its name now.

        That it was deleted does not matter: it is there until it is closed.
        """
        with explained(f"looking at {self.path}"):
            if facts(os.fstat(self._file.fileno())) != self._facts:
                self.fail()
            try:
                there = self.path.stat()
            except FileNotFoundError:
                return
            if facts(there) != self._facts:
                self.fail()

    def fail(self) -> None:
        """Raise what is to be said of a file that changed."""
        raise FormatError(f"{self.path}: was changed while it was read: load it again when it is complete")


class Held(FileIO):
    """An open file that is closed when it is lost, at whatever moment: that is meant, and no reason for a warning."""

    __del__ = FileIO.close  # a function in C: one in Python could be interrupted


def check_kind(path: Path, found: os.stat_result) -> None:
    """FormatError for what is no regular file."""
    if stat.S_ISDIR(found.st_mode):
        raise FormatError(f"{path}: is a folder: give the path of a .gguf file")
    if not stat.S_ISREG(found.st_mode):
        raise FormatError(f"{path}: is not a regular file")


def facts(found: os.stat_result) -> tuple[int, ...]:
    """Which file it is, and what a write changes of it."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def file_of(data: UInt8Array) -> ModelFile | None:
    """The file that an array is a view of, if it is one."""
    owner: object = data
    while isinstance(owner, np.ndarray):
        owner = owner.base
    mapped = owner.obj if isinstance(owner, memoryview) else owner
    return mapped if isinstance(mapped, ModelFile) else None


def files_of(weights: Iterable[Weight]) -> list[ModelFile]:
    """The files that these weights are views of, each once."""
    files = {id(file): file for weight in weights if (file := file_of(weight.data)) is not None}
    return list(files.values())


def copy_bytes(data: UInt8Array, out: UInt8Array) -> None:
    """Copy flat bytes, which may be a view of a mapped file, into memory of the same size.

    FormatError if the file has become too short meanwhile, SotolError if it can't be read.
    """
    file = file_of(data)
    if file is None:
        np.copyto(out, data)
    else:
        file.copy_to(out, data.ctypes.data - np.frombuffer(file, np.uint8).ctypes.data)


def in_memory(weight: Weight) -> Weight:
    """The weight with bytes of its own. Raises as `copy_bytes`."""
    data = np.empty_like(weight.data)
    copy_bytes(weight.data, data)
    return replace(weight, data=data)
