"""How lines are typed in a conversation: keys, completion, and the history of what was typed."""

import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

import platformdirs
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.filters import is_searching
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth

from sotol.cli import conversations, parameters
from sotol.cli.options import model_names
from sotol.cli.repl import COMMANDS, QUITTING, QUOTES, SETTINGS

__all__ = ["Words", "history_path", "prompt_session"]


def prompt_session(note: Callable[[str], None], *, color: bool = True) -> PromptSession[str]:
    """How lines are edited: see `repl.KEYS`. note: says, once, why lines are remembered until the end only."""
    return PromptSession(
        "> ",
        history=_history(history_path(), note),
        multiline=True,
        prompt_continuation="… ",
        key_bindings=_bindings(),
        completer=Words(),
        complete_while_typing=False,
        color_depth=None if color else ColorDepth.DEPTH_1_BIT,
        enable_suspend=True,
        enable_open_in_editor=True,
        tempfile_suffix=".md",
    )


class Words(Completer):
    """What may follow in a line that begins with a command."""

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """The rest of a command's name, or of what it takes."""
        command, space, argument = document.text_before_cursor.partition(" ")
        if not command.startswith("/") or "\n" in argument:
            return
        if not space:
            yield from _beginning(command, (*COMMANDS, *QUITTING))
        elif command == "/model":
            yield from _beginning(argument, model_names())
            yield from PathCompleter(expanduser=True, file_filter=_may_lead_to_model).get_completions(
                Document(argument), complete_event
            )
        elif command == "/read":
            yield from PathCompleter(expanduser=True).get_completions(Document(argument), complete_event)
        elif command in ("/load", "/save"):
            yield from _beginning(argument, conversations.names())
        elif command == "/set":
            setting, space, name = argument.partition(" ")
            yield from (
                _beginning(name, parameters.known() if setting == "parameter" else ())
                if space
                else _beginning(setting, SETTINGS)
            )


def _beginning(typed: str, words: Iterable[str]) -> Iterable[Completion]:
    return (Completion(word, start_position=-len(typed)) for word in words if word.startswith(typed))


def _may_lead_to_model(name: str) -> bool:
    return name.endswith(".gguf") or Path(name).is_dir()


# ---- history


def history_path() -> Path:
    """Where the lines of former conversations are kept."""
    return Path(platformdirs.user_state_dir("sotol")) / "history"


class _Kept(FileHistory):
    """Lines in a file, as long as that can be read and written."""

    def __init__(self, path: Path, note: Callable[[str], None]) -> None:
        super().__init__(str(path))
        self._note: Callable[[str], None] | None = note

    def load_history_strings(self) -> Iterable[str]:
        try:
            return list(super().load_history_strings())
        except OSError as error:
            self._complain(error)
            return []

    def store_string(self, string: str) -> None:
        try:
            super().store_string(string)
        except OSError as error:
            self._complain(error)

    def _complain(self, error: OSError) -> None:
        if self._note is not None:
            self._note(_not_kept(Path(str(self.filename)), error))
            self._note = None


def _history(path: Path, note: Callable[[str], None]) -> History:
    try:
        _make_private(path)
    except OSError as error:
        note(_not_kept(path, error))
        return InMemoryHistory()
    return _Kept(path, note)


def _not_kept(path: Path, error: OSError) -> str:
    return f"what you type is not kept for the next time: {path}: {(error.strerror or str(error)).lower()}"


def _make_private(path: Path) -> None:
    """Make the file and its folder, or make them private: what people ask is nobody else's business.

    Raises OSError if that can't be, or if there is something else than a file.
    """
    if not path.is_absolute():
        raise OSError("no home folder is known")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Not to wait where somebody put a FIFO
    number = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0), 0o600)
    try:
        mode = os.fstat(number).st_mode
        if not stat.S_ISREG(mode):
            raise OSError("it is not a regular file")
        if os.name != "nt":
            if mode & 0o077:
                os.fchmod(number, 0o600)
            if path.parent.stat().st_mode & 0o077:
                path.parent.chmod(0o700)
    finally:
        os.close(number)


# ---- keys


def _bindings() -> KeyBindings:
    """Enter sends, though the input may have many lines."""
    bindings = KeyBindings()

    @bindings.add("enter", filter=~is_searching)
    def _send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        elif buffer.text.startswith(QUOTES) and buffer.text.count(QUOTES) < 2:
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter", filter=~is_searching)
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @bindings.add("c-g", filter=~is_searching)
    def _edit(event: KeyPressEvent) -> None:
        event.current_buffer.open_in_editor()

    return bindings
