"""The table of commands. What they need is imported when they run: `sotol --help` is there at once."""

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from sotol import __version__
from sotol.cli.bench import bench
from sotol.cli.cache import cache
from sotol.cli.completion import completion
from sotol.cli.guard import Commands, guarded
from sotol.cli.info import info
from sotol.cli.interrupts import INTERRUPTED, at_once, first_raises
from sotol.cli.options import RunCommand, normalised
from sotol.cli.profile import profile
from sotol.cli.run import run
from sotol.cli.tokenize import tokenize

__all__ = ["COMMANDS", "app", "main"]

COMMANDS: dict[str, Callable[..., None]] = {
    "run": run,
    "info": info,
    "tokenize": tokenize,
    "bench": bench,
    "profile": profile,
    "cache": cache,
    "completion": completion,
}

EXIT_CODES = """Exit codes: 0 all went well; 1 a file, a model or the machine is at fault; 2 an option or a prompt is;
130 interrupted by Ctrl-C; 141 the reader of the output went away."""


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


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sotol {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of `sotol` itself; `--version` acts while it is read."""


for name, command in COMMANDS.items():
    app.command(name, cls=RunCommand if name == "run" else None)(guarded(command))


def main() -> None:
    """The console script."""
    try:
        first_raises()
        try:
            app(prog_name="sotol")
        finally:
            at_once()  # nothing is left to put in order
    except KeyboardInterrupt:  # outside of commands, which tell of theirs
        sys.exit(INTERRUPTED)
