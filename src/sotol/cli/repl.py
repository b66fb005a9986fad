"""A conversation at a terminal: `sotol run` without a prompt. Knows nothing of how the model was loaded."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.filters import is_searching
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth

from sotol.cli.guard import sentence
from sotol.cli.output import printable, write_piece
from sotol.cli.report import summary

if TYPE_CHECKING:
    from rich.console import Console

    from sotol.engine.options import Sampling
    from sotol.llm import LLM, Message
    from sotol.results import Completion

__all__ = ["COMMANDS", "Repl", "history_path", "prompt_session"]

KEYS = (
    ("Enter", "send"),
    ("Alt-Enter", "a new line; so does Enter after a backslash"),
    ("Up, Down", "earlier lines"),
    ("Ctrl-R", "search earlier lines"),
    ("Tab", "complete a command"),
    ("Ctrl-C", "stop the answer"),
    ("Ctrl-D", "quit"),
)


@dataclass(slots=True)
class Repl:
    """The state of a conversation, and what each line of input does to it.

    load: gives the model of a path or a name, for /model. The caller closes `llm`, whichever it is in the end.
    """

    llm: "LLM"
    console: "Console"
    sampling: "Sampling"
    load: Callable[[str], "LLM"]
    system: str | None = None
    verbose: bool = False
    debug: bool = False
    turns: list["Message"] = field(default_factory=list)
    last: "Completion | None" = None

    def talk(self, session: PromptSession[str]) -> None:
        """Read and obey lines until the end of input."""
        while True:
            try:
                text = session.prompt()
            except KeyboardInterrupt:
                self.note("Ctrl-D or /quit ends sotol")
                continue
            except EOFError:
                return
            try:
                if not self.take(text):
                    return
            except KeyboardInterrupt:
                self.note("stopped")
            except Exception as error:  # noqa: BLE001  (whatever goes wrong, the conversation goes on)
                self.note(traceback.format_exc().rstrip() if self.debug else sentence(error))

    def take(self, text: str) -> bool:
        """Obey one input, a command or a message; False ends the conversation."""
        if text.startswith("/"):
            name, _, argument = text.partition(" ")
            if name in QUITTING:
                return False
            if name not in COMMANDS:
                self.note(f"unknown command {name}: /help lists them, and a space before the / sends it to the model")
                return True
            COMMANDS[name][0](self, argument.strip())
        elif text.strip():
            self.answer(text.strip())
        return True

    def answer(self, text: str) -> None:
        """Send a message and stream the answer; both join the conversation, unless nothing was answered."""
        asked: Message = {"role": "user", "content": text}
        ids = self.llm.chat_prompt([*self.messages(), asked])
        if len(ids) >= self.llm.context:
            self.note(
                f"the conversation and this message have {len(ids)} tokens, and the context holds {self.llm.context}"
                " with the answer: /clear begins anew, or give --ctx more"
            )
            return
        if self.debug:
            self.note(self.llm.detokenize(ids, special=True))
        pieces: list[str] = []
        try:
            with self.llm.stream(ids, sampling=self.sampling) as stream:
                for piece in stream:
                    pieces.append(piece)
                    write_piece(piece, self.console.file)
        finally:
            if pieces:
                self.turns += [asked, {"role": "assistant", "content": "".join(pieces)}]
                self.console.print()
        self.last = stream.completion
        if self.last is not None:
            self.remark(self.last)

    def remark(self, done: "Completion") -> None:
        """What there is to say about an answer."""
        if done.finish_reason == "length":
            full = done.usage.prompt_tokens + done.usage.completion_tokens >= self.llm.context
            self.note("cut off: the context is full, /clear begins anew" if full else "cut off at --max-tokens")
        if self.verbose:
            self.note(summary(done))

    def messages(self) -> list["Message"]:
        """The conversation so far, the system message first."""
        return [*([{"role": "system", "content": self.system}] if self.system else []), *self.turns]

    def note(self, text: str) -> None:
        """A line that is not the model's."""
        self.console.print(printable(text), style="dim")

    # ---- commands

    def clear(self, _: str) -> None:
        self.turns.clear()
        self.last = None
        self.note("a new conversation" + (", with the same system message" if self.system else ""))

    def context(self, _: str) -> None:
        messages = self.messages()
        used = len(self.llm.chat_prompt(messages, add_generation_prompt=False)) if messages else 0
        self.note(f"{len(messages)} messages of {used} tokens; the context holds {self.llm.context}")

    def set_system(self, text: str) -> None:
        if text:
            self.system = None if text == "off" else text
        self.note(f"system message: {self.system or 'none'}")

    def stats(self, _: str) -> None:
        self.note(summary(self.last) if self.last else "no finished answer to tell about")

    def toggle_verbose(self, _: str) -> None:
        self.verbose = not self.verbose
        self.note(f"statistics after each answer: {'on' if self.verbose else 'off'}")

    def toggle_debug(self, _: str) -> None:
        self.debug = not self.debug
        self.note(f"prompts as the model sees them, and tracebacks: {'on' if self.debug else 'off'}")

    def model(self, name: str) -> None:
        if name:
            llm = self.load(name)  # first, so that the old one stays if this fails
            self.llm.close()
            self.llm = llm
        self.note(f"{self.llm.path}, context {self.llm.context}")

    def help(self, _: str) -> None:
        rows = [*((name, text) for name, (_, text) in COMMANDS.items()), ("/quit", "end sotol"), *KEYS]
        for name, text in rows:
            self.console.print(f"  {name:<16}{text}")


COMMANDS: dict[str, tuple[Callable[[Repl, str], None], str]] = {
    "/clear": (Repl.clear, "begin a new conversation"),
    "/context": (Repl.context, "how much of the context is used"),
    "/system": (Repl.set_system, "show the system message; /system TEXT sets it, /system off removes it"),
    "/stats": (Repl.stats, "how long the last answer took"),
    "/verbose": (Repl.toggle_verbose, "statistics after each answer, on or off"),
    "/debug": (Repl.toggle_debug, "show prompts as the model sees them, and tracebacks, on or off"),
    "/model": (Repl.model, "show the model; /model NAME changes it and keeps the conversation"),
    "/help": (Repl.help, "this list"),
}
QUITTING = ("/quit", "/exit")


def history_path() -> Path:
    """Where the lines of former conversations are kept."""
    return Path(platformdirs.user_state_dir("sotol")) / "history"


def prompt_session(*, color: bool = True) -> PromptSession[str]:
    """How lines are edited: see KEYS. Without a writable home, lines are remembered until the end only."""
    return PromptSession(
        "> ",
        history=_history(history_path()),
        multiline=True,
        prompt_continuation="… ",
        key_bindings=_bindings(),
        completer=WordCompleter([*COMMANDS, *QUITTING], sentence=True),
        complete_while_typing=False,
        color_depth=None if color else ColorDepth.DEPTH_1_BIT,
    )


def _history(path: Path) -> History:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)  # what people ask is nobody else's business
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))


def _bindings() -> KeyBindings:
    """Enter sends, though the input may have many lines."""
    bindings = KeyBindings()

    @bindings.add("enter", filter=~is_searching)
    def _send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter", filter=~is_searching)
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings
