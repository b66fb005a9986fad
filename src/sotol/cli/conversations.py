"""Conversations that are kept: JSON files by name, in the user's data folder, readable by nobody else."""

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs

from sotol.errors import FormatError, SotolError, plain

__all__ = ["Conversation", "folder", "load", "names", "save"]

NAME = re.compile(r"\w[\w .-]{0,99}")
MOST = 64 << 20  # bytes of a file


class Conversation(NamedTuple):
    """What is said, and to whom: turns are {"role": "user" or "assistant", "content": text}, and where the model's
    template wants what it thought, "reasoning_content".
    """

    model: str
    system: str | None
    turns: list[dict[str, str]]


def folder() -> Path:
    """Where conversations are kept; SotolError for a user without a home."""
    place = Path(platformdirs.user_data_dir("sotol")) / "conversations"
    if not place.is_absolute():
        raise SotolError(f"there is no place for conversations: {plain(place)} is no absolute path (set HOME)")
    return place


def names() -> list[str]:
    """The names of all that are kept."""
    try:
        return sorted(path.stem for path in folder().glob("*.json"))
    except (OSError, SotolError):
        return []


def save(name: str, conversation: Conversation) -> Path:
    """Keep a conversation, in place of one of the same name. ValueError for a bad name, SotolError if it can't be."""
    path = _path(name)
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    text = json.dumps({"sotol": 1, **conversation._asdict()}, indent=1)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123
                file.write(text)
            unfinished.replace(path)
        finally:
            with suppress(OSError):
                unfinished.unlink()
    except OSError as error:
        raise SotolError(f"{plain(path)} can't be written: {str(error.strerror).lower()}") from None
    return path


def load(name: str) -> Conversation:
    """A conversation that was kept. ValueError for a bad name, SotolError where none that is whole is."""
    path = _path(name)
    try:
        with path.open("rb") as file:
            data = file.read(MOST + 1)
    except FileNotFoundError:
        known = ", ".join(names()) or "none yet"
        raise SotolError(f"no conversation {name!r}; there are: {plain(known)}") from None
    except OSError as error:
        raise SotolError(f"{plain(path)} can't be read: {str(error.strerror).lower()}") from None
    try:
        return _checked(json.loads(data))
    except (ValueError, RecursionError):
        raise FormatError(f"{plain(path)}: is no conversation that sotol saved") from None


def _path(name: str) -> Path:
    if not NAME.fullmatch(name):
        raise ValueError(f"{plain(repr(name), 80)} is no name: give up to 100 letters, digits, spaces, dots and dashes")
    return folder() / f"{name}.json"


def _checked(value: Any) -> Conversation:
    """The value as a conversation; ValueError if it is none."""
    if not isinstance(value, dict) or value.get("sotol") != 1:
        raise ValueError
    model, system, turns = value.get("model"), value.get("system"), value.get("turns")
    if not isinstance(model, str) or not isinstance(system, str | None) or not isinstance(turns, list):
        raise ValueError
    for turn in turns:
        if not isinstance(turn, dict) or turn.keys() - {"reasoning_content"} != {"role", "content"}:
            raise ValueError
        if not all(isinstance(text, str) for text in turn.values()):
            raise ValueError
        if turn["role"] not in ("user", "assistant"):
            raise ValueError
    return Conversation(model, system, turns)
