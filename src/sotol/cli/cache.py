"""`sotol cache`: where compiled kernels and models are on this machine, how large they are; and an end to kernels."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import typer

from sotol.catalog import installed
from sotol.cli.options import Json, NoColor
from sotol.cli.output import as_json, cell, console, show, size_of, write_piece

__all__ = ["cache"]


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
    """Show where kernels and models are kept, and their sizes.

    Kernels are compiled on a first use, a minute or two, and kept: half a MB to a few for each CPU level. Models that
    come as Python packages are removed by pip uninstall.
    """
    from sotol.backends.cpu.building.library import clear, stores  # noqa: PLC0415  (`sotol --help` does without)

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
    old = [store for store in found if not store.current]
    kernels: list[tuple[object, ...]] = [
        (s.level, size_of(s.bytes), s.files, "in use" if s.current else "of another version", s.path)
        for s in (found if len(old) < 2 else found[: -len(old)])
    ]
    if len(old) > 1:  # each change of version leaves some
        size, files = size_of(sum(s.bytes for s in old)), sum(s.files for s in old)
        kernels.append((f"{len(old)} more", size, files, "of other versions", old[0].path.parent.parent))
    _show(("kernels", "size", "files", "", "folder"), kernels, color=not no_color)
    rows = [(name, size_of(path.stat().st_size), path) for name, path in models.items()]
    _show(("\nmodel", "\nsize", "\nfile"), rows, color=not no_color)


def _show(head: Sequence[str], rows: Sequence[Sequence[object]], *, color: bool) -> None:
    from rich.table import Table  # noqa: PLC0415  (see output.py)

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for i, name in enumerate(head):
        table.add_column(name, style="" if i else "cyan", overflow="fold")
    for row in rows or [["none"]]:
        table.add_row(*(cell(value) for value in row))
    show(console(color=color), table)
