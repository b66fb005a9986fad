"""`sotol ps`: the models of a server, and what they do."""

import sys
from typing import Any

from sotol.cli.options import Json, NoColor, ServerAddress, ServerKey
from sotol.cli.output import as_json, cell, console, show, size_of, write_piece

__all__ = ["ps"]

HEAD = ("model", "status", "memory", "idle", "until unloaded")


def ps(server: ServerAddress = None, api_key: ServerKey = None, json: Json = False, no_color: NoColor = False) -> None:
    """Show the models of a server.

    Whether they are loaded, the memory that they take, how long nobody used them, and how long they stay.
    """
    from sotol.cli.server_client import ServerClient  # noqa: PLC0415  (`sotol --help` does without)

    models = ServerClient(server, api_key).models()
    if json:
        write_piece(as_json({"models": models}) + "\n", sys.stdout)
        return
    from rich.table import Table  # noqa: PLC0415  (see output.py)

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for i, name in enumerate(HEAD):
        table.add_column(name, style="" if i else "cyan", overflow="fold")
    for model in models:
        table.add_row(*map(cell, _row(model)))
    show(console(color=not no_color), table)


def _row(model: dict[str, Any]) -> tuple[str, ...]:
    """A model in words; other servers than sotol's say less of it."""
    names = [model["id"], *model.get("aliases", ())]
    status, memory = str(model.get("status", "")), model.get("memory")
    if model.get("error"):
        status += f": {model['error']}"
    ready = status == "ready"
    idle, expires = model.get("idle"), model.get("expires")
    busy = "in use" if ready else ""
    stays = "for ever" if ready and idle is not None else ""
    return (
        ", ".join(map(str, names)),
        status,
        size_of(memory) if isinstance(memory, int) and memory else "",
        _time(idle) if isinstance(idle, int | float) else busy,
        _time(expires) if isinstance(expires, int | float) else stays,
    )


def _time(seconds: float) -> str:
    """As 90 s, 5 min, 3 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
