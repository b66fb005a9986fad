"""Lists and removes the compiled kernels on disk, for `sotol cache`. Running a model does not need this."""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from sotol.backends.cpu.building.store import ENDING, KERNELS

__all__ = ["Store", "remove_stores", "stores_in"]


class Store(NamedTuple):
    """The kernels of one CPU level and one version of sotol, on disk."""

    path: Path
    sources: str  # a digest of their sources
    level: str
    files: int
    bytes: int
    current: bool  # whether this version of sotol would use them


def stores_in(top: Path, sources: str) -> list[Store]:
    """All compiled kernels in sotol's cache folder: first those of this version, then the newest.

    Raises OSError where it can't be read.
    """
    if not (top / KERNELS).is_dir():
        return []
    found = list[tuple[float, Store]]()
    for level in sorted(path for path in (top / KERNELS).glob("*/*") if path.is_dir()):
        sizes = [path.stat().st_size for path in level.glob(f"*{ENDING}")]
        digest = level.parent.name
        store = Store(level, digest, level.name, len(sizes), sum(sizes), digest == sources)
        found.append((level.stat().st_mtime, store))
    return [store for _, store in sorted(found, key=lambda item: (not item[1].current, -item[0]))]


def remove_stores(top: Path) -> None:
    """Remove all compiled kernels from sotol's cache folder. OSError where that can't be done."""
    with suppress(FileNotFoundError):
        shutil.rmtree(top / KERNELS)
