"""The table of commands. Each is imported when it is called, and what it needs when it runs: help is there at once."""

import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Annotated

import typer

from sotol import __version__
from sotol.cli.guard import Commands, guarded
from sotol.cli.interrupts import INTERRUPTED, at_once, first_raises
from sotol.cli.other_names import normalised

__all__ = ["COMMANDS", "main", "make_app"]

# Each is a function of the same name in the module sotol.cli.<name>, which may have a class for it, COMMAND.
COMMANDS = (
    "run", "serve", "pull", "list", "show", "rm", "alias", "ps", "stop", "info", "tokenize", "bench", "profile",
    "convert", "quantize", "imatrix", "perplexity", "split", "merge", "cache", "completion",
)  # fmt: skip

EXIT_CODES = """Exit codes: 0 all went well; 1 a file, a model or the machine is at fault; 2 an option or a prompt is;
130 interrupted by Ctrl-C, 143 by SIGTERM; 141 the reader of the output went away."""


def make_app(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """`sotol` with these commands."""
    # Typer's own help is plain text: it needs no further import, and reads the same in a terminal, a pipe and the docs.
    app = typer.Typer(
        cls=Commands,
        help="Run language models on this machine.",
        epilog=EXIT_CODES,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={
            "help_option_names": ["-h", "--help"],
            "token_normalize_func": normalised,
        },
    )
    app.callback()(_options)
    for name in names:
        module = import_module(f"sotol.cli.{name}")
        app.command(name, cls=getattr(module, "COMMAND", None))(guarded(getattr(module, name)))
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sotol {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of `sotol` itself; `--version` acts while it is read."""


def main() -> None:
    """The console script."""
    try:
        first_raises()
        try:
            called = sys.argv[1:2]  # the others are not made, if it is one: that takes a millisecond for each
            make_app(called if called and called[0] in COMMANDS else COMMANDS)(prog_name="sotol")
        finally:
            at_once()  # nothing is left to put in order
    except KeyboardInterrupt:  # outside of commands, which tell of theirs
        sys.exit(INTERRUPTED)
