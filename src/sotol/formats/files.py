"""A model's file while it is being loaded: a regular file, open and memory-mapped, that must not change meanwhile.

Weights are views of the mapping, which costs no memory until it is read. But reading the mapping directly is dangerous:
if the file has been truncated meanwhile, the process gets SIGBUS. `copy_bytes` takes the same bytes with read(), which
gives an error instead.
"""

import mmap
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import Self

import numpy as np

from sotol.arrays import UInt8Array
from sotol.errors import FormatError, ModelNotFoundError, explained
from sotol.formats.weights import Stored, Weight

__all__ = ["ModelFile", "copied", "copied_rows", "copy_bytes", "files_of", "in_memory", "is_hub_model"]

PIECE_BYTES = 1 << 24


class ModelFile(mmap.mmap):
    """A file that stays open and mapped as long as an array references its bytes."""

    path: Path
    _file: "OpenFile"
    _facts: tuple[int, ...]  # to detect that somebody wrote to it
    _turn: threading.Lock  # for systems without preadv: seek and read must not be interrupted

    @classmethod
    def open(cls, path: Path) -> Self:
        """ModelNotFoundError, FormatError if it is empty or not a regular file, SotolError for other failures."""
        with explained(f"opening {path}"):
            try:
                # Check before opening: a pipe would wait for a writer, and opening a device may have effects.
                check_kind(path, path.stat())
                file = OpenFile(path)
            except FileNotFoundError:
                raise ModelNotFoundError(f"{path}: there is no such file") from None
            except ValueError as error:  # a null character in the name, or half a surrogate pair
                raise FormatError(f"{str(path)!r:.200} can't be the name of a file: {error}") from None
            found = os.fstat(file.fileno())
            check_kind(path, found)
            if found.st_size == 0:
                raise FormatError(f"{path}: is empty")
            self = cls(file.fileno(), found.st_size, access=mmap.ACCESS_READ)
            self.path, self._file, self._facts, self._turn = path, file, facts(found), threading.Lock()
            return self

    def copy_to(self, out: UInt8Array, start: int, apart: int = 0) -> None:
        """Fill an array with the bytes from `start` on: a flat one, or rows whose bytes begin `apart` from each other.

        FormatError if the file has been truncated.
        """
        with explained(f"reading {self.path}"):
            for i, row in enumerate(out if out.ndim > 1 else (out,)):
                self._fill(row.data, start + i * apart)

    def _fill(self, view: memoryview, start: int) -> None:
        copied = self._read(view, start)
        while copied < len(view):
            count = self._read(view[copied:], start + copied)
            if count == 0:
                self.fail()
            copied += count

    def _read(self, view: memoryview, start: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._file.fileno(), [view], start)
        with self._turn:
            self._file.seek(start)
            return self._file.readinto(view)

    def check(self) -> None:
        """FormatError if the file has changed since it was opened, or another file has its name now.

        A deleted file is fine: its contents exist until it is closed.
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
        """Raise the FormatError for a changed file."""
        raise FormatError(f"{self.path}: was changed while it was read: load it again when it is complete")


class OpenFile(FileIO):
    """An open file that garbage collection closes without a ResourceWarning."""

    __del__ = FileIO.close  # a C function: a signal handler could interrupt one in Python


def is_hub_model(path: Path) -> bool:
    """Whether it is the path of a folder, or of a SafeTensors file: a model as Hugging Face's tools write it."""
    return path.suffix.lower() == ".safetensors" or path.is_dir()


def check_kind(path: Path, found: os.stat_result) -> None:
    """FormatError unless it is a regular file."""
    if stat.S_ISDIR(found.st_mode):
        raise FormatError(f"{path}: is a folder: give the path of a .gguf file")
    if not stat.S_ISREG(found.st_mode):
        raise FormatError(f"{path}: is not a regular file")


def facts(found: os.stat_result) -> tuple[int, ...]:
    """The file's identity, size and time of the last write."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def file_of(data: UInt8Array) -> ModelFile | None:
    """The file that an array is a view of, or None."""
    owner: object = data
    while isinstance(owner, np.ndarray):
        owner = owner.base
    mapped = owner.obj if isinstance(owner, memoryview) else owner
    return mapped if isinstance(mapped, ModelFile) else None


def files_of(weights: Iterable[Weight]) -> list[ModelFile]:
    """The files from which these weights are read, each once."""
    arrays = (array for weight in weights for array in weight.source.arrays)
    return list({id(file): file for array in arrays if (file := file_of(array)) is not None}.values())


def copy_bytes(data: UInt8Array, out: UInt8Array) -> None:
    """Copy contiguous bytes, which may be a view of a mapped file, into a flat array of the same size.

    Or rows of such bytes, which may lie apart, into rows of the same shape. FormatError if the file has been truncated,
    SotolError if it can't be read.
    """
    file = file_of(data)
    if file is None:
        np.copyto(out, data.reshape(out.shape))
    else:
        at = data.ctypes.data - np.frombuffer(file, np.uint8).ctypes.data
        file.copy_to(out, at, data.strides[0] if out.ndim > 1 else 0)


def copied(rows: UInt8Array) -> UInt8Array:
    """Rows of bytes, each of which is contiguous, in an array of their own. Errors as of `copy_bytes`."""
    out = np.empty(rows.shape, np.uint8)
    copy_bytes(rows, out.reshape(-1) if rows.flags.c_contiguous else out)
    return out


def in_memory(weight: Weight) -> Weight:
    """The weight with its own copy of the bytes. Errors as for `copy_bytes`."""
    return replace(weight, source=Stored(copied(weight.rows())), start=0)


def copied_rows(weight: Weight, most: int = PIECE_BYTES) -> Iterator[UInt8Array]:
    """The rows of a weight in pieces of at most `most` bytes or one row, each its own copy. Errors as of `copy_bytes`.

    The piece of a weight of experts is whole experts where one is not too large: some sources read whole ones anyway.
    """
    each = max(1, most // weight.row_bytes)
    expert = weight.shape[-2] if len(weight.shape) > 2 else 1
    if each > expert:
        each -= each % expert
    for first in range(0, weight.row_count, each):
        yield copied(weight.rows(first, min(first + each, weight.row_count)))
