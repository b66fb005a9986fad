"""`sotol list`: the models of this machine that have names."""

import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from sotol.aliases import aliases
from sotol.catalog import find_model, installed
from sotol.cli.options import Json, NoColor
from sotol.cli.output import as_json, cell, console, show, size_of, write_piece
from sotol.errors import SotolError

__all__ = ["list"]

HEAD = ("name", "encoding", "size", "used", "aliases")


def list(json: Json = False, no_color: NoColor = False) -> None:  # noqa: A001  (the command's name)
    """Show the models of this machine that have names.

    Those that were pulled, and those that come as Python packages: their names, encodings, sizes, when they were last
    read, and aliases. A path needs no name: it goes wherever these do.
    """
    models = _models()
    if json:
        write_piece(as_json({"models": models}) + "\n", sys.stdout)
        return
    from rich.table import Table  # noqa: PLC0415  (see output.py)

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for i, name in enumerate(HEAD):
        table.add_column(name, style="" if i else "cyan", overflow="fold", justify="right" if i == 2 else "left")
    for model in models:
        used = datetime.fromtimestamp(model["used"]).astimezone().strftime("%Y-%m-%d %H:%M")
        row = (model["name"], model["encoding"], size_of(model["bytes"]), used, ", ".join(model["aliases"]))
        table.add_row(*map(cell, row))
    show(console(color=not no_color), table)


def _models() -> tuple[dict[str, Any], ...]:
    """All of them, as data for JSON; the time of use in seconds of Unix."""
    from sotol.hub import pulled  # noqa: PLC0415  (`sotol --help` does without)
    from sotol.hub.choosing import RepoFile, choices  # noqa: PLC0415
    from sotol.hub.places import places  # noqa: PLC0415

    named: dict[str, tuple[str, Path, int, float]] = {}
    for name, path in installed().items():
        stat, [choice] = path.stat(), choices([RepoFile(path.name)])
        named[name] = choice.label, path, stat.st_size, stat.st_atime
    for model in pulled(places().cache):
        named[model.name] = model.label, model.path, model.bytes, model.used
    short: dict[Path, Any] = {}
    for alias in aliases():
        with suppress(SotolError, ValueError):  # of a model that is not here
            short.setdefault(find_model(alias), []).append(alias)
    return tuple(
        {"name": name, "encoding": label, "bytes": size, "used": used, "path": str(path),
         "aliases": short.get(path, [])}
        for name, (label, path, size, used) in named.items()
    )  # fmt: skip
