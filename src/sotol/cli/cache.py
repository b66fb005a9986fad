"""`sotol cache`: where compiled kernels and models are on this machine, how large they are; and an end to kernels."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer

from sotol.catalog import installed
from sotol.cli.options import Json, NoColor
from sotol.cli.output import as_json, cell, console, show, size_of, write_piece
from sotol.errors import SotolError

__all__ = ["Store", "cache", "clear", "stores"]


class Store(NamedTuple):
    """The compiled kernels of one CPU level and one version of sotol."""

    path: Path
    sources: str  # a digest of what they are made from
    level: str
    files: int
    bytes: int
    current: bool  # this version of sotol uses them


def cache(
    action: Annotated[
        Literal["show", "clear"],
        typer.Argument(
            metavar="[show|clear]",
            help="'clear' removes all compiled kernels: they are compiled again when needed.",
        ),
    ] = "show",
    json: Json = False,
    no_color: NoColor = False,
) -> None:
    """Show where kernels and models are kept, and how large they are.

    Kernels are compiled on a first use, a minute or two, and kept: half a MB to a few for each CPU level. Models that
    come as Python packages are removed by pip uninstall.
    """
    found = stores()
    if action == "clear":
        clear()
        files, size = sum(store.files for store in found), size_of(sum(store.bytes for store in found))
        write_piece(f"removed {files} kernels, {size}\n", sys.stdout)
        return
    models = {name: path for name, path in installed().items() if path.is_file()}
    if json:
        record: dict[str, Any] = {
            "kernels": [s._asdict() | {"path": str(s.path)} for s in found],
            "models": [{"name": n, "path": str(p), "bytes": p.stat().st_size} for n, p in models.items()],
        }
        write_piece(as_json(record) + "\n", sys.stdout)
        return
    kernels = [
        (s.level, size_of(s.bytes), s.files, "in use" if s.current else "of another version", s.path) for s in found
    ]
    _show(("kernels", "size", "files", "", "folder"), kernels, color=not no_color)
    rows = [(name, size_of(path.stat().st_size), path) for name, path in models.items()]
    _show(("\nmodel", "\nsize", "\nfile"), rows, color=not no_color)


def stores() -> list[Store]:
    """All compiled kernels of this user, those in use first. SotolError where the folder can't be read."""
    from sotol.backends.cpu.library import source_digest  # noqa: PLC0415

    current, found = source_digest(), list[Store]()
    try:
        for folder in sorted(_folder().glob("*/*")):
            sizes = [path.stat().st_size for path in folder.glob("*.o")]
            sources = folder.parent.name
            found.append(Store(folder, sources, folder.name, len(sizes), sum(sizes), sources == current))
    except OSError as error:
        raise SotolError(f"the folder of compiled kernels can't be read: {error}") from error
    return sorted(found, key=lambda store: not store.current)


def clear() -> None:
    """Remove all compiled kernels; processes that run keep theirs. SotolError where that can't be done."""
    from shutil import rmtree  # noqa: PLC0415  (other commands start without)

    try:
        rmtree(_folder())
    except FileNotFoundError:
        return
    except OSError as error:
        raise SotolError(f"the folder of compiled kernels can't be removed: {error}") from error


def _folder() -> Path:
    import platformdirs  # noqa: PLC0415

    return Path(platformdirs.user_cache_dir("sotol")) / "kernels"


def _show(head: Sequence[str], rows: Sequence[Sequence[object]], *, color: bool) -> None:
    from rich.table import Table  # noqa: PLC0415  (see output.py)

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for i, name in enumerate(head):
        table.add_column(name, style="" if i else "cyan", overflow="fold")
    for row in rows or [["none"]]:
        table.add_row(*(cell(value) for value in row))
    show(console(color=color), table)
