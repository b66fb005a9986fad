"""A folder that holds a model as Hugging Face's tools write it: finding its files, and reading the small ones.

The folder is not trusted: what it names must lie in it. A link may lead to another file of the folder, or, in a
snapshot of the Hub's cache (`models--…/snapshots/<revision>`), into `blobs` beside `snapshots`, where the cache keeps
the files themselves, or into `blobs` beside `models--…`, where it keeps those of several repositories. Everything else
that leads out is refused, so a folder from elsewhere can't make sotol read files of its user's. Who links to a model
gives the path of the folder that holds it; that folder itself may be a link.
"""

import stat
from pathlib import Path

import numpy as np

from sotol.errors import FormatError, explained, plain
from sotol.formats.files import ModelFile
from sotol.formats.strict_json import parse_object

__all__ = ["Folder"]

MAX_TEXT_BYTES = 1 << 22  # of a chat template
MAX_JSON_BYTES = 1 << 28  # of any other file; the largest tokenizer.json has 33 MB


class Folder:
    """The files of a folder by name. Errors are FormatErrors that name the file."""

    def __init__(self, path: Path) -> None:
        """FormatError unless there is a folder at this path."""
        self.path = path
        with explained(f"looking at {path}"):
            if not path.is_dir():
                raise FormatError(f"{path}: is not a folder")
            real = path.resolve()
        self._roots = [real]
        if real.parent.name == "snapshots":
            self._roots.append(real.parent.parent / "blobs")
            if real.parent.parent.name.startswith("models--"):
                self._roots.append(real.parent.parent.parent / "blobs")

    def find(self, name: str) -> Path | None:
        """The path of a file of this name, None if there is none; FormatError for one that is not in the folder."""
        path = self.path / checked_name(name, self.path)
        with explained(f"looking at {path}"):
            try:
                if not stat.S_ISLNK(path.lstat().st_mode):
                    return path  # what is no link lies where its name says
            except FileNotFoundError:
                return None
            try:
                real = path.resolve(strict=True)
            except FileNotFoundError:
                raise FormatError(f"{path}: is a link to a file that is not there") from None
            except RuntimeError:  # before Python 3.13
                raise FormatError(f"{path}: is a link that leads back to itself") from None
            except OSError as error:
                raise FormatError(f"{path}: is a link that leads nowhere: {error.strerror}") from None
        if not any(real.is_relative_to(root) for root in self._roots):
            raise FormatError(f"{path}: is a link to a file outside of the folder: give the path of the real folder")
        return path

    def named(self, pattern: str) -> list[str]:
        """The names of all files that match a pattern, sorted."""
        with explained(f"looking at {self.path}"):
            return sorted(path.name for path in self.path.glob(pattern))

    def text(self, name: str) -> str | None:
        """A text in UTF-8; None if there is no such file."""
        data = self._bytes(name, MAX_TEXT_BYTES)
        try:
            return None if data is None else data.decode()
        except UnicodeDecodeError as error:
            raise FormatError(f"{self.path / name}: is not UTF-8 at byte {error.start}") from None

    def data(self, name: str) -> bytes | None:
        """All bytes of a file; None if there is no such file."""
        return self._bytes(name, MAX_JSON_BYTES)

    def json(self, name: str) -> dict[str, object] | None:
        """A JSON object; None if there is no such file."""
        data = self._bytes(name, MAX_JSON_BYTES)
        return None if data is None else parse_object(data, str(self.path / name))

    def _bytes(self, name: str, limit: int) -> bytes | None:
        path = self.find(name)
        if path is None:
            return None
        file = ModelFile.open(path)
        if len(file) > limit:
            raise FormatError(f"{path}: has {len(file)} bytes, and sotol reads at most {limit}")
        data = np.empty(len(file), np.uint8)
        file.copy_to(data, 0)
        return data.tobytes()


def checked_name(name: str, folder: Path) -> str:
    """A name that can only be a file's in the folder itself; FormatError for any other."""
    if name in ("", ".", "..") or any(mark in name for mark in "/\\\0:") or len(name) > 255:
        raise FormatError(f"{folder}: names the file {plain(repr(name), 80)}, which can't be a file of this folder")
    return name
