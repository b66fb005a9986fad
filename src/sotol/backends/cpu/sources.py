"""What kernels are made from: a digest of it, and where the packages are that compile them."""

import hashlib
import sys
from functools import cache
from pathlib import Path

from sotol.errors import SotolError

__all__ = ["kernel_sources", "places", "source_digest"]

# Files beside the kernels that no kernel is made from: to edit them compiles nothing anew.
_AROUND_KERNELS = frozenset(
    {
        "child.py", "children.py", "folder.py", "library.py", "lower.py", "machine.py", "packing.py", "runner.py",
        "sources.py", "store.py", "stores.py", "threads.py",
    }
)  # fmt: skip


def kernel_sources() -> list[Path]:
    """The files of sotol that decide what the kernels' machine code is."""
    archive = getattr(__spec__.loader, "archive", None)
    if archive is not None:  # sotol in a zip file, which has no files to tell apart
        return [Path(archive)]
    package = Path(__file__).parent
    sotol = package.parents[1]
    kernels = [path for path in package.rglob("*.py") if path.name not in _AROUND_KERNELS]
    return sorted([*kernels, *(sotol / "quant").glob("*.py"), sotol / "formats" / "weights.py"])


@cache
def source_digest() -> str:
    """A digest of all that decides what the kernels' machine code is, but for the CPU level.

    Raises SotolError where Numba is missing.
    """
    digest = hashlib.sha256(sys.platform.encode())  # systems have object files of their own
    for path in kernel_sources():
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    for package in ("numba", "llvmlite"):  # the file that says the version: to ask for it by name takes longer
        digest.update((Path(places()[package]) / package / "_version.py").read_bytes())
    return digest.hexdigest()[:16]


@cache
def places() -> dict[str, str]:
    """The folders (or zip files) that hold the packages which compile kernels, by package.

    sotol and NumPy are those that this process runs. The others are looked for beside NumPy, then along sys.path, but
    not in the current folder: what lies there is data. Raises SotolError where one is missing.
    """
    import numpy as np  # noqa: PLC0415  (only where kernels run)

    found = {"sotol": str(Path(__file__).parents[3]), "numpy": str(Path(np.__file__).parents[1])}
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
