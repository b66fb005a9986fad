"""What commands write: answers on standard output, all else on standard error, control characters nowhere.

Pipes get plain text. NO_COLOR (https://no-color.org) and `--no-color` turn styles off in terminals, too.
"""

import json
import math
import os
import re
import sys
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["as_json", "console", "printable", "show", "write_piece"]

# In a terminal these could move the cursor, rename the window or worse: all but tab and newline.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
PIPE_WIDTH = 4096  # columns where there is no terminal: no line is wrapped


def printable(text: str) -> str:
    """The text without the control characters that a terminal would obey."""
    return CONTROLS.sub("", text)


def write_piece(piece: str, file: IO[str]) -> None:
    """Write a piece of an answer at once; a terminal gets no control characters."""
    file.write(printable(piece) if file.isatty() else piece)
    file.flush()


def as_json(value: object) -> str:
    """A value as indented JSON, which has no infinities: they become null."""
    return json.dumps(_finite(value), ensure_ascii=False, indent=2, allow_nan=False)


def _finite(value: object) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def console(*, color: bool = True, file: IO[str] | None = None) -> "Console":
    """A Rich console on standard output, or another file; without styles where none are wanted or understood."""
    from rich.console import Console  # noqa: PLC0415  (commands that only stream text do without Rich)

    file = file or sys.stdout
    styled = color and not os.environ.get("NO_COLOR") and file.isatty()
    return Console(
        file=file,
        color_system="auto" if styled else None,
        width=None if file.isatty() else PIPE_WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
    )


def show(out: "Console", table: "Table") -> None:
    """Write a table without the spaces that would fill its last column."""
    with out.capture() as captured:
        out.print(table)
    for line in captured.get().splitlines():
        out.file.write(line.rstrip() + "\n")
