"""The table of commands. What they need is imported when they run: `sotol --help` is there at once."""

import io
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from sotol import __version__
from sotol.cli.bench import bench
from sotol.cli.guard import guarded
from sotol.cli.info import info
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
}

EXIT_CODES = """Exit codes: 0 all went well; 1 a file, a model or the machine is at fault; 2 an option or a prompt is;
130 interrupted by Ctrl-C; 141 the reader of the output went away."""


# Typer's own help is plain text: it needs no further import, and reads the same in a terminal, a pipe and the docs.
app = typer.Typer(
    help="Run language models on this machine.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sotol {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of `sotol` itself; `--version` acts while it is read."""


for name, command in COMMANDS.items():
    app.command(name)(guarded(command))


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal or pipe that is not UTF-8 lacks most characters
    app(prog_name="sotol")
