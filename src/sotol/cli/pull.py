"""`sotol pull`: a model of the Hub by name, into the cache."""

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from sotol.aliases import target_of
from sotol.cli.bars import bars
from sotol.cli.options import Json, NoColor, Quiet
from sotol.cli.output import as_json, cell, console, show, size_of, write_piece
from sotol.cli.streams import say
from sotol.errors import plain

if TYPE_CHECKING:
    from pathlib import Path

    from sotol.hub import HubName
    from sotol.hub.pulling import Listing

__all__ = ["confirmed", "hub_name", "offered", "pull"]


def pull(
    name: Annotated[
        str,
        typer.Argument(
            help="ORG/REPO, ORG/REPO:ENCODING, ORG/REPO:FILE, or the address of a page of the Hub. Without an encoding"
            " Q4_K_M, or what is near to it.",
            show_default=False,
        ),
    ],
    list_: Annotated[bool, typer.Option("--list", "-l", help="Only show what models the repository has.")] = False,
    revision: Annotated[
        str | None, typer.Option("--revision", metavar="REVISION", help="A branch, a tag or a commit.")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            metavar="TOKEN",
            help="For private and gated models; HF_TOKEN, or what `hf auth login` has kept, if not given.",
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
) -> None:
    """Fetch a model of the Hub, and write its path.

    `sotol pull bartowski/SmolLM2-1.7B-Instruct-GGUF` fetches it, `sotol run bartowski/SmolLM2-1.7B-Instruct-GGUF` runs
    it. What is there already is not fetched again, and what was cut is gone on with. It needs one more package:
    pip install "sotol[hub]".
    """
    from sotol.hub import available  # noqa: PLC0415  (`sotol --help` does without)

    if json and not list_:
        raise ValueError("--json goes with --list: what is pulled is one path")
    asked = hub_name(name, revision)
    if list_:
        _show(available(asked, token=token), json=json, color=not no_color)
        return
    path = _pulled(asked, token=token, quiet=quiet, color=not no_color)
    write_piece(f"{path}\n", sys.stdout)


def hub_name(text: str, revision: str | None = None) -> "HubName":
    """The name of a model of the Hub, or an alias of one. ValueError for any other."""
    from sotol.hub import parse_name  # noqa: PLC0415  (as above)
    from sotol.hub.names import checked_revision  # noqa: PLC0415
    from sotol.hub.places import places  # noqa: PLC0415

    found = parse_name(target_of(text) or text, places().endpoint)
    if found is None:
        raise ValueError(f"{plain(repr(text))} is no name of the Hub: it must be as ORG/REPO, or ORG/REPO:Q4_K_M")
    if revision is None:
        return found
    if found.revision not in (None, revision):
        raise ValueError(f"the name says @{found.revision}, and --revision {plain(revision)}: give one of them")
    return found._replace(revision=checked_revision(revision))


def offered(name: str, *, quiet: bool, color: bool) -> bool:
    """Whether a person at a terminal wanted a model that is not here to be pulled, which then is done."""
    if quiet or sys.stdin is None or not sys.stdin.isatty() or not sys.stderr.isatty():
        return False
    if not confirmed(f"{plain(name)} is not here: pull it?", default=True):
        return False
    _pulled(hub_name(name), token=None, quiet=quiet, color=color)
    return True


def confirmed(question: str, *, default: bool = False) -> bool:
    """What a person at the terminal answers; the end of input is a no."""
    sys.stderr.write(f"{question} {'[Y/n]' if default else '[y/N]'} ")
    sys.stderr.flush()
    line = sys.stdin.readline()
    answer = line.strip().casefold()
    return answer in ("y", "yes") or (default and not answer and line != "")


def _pulled(asked: "HubName", *, token: str | None, quiet: bool, color: bool) -> "Path":
    from sotol.hub import pull as fetch  # noqa: PLC0415  (as above)

    unwanted = quiet or bool(os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS"))
    with bars(quiet=unwanted, color=color, sizes=True, stay=True) as progress:
        return fetch(asked, token=token, progress=progress, note=None if quiet else _note).path


def _note(text: str) -> None:
    say(f"sotol: {text}")


def _show(listing: "Listing", *, json: bool, color: bool) -> None:
    """The models of a repository, the smallest first."""
    found = sorted(listing.choices, key=lambda choice: choice.size)
    if json:
        record = {
            "commit": listing.commit,
            "models": [
                {"encoding": choice.label, "bytes": choice.size, "files": [file.path for file in choice.files]}
                for choice in found
            ],
        }
        write_piece(as_json(record) + "\n", sys.stdout)
        return
    from rich.table import Table  # noqa: PLC0415  (see output.py)

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for i, head in enumerate(("encoding", "size", "files")):
        table.add_column(head, style="" if i else "cyan", overflow="fold", justify="right" if i == 1 else "left")
    for choice in found:
        first = choice.files[0].path if choice.main else "config.json, …"
        more = f" and {len(choice.files) - 1} more" if choice.main and len(choice.files) > 1 else ""
        table.add_row(cell(choice.label), size_of(choice.size), cell(first + more))
    show(console(color=color), table)
