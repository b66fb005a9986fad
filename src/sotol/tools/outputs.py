"""Where the tools write to: looked at before any work is done."""

import os
from collections.abc import Iterable
from pathlib import Path

from sotol.errors import SotolError, explained
from sotol.formats.whole_file import check_replaceable

__all__ = ["check_outputs"]


def check_outputs(paths: Iterable[Path], *, force: bool, inputs: Iterable[Path | None] = ()) -> None:
    """SotolError where there is something already, unless it is a file and may be replaced, or nothing may be written.

    inputs: files that are read, and folders of such: nothing takes their place, force or not. Nothing is changed: a
    file is replaced when its successor is whole.
    """
    read = [
        file for path in inputs if path is not None for file in (path.iterdir() if path.is_dir() else [path])
    ]  # fmt: skip
    for path in paths:
        with explained(f"looking at {path}"):
            folder = path.absolute().parent
            if not folder.is_dir():
                raise SotolError(f"{path}: there is no folder {folder}")
            check_replaceable(path)
            if path.exists() and any(file.exists() and path.samefile(file) for file in read):
                raise SotolError(f"{path}: is what is read, and would be lost: give another path to write to")
            if path.exists() and not force:
                raise SotolError(f"{path}: is there already: give another path, or --force")
            if not os.access(folder, os.W_OK):
                raise SotolError(f"{path}: nothing may be written to the folder {folder}")
