"""docs/cli.md shows what the commands say. `python tests/cli/test_cli_docs.py` writes it anew."""

import re
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console
from typer.testing import CliRunner

from sotol.cli.app import COMMANDS, make_app
from sotol.cli.repl import Repl

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
BLOCK = re.compile(r"```console\n(?P<command>(?:\$ sotol|>) .*)\n(?:[^`]|`(?!``))*?```")


def said(command: str) -> str:
    """What a command of the page gives."""
    if command == "> /?":
        nothing: Any = None
        console = Console(file=StringIO(), width=120, color_system=None)
        Repl(nothing, console, nothing, nothing).take("/?")
        return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]
    arguments = command.removeprefix("$ sotol ").split()
    return CliRunner().invoke(make_app(), arguments, prog_name="sotol", env={"COLUMNS": "80"}).stdout


def rewritten(page: str) -> str:
    return BLOCK.sub(lambda m: f"```console\n{m['command']}\n{said(m['command']).rstrip()}\n```", page)


def test_the_page_shows_what_the_commands_say() -> None:
    page = PAGE.read_text()
    assert page == rewritten(page)


def test_the_page_has_every_command() -> None:
    shown = [match["command"] for match in BLOCK.finditer(PAGE.read_text())]
    assert shown == ["$ sotol --help", *(f"$ sotol {name} --help" for name in ("run",)), "> /?",
                     *(f"$ sotol {name} --help" for name in COMMANDS if name != "run")]  # fmt: skip


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text()))
