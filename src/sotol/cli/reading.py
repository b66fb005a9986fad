"""What a prompt is made of: standard input, files, words. All of it is UTF-8, whatever the locale."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from sotol.cli.streams import say
from sotol.errors import SotolError, plain

__all__ = ["MOST", "prompt_of", "read_file", "read_input", "read_text"]

MOST = 64 << 20  # bytes of a text: no context holds as much, and a pipe may never end
PATIENCE = 2.0  # seconds of silence on standard input until a person is told what is waited for
INPUT = "standard input"
# How files begin that people take for something that a model can read.
NO_TEXTS = {
    b"\x89PNG": "an image (PNG)",
    b"\xff\xd8\xff": "an image (JPEG)",
    b"GIF8": "an image (GIF)",
    b"RIFF": "an image or a sound (RIFF)",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "an archive (ZIP), or a document of an office program",
}


def prompt_of(words: Sequence[str], files: Sequence[str] = (), *, quiet: bool = False) -> str:
    """Standard input (where it is no terminal, or a word or file is "-"), files and words, in this order.

    A blank line goes between; empty parts are left out. Raises ValueError where nothing is left, or for what is not
    text; SotolError for a file that can't be read.
    """
    spoken = " ".join(word for word in words if word != "-")
    named = [name for name in files if name != "-"]
    demanded = "-" in words or "-" in files or not (words or files)
    if demanded:
        parts = [read_input()]
    elif _has_input():
        parts = [_optional_input(quiet=quiet)]
    else:
        parts = []
    parts += [read_file(name) for name in named]
    parts.append(_checked(spoken, "the prompt"))
    parts = [part.removesuffix("\n") for part in parts if part.strip()]
    if not parts:
        raise ValueError("the prompt is empty: give it after the model, or on standard input")
    return "\n\n".join(parts)


def _has_input() -> bool:
    """Whether there is a standard input that is not a person's terminal."""
    return sys.stdin is not None and not sys.stdin.isatty()


def read_input() -> str:
    """The text on standard input, to its end. Errors as of `prompt_of`."""
    if sys.stdin is None:  # closed by the caller
        raise ValueError("there is no standard input: give the text as an argument")
    try:
        return _text(sys.stdin.buffer, INPUT)
    except OSError as error:
        raise SotolError(f"{INPUT} can't be read: {str(error.strerror).lower()}") from None


def _optional_input(*, quiet: bool) -> str:
    """The text on standard input, which may be anything where a prompt was given besides: also what can't be read."""
    from errno import EBADF, EISDIR  # noqa: PLC0415
    from select import select  # noqa: PLC0415  (only where somebody might wait)

    with suppress(OSError, ValueError):  # no real file, or Windows
        if not select([sys.stdin.fileno()], [], [], PATIENCE)[0] and not quiet:
            say("sotol: waiting for the end of standard input, to go before the prompt (none: < /dev/null)")
    try:
        return _text(sys.stdin.buffer, INPUT)
    except OSError as error:
        if error.errno in (EBADF, EISDIR):  # open for writing, or a folder: some services start their commands so
            return ""
        raise SotolError(f"{INPUT} can't be read: {str(error.strerror).lower()}") from None


def read_file(name: str) -> str:
    """The text of a file, which may be a pipe. Errors as of `prompt_of`."""
    try:
        with Path(os.path.expanduser(name)).open("rb") as file:  # noqa: PTH111  (as a shell would; Path's own may fail)
            return _text(file, plain(name))
    except OSError as error:
        raise SotolError(f"{plain(name)} can't be read: {str(error.strerror).lower()}") from None


def read_text(name: str) -> str:
    """The text of a file, or standard input for "-"."""
    return read_input() if name == "-" else read_file(name)


def _text(file: BinaryIO, name: str) -> str:
    """The rest of a file as text, without the mark that some editors begin UTF-8 with."""
    data = file.read(MOST + 1)
    if len(data) > MOST:
        raise ValueError(f"{name} has more than {MOST >> 20} MB: no model takes that much")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        kind = next((kind for begin, kind in NO_TEXTS.items() if data.startswith(begin)), None)
        if kind is not None:
            raise ValueError(f"{name} is {kind}: only text can be read") from None
        raise ValueError(f"{name} is not UTF-8 text: {error.reason} at byte {error.start}") from None


def _checked(text: str, name: str) -> str:
    """The text, if it is any: arguments that are not in the locale's encoding come as halves of surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} is not text in the encoding of this locale, {sys.getfilesystemencoding()}") from None
    return text
