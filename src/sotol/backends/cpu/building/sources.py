"""The sources of kernels: a digest of them, and where the packages are that compile them."""

import hashlib
import sys
from functools import cache
from pathlib import Path

from sotol.errors import SotolError

__all__ = ["kernel_sources", "places", "source_digest"]

# Files and folders of the CPU backend, and of sotol, that decide what the kernels' machine code is.
_OF_THE_BACKEND = (
    "kernel.py", "layout.py", "panels.py", "target.py", "kernels", "vectors", "building/compile.py",
    "building/linking.py", "building/stored.py",
)  # fmt: skip
_OF_SOTOL = ("formats/weights.py", "quant")


def kernel_sources() -> list[Path]:
    """The files of sotol that decide what the kernels' machine code is."""
    archive = getattr(__spec__.loader, "archive", None)
    if archive is not None:  # sotol is in a zip file
        return [Path(archive)]
    backend = Path(__file__).parents[1]
    sotol = backend.parents[1]
    named = [*(backend / name for name in _OF_THE_BACKEND), *(sotol / name for name in _OF_SOTOL)]
    return sorted(path for place in named for path in (place.glob("*.py") if place.is_dir() else [place]))


@cache
def source_digest() -> str:
    """A digest of all that decides what the kernels' machine code is, but for the CPU level.

    Raises SotolError where Numba is missing.
    """
    digest = hashlib.sha256(sys.platform.encode())  # machine code depends on the system: see compile._on_this_system
    for path in kernel_sources():
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    for package in ("numba", "llvmlite"):  # has the version; importlib.metadata takes longer
        digest.update((Path(places()[package]) / package / "_version.py").read_bytes())
    return digest.hexdigest()[:16]


@cache
def places() -> dict[str, str]:
    """The folders (or zip files) that hold the packages which compile kernels, by package.

    sotol and NumPy are those that this process uses. The others are looked for beside NumPy, then along sys.path, but
    never in the current folder, which may have anybody's files. Raises SotolError where one is missing.
    """
    import numpy as np  # noqa: PLC0415  (only processes that run kernels need it)

    found = {"sotol": str(Path(__file__).parents[4]), "numpy": str(Path(np.__file__).parents[1])}
    return found | {package: _place_of(package, found["numpy"]) for package in ("numba", "llvmlite")}


def _place_of(package: str, beside: str) -> str:
    for place in (beside, *sys.path):
        folder = Path(place)
        if (folder / package / "_version.py").is_file() and folder.is_absolute() and not _is_current(folder):
            return place
    raise SotolError(f"{package}, which compiles kernels, is neither in {beside} nor on sys.path: install it")


def _is_current(folder: Path) -> bool:
    try:
        return folder.samefile(Path.cwd())
    except OSError:  # the current folder was removed
        return False
