"""docs/cli.md shows what the commands say, and commands of all pages are such as there are.

`python tests/cli/test_cli_docs.py` writes docs/cli.md anew.
"""

import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.main import get_command
from typer.testing import CliRunner

from sotol.cli.app import COMMANDS, make_app
from sotol.cli.repl import Repl

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "cli.md"
PAGES = ("README.md", "docs/cli.md", "docs/models.md", "docs/server.md", "docs/tools.md")
FENCE = re.compile(r"^```(?:sh|console)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
CALL = re.compile(r"(?:^|\| |&& |^\$ )sotol (.*?)(?: [|<>] .*)?$")
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


def calls(page: Path) -> Iterator[list[str]]:
    """The words behind `sotol` in the commands that a page shows."""
    for block in FENCE.findall(page.read_text(encoding="utf-8")):
        for line in block.splitlines():
            if (found := CALL.search(line)) and (words := shlex.split(found[1], comments=True)):
                yield words


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_the_pages_are_such_as_there_are(page: str) -> None:
    """Each is parsed, not run: commands, options and their values, the number of arguments."""
    app = get_command(make_app())
    found = list(calls(ROOT / page))
    assert found
    for name, *words in found:
        if name in COMMANDS:
            with suppress(typer.Exit), app.commands[name].make_context(name, words):  # type: ignore[attr-defined]
                pass
        else:
            assert (name, words) == ("--help", [])


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text()))
