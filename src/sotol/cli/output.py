"""What commands write: answers on standard output, all else on standard error, control characters nowhere.

Pipes get plain text. NO_COLOR (https://no-color.org) and `--no-color` turn styles off in terminals, too.
"""

import io
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import IO, TYPE_CHECKING, Any

from sotol.answers.pieces import Content, Piece, Reasoning
from sotol.cli.streams import refused
from sotol.errors import UNSHOWN

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["AnswerWriter", "answer_writer", "as_json", "cell", "console", "printable", "show", "size_of", "write_piece"]

# In a terminal these could move the cursor, rename the window or worse: all but tab and newline.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
DIM, NORMAL = "\x1b[2m", "\x1b[0m"
PIPE_WIDTH = 4096  # columns where there is no terminal: no line is wrapped


def printable(text: str) -> str:
    """The text without the control characters that a terminal would obey."""
    return CONTROLS.sub("", text)


def cell(value: object) -> str:
    """A value of a file for a table: on one line, without marks that hide characters or turn their order."""
    return re.sub(UNSHOWN, "", str(value).replace("\n", "\\n"))


def write_piece(piece: str, file: IO[str]) -> None:
    """Write a piece of an answer at once; a terminal gets no control characters.

    Raises BrokenPipeError if the reader left, SotolError if the disk is full or the like.
    """
    _write(printable(piece) if file.isatty() else piece, file)


def _write(text: str, file: IO[str]) -> None:
    try:
        file.write(text)
        file.flush()
    except OSError as error:
        raise refused(error) from None


def answer_writer(file: IO[str], *, wrap: bool = True) -> Callable[[str], None]:
    """What writes the pieces of an answer: `write_piece`, which on a terminal keeps words whole."""
    dumb = os.environ.get("TERM", "dumb") == "dumb" and os.name != "nt"  # it can't take back what it shows
    if not wrap or dumb or not file.isatty():
        return lambda piece: write_piece(piece, file)
    from sotol.cli.wrapping import WordWrap  # noqa: PLC0415  (no pipe needs it)

    lines = WordWrap(lambda: _columns(file))
    return lambda piece: _write(lines.take(printable(piece)), file)


class AnswerWriter:
    """Writes the pieces of an answer: what the model says, and before it, what it thinks.

    That is dim in a terminal that has styles; elsewhere it stands between <think> and </think>, whatever the model
    writes there. thinking: False leaves it out. Errors as of `write_piece`.
    """

    def __init__(self, file: IO[str], *, wrap: bool = True, color: bool = True, thinking: bool = True) -> None:
        self._file, self._thinking, self._dim = file, thinking, _styled(file, color=color)
        self._text = answer_writer(file, wrap=wrap)
        self._within = False  # of thoughts

    def take(self, pieces: Iterable[Piece]) -> None:
        """Write the next ones."""
        for piece in pieces:
            if isinstance(piece, Reasoning) and self._thinking:
                self._turn(within=True)
                self._text(piece.text)
            elif isinstance(piece, Content):
                self._turn(within=False)
                self._text(piece.text)

    def end(self) -> None:
        """The answer is over, whether it came to its end or not."""
        self._turn(within=False, last=True)
        write_piece("\n", self._file)

    def _turn(self, *, within: bool, last: bool = False) -> None:
        """From what is said to thoughts, or back."""
        if within == self._within:
            return
        self._within = within
        if self._dim:
            _write(DIM if within else NORMAL, self._file)
        else:
            self._text("<think>\n" if within else "\n</think>")
        if not within and not last:
            self._text("\n\n")


def _columns(terminal: IO[str]) -> int:
    """How wide a terminal is now; 0 if it does not say."""
    try:
        return os.get_terminal_size(terminal.fileno()).columns
    except (OSError, ValueError):
        return 0


def as_json(value: object) -> str:
    """A value as indented JSON, which has no infinities: they become null.

    Control characters and direction marks are escaped, all of them, so that JSON does nothing to a terminal.
    """
    text = json.dumps(_finite(value), ensure_ascii=False, indent=2, allow_nan=False)
    return re.sub(UNSHOWN, lambda found: "".join(c if c == "\n" else json.dumps(c)[1:-1] for c in found[0]), text)


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
    return Console(
        file=file,
        color_system="auto" if _styled(file, color=color) else None,
        width=None if file.isatty() else PIPE_WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
    )


def _styled(file: IO[str], *, color: bool) -> bool:
    """Whether styles are wanted there. A terminal that calls itself dumb has none."""
    dumb = os.environ.get("TERM") == "dumb"
    return color and not dumb and not os.environ.get("NO_COLOR") and file.isatty()


def show(out: "Console", *content: "RenderableType", style: str | None = None) -> None:
    """Write tables or texts without the spaces that would fill their lines. Errors as of `write_piece`."""
    target, drawn = out.file, io.StringIO()
    out.file = drawn  # Rich's own capturing would touch the target, too
    out.print(*content, style=style)
    out.file = target
    _write("".join(line.rstrip() + "\n" for line in drawn.getvalue().split("\n")[:-1]), target)


def size_of(count: int) -> str:
    """A size in bytes for people: 1 MB is 10^6 bytes."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.4g} {unit}"
        size /= 1000
    return f"{size:.4g} GB"
