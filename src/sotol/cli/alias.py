"""`sotol alias`: the user's own names for models."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from sotol.aliases import aliases, aliases_path, set_alias
from sotol.catalog import PACKAGED, find_model
from sotol.cli.options import complete_model
from sotol.cli.output import write_piece
from sotol.errors import NotPulledError, SotolError, plain

__all__ = ["alias"]


def alias(
    name: Annotated[str | None, typer.Argument(help="The new name.", show_default=False)] = None,
    model: Annotated[
        str | None,
        typer.Argument(help="The model: a path or a name.", autocompletion=complete_model, show_default=False),
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Forget the name.")] = False,
) -> None:
    """Give a model a name of your own, or show those that you gave.

    They are lines of a TOML file, which may be edited by hand: small = "org/repo:Q4_K_M".
    """
    if name is None:
        shown = "".join(f"{plain(alias)}\t{plain(target)}\n" for alias, target in aliases().items())
        write_piece(shown or f"none yet; they will be in {aliases_path()}\n", sys.stdout)
        return
    known = {alias.casefold() for alias in aliases()}
    if remove == (model is not None):
        raise ValueError("give a name and a model, or a name and --remove")
    if model is None:
        if name.casefold() not in known:
            raise SotolError(f"there is no alias {plain(repr(name))}")
        set_alias(name, None)
        return
    if name.casefold() in PACKAGED:
        raise ValueError(f"{name} is the name of a model that comes with Python packages: choose another")
    with suppress(NotPulledError):  # it may be pulled later, by this name
        path = find_model(model)
        there = Path(model).expanduser()
        model = str(path.absolute()) if there.exists() and there.samefile(path) else model
    set_alias(name, model)
