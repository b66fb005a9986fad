"""`sotol rm`: a pulled model out of the cache."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from sotol.catalog import PACKAGED, find_model
from sotol.cli.options import complete_model
from sotol.cli.output import size_of, write_piece
from sotol.cli.pull import confirmed, hub_name
from sotol.errors import SotolError, plain

if TYPE_CHECKING:
    from sotol.hub import Pulled

__all__ = ["rm"]


def rm(
    name: Annotated[
        str, typer.Argument(help="As `sotol list` shows it.", autocompletion=complete_model, show_default=False)
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a model that was pulled.

    Files that another model of the repository, or another revision, needs stay.
    """
    from sotol.hub import remove  # noqa: PLC0415  (`sotol --help` does without)
    from sotol.hub.places import places  # noqa: PLC0415

    model = _found(name)
    if not yes:
        if sys.stdin is None or not sys.stdin.isatty():
            raise ValueError(f"nobody is there to ask whether {plain(model.name)} may go: give --yes")
        if not confirmed(f"remove {plain(model.name)}, {size_of(model.bytes)}?"):
            write_piece("nothing was removed\n", sys.stdout)
            return
    freed = remove(places().cache, model)
    write_piece(f"removed {plain(model.name)}, {size_of(freed)} are free again\n", sys.stdout)


def _found(name: str) -> "Pulled":
    """The model of the cache; SotolError for another kind of model, ValueError where several are meant."""
    from sotol.hub import find_pulled, pulled  # noqa: PLC0415  (as above)
    from sotol.hub.places import places  # noqa: PLC0415

    if name.casefold() in PACKAGED:
        known = PACKAGED[name.casefold()]
        raise SotolError(f"{name} comes as a Python package: pip uninstall {known.package.replace('_', '-')}")
    path, asked = find_model(name), hub_name(name)  # the first says what there is, if nothing of that name
    cache = places().cache
    same = [model for model in pulled(cache) if model.repo == asked.repo]
    if not asked.choice and len(same) > 1:
        names = ", ".join(plain(model.name) for model in same)
        raise ValueError(f"{plain(asked.repo)} has several models here: name one of {names}")
    model = find_pulled(cache, asked)
    if model is None or model.path != path:
        raise SotolError(f"{plain(path)} is a path, and not a model that was pulled")
    return model
