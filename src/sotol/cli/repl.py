"""A conversation at a terminal: `sotol run` without a prompt. Knows nothing of how lines are typed or models loaded."""

import shlex
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from textwrap import fill
from typing import TYPE_CHECKING, Any, Protocol

from sotol.answers.folding import Fold
from sotol.cli import conversations
from sotol.cli.conversations import Conversation, Session
from sotol.cli.guard import sentence
from sotol.cli.options import Effort
from sotol.cli.output import AnswerWriter, printable
from sotol.cli.parameters import LOADING, known, parse_parameter
from sotol.cli.reading import read_file
from sotol.cli.report import summary

if TYPE_CHECKING:
    from rich.console import Console

    from sotol.engine.options import Sampling
    from sotol.llm import LLM
    from sotol.results import Completion

__all__ = ["COMMANDS", "KEYS", "QUITTING", "QUOTES", "SETTINGS", "Repl"]

QUOTES = '"""'
KEYS = (
    ("Enter", "send"),
    ("Alt-Enter", f"a new line; so does Enter after a backslash, or between {QUOTES} and {QUOTES}"),
    ("Up, Down", "earlier lines"),
    ("Ctrl-R", "search earlier lines"),
    ("Tab", "complete a command, a model, a path"),
    ("Ctrl-G", "write in $EDITOR; so does Ctrl-X Ctrl-E"),
    ("Ctrl-C", "stop the answer"),
    ("Ctrl-Z", "suspend sotol; fg in the shell goes on"),
    ("Ctrl-D", "quit"),
)


class Lines(Protocol):
    """Where lines come from: prompt_toolkit's session."""

    def prompt(self) -> str:
        """The next line. EOFError at the end, KeyboardInterrupt for Ctrl-C."""


@dataclass(slots=True)
class Repl:
    """The state of a conversation, and what each line of input does to it.

    load: gives the model of a path or a name, for /model; it takes what `parameters.LOADING` names as keywords. The
    caller closes `llm`, whichever it is in the end.
    """

    llm: "LLM"
    console: "Console"
    sampling: "Sampling"
    load: Callable[..., "LLM"]
    system: str | None = None
    template: Mapping[str, Any] = field(default_factory=dict)
    verbose: bool = False
    wordwrap: bool = True
    color: bool = True
    hide_thinking: bool = False
    debug: bool = False
    loading: dict[str, Any] = field(default_factory=dict)  # what /set parameter changed
    attached: list[str] = field(default_factory=list)  # texts that go before the next message
    turns: list[dict[str, str]] = field(default_factory=list)
    last: "Completion | None" = None
    session: Session | None = None  # keeps the conversation after each answer, if there is one

    def talk(self, lines: Lines) -> None:
        """Read and obey lines until the end of input."""
        while True:
            try:
                text = lines.prompt()
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
            name = name.strip()
            if name in QUITTING:
                return False
            command = COMMANDS.get(ALIASES.get(name, name))
            if command is None:
                self.note(f"unknown command {name}: /? lists them, and a space before the / sends it to the model")
                return True
            command[0](self, argument.strip())
        elif text.strip() in LEAVING:
            return False
        elif text.strip():
            before = len(self.turns)
            said = text.strip().removeprefix(QUOTES).removesuffix(QUOTES).strip()
            try:
                self.answer("\n\n".join([*self.attached, said]))
            finally:
                if len(self.turns) > before:
                    self.attached.clear()
        return True

    def answer(self, text: str) -> None:
        """Send a message and stream the answer; both join the conversation, unless nothing was answered."""
        asked = {"role": "user", "content": text}
        turn = self.llm.turn([*self.messages(), asked], template=self.template)
        if (size := len(turn.ids)) >= self.llm.context:
            self.note(
                f"the conversation and this message have {size} tokens, and the context holds {self.llm.context}"
                " with the answer: /clear begins anew, /set parameter ctx N makes room"
            )
            return
        if self.debug:
            self.note(self.llm.detokenize(turn.ids, special=True))
        answer, begun = Fold(), False
        writer = AnswerWriter(self.console.file, wrap=self.wordwrap, color=self.color, thinking=not self.hide_thinking)
        try:
            with self.llm.stream(turn, sampling=self.sampling) as stream:
                for delta in stream.deltas():
                    for piece in delta.pieces:
                        answer.take(piece)
                        begun = True
                    writer.take(delta.pieces)
        finally:
            if begun:
                writer.end()
            said, thought, _ = answer.answer
            if said:
                kept = {"reasoning_content": thought} if thought and self._keeps_thoughts else {}
                self.turns += [asked, {"role": "assistant", "content": said, **kept}]
                if self.session is not None:
                    self.session.keep(self._held)
        self.last = stream.completion
        if self.last is not None:
            self.remark(self.last)

    @property
    def _held(self) -> Conversation:
        return Conversation(str(self.llm.path), self.system, self.turns)

    @property
    def _keeps_thoughts(self) -> bool:
        """Whether the model's template has a use for earlier ones."""
        return "reasoning_content" in self.llm.template.written

    def remark(self, done: "Completion") -> None:
        """What there is to say about an answer."""
        if done.finish_reason == "length":
            full = done.usage.prompt_tokens + done.usage.completion_tokens >= self.llm.context
            self.note("cut off: the context is full, /clear begins anew" if full else "cut off at --max-tokens")
        if self.verbose:
            self.note(summary(done))

    def messages(self) -> list[dict[str, str]]:
        """The conversation so far, the system message first."""
        return [*([{"role": "system", "content": self.system}] if self.system else []), *self.turns]

    def note(self, text: str) -> None:
        """A line that is not the model's."""
        self.console.print(printable(text), style="dim")

    # ---- commands

    def clear(self, _: str) -> None:
        self.turns.clear()
        self.attached.clear()
        self.last = None
        if self.session is not None:
            self.session = Session()
        self.note("a new conversation" + (", with the same system message" if self.system else ""))

    def retry(self, _: str) -> None:
        before = list(self.turns)
        asked = self._take_back()
        if asked is None:
            self.note("there is no message to answer again")
            return
        try:
            self.answer(asked)
        finally:
            if len(self.turns) < len(before):  # nothing was answered
                self.turns = before

    def undo(self, _: str) -> None:
        asked = self._take_back()
        self.note("there is nothing to take back" if asked is None else f"taken back; {len(self.turns)} messages stay")

    def _take_back(self) -> str | None:
        """Drop the last message and what answered it; the message, or None if there is none."""
        for i in reversed(range(len(self.turns))):
            if self.turns[i]["role"] == "user":
                asked = self.turns[i]["content"]
                del self.turns[i:]
                return asked
        return None

    def read(self, name: str) -> None:
        text = read_file(name)
        self.attached.append(text.removesuffix("\n"))
        self.note(f"{len(text.splitlines())} lines go before your next message")

    def save(self, name: str) -> None:
        conversations.save(name, self._held)
        self.note(f"{len(self.turns)} messages are kept: /load {name}, or sotol run --cid {shlex.quote(name)}")

    def restore(self, name: str) -> None:
        if not name:
            self.note("kept conversations: " + (", ".join(conversations.names()) or "none yet"))
            return
        kept = conversations.load(name)
        self.system, self.turns, self.last = kept.system, kept.turns, None
        if self.session is not None:
            self.session = conversations.resumed(name)
        other = "" if conversations.same_model(kept.model, str(self.llm.path)) else f", held with {kept.model}"
        self.note(f"{len(self.turns)} messages{other}")

    def context(self, _: str) -> None:
        messages = self.messages()
        options = {**self.template, "add_generation_prompt": False}
        used = len(self.llm.chat_prompt(messages, **options)) if messages else 0
        self.note(f"{len(messages)} messages of {used} tokens; the context holds {self.llm.context}")

    def set_system(self, text: str) -> None:
        if text:
            self.system = None if text == "off" else text
        self.note(f"system message: {self.system or 'none'}")

    def set(self, argument: str) -> None:
        setting, _, rest = argument.partition(" ")
        if setting not in SETTINGS:
            raise ValueError(f"/set takes {', '.join(SETTINGS)}: not {setting!r}")
        SETTINGS[setting](self, rest.strip())

    def set_parameter(self, argument: str) -> None:
        name, _, text = argument.partition(" ")
        if name:
            own, value = parse_parameter(name, text.strip())
            if own in LOADING:
                self._change_model(str(self.llm.path), {**self.loading, own: value})
            else:
                self.sampling = type(self.sampling).of(self.sampling, **{own: value})
            self.note(f"{own}: {'default' if value is None else value}")
            return
        shown = {name: getattr(self.sampling, name) for name in known() if name not in LOADING}
        shown |= {name: getattr(self.llm.options, name) for name in LOADING}
        shown |= {"ctx": self.llm.context, "threads": self.llm.threads}
        for own, value in shown.items():
            self.note(f"{own:<18}{'' if value is None else value}")

    def set_effort(self, level: str) -> None:
        if level not in tuple(Effort):
            raise ValueError(f"/set effort takes {', '.join(Effort)}: not {level!r}")
        kept = {name: value for name, value in self.template.items() if name != "enable_thinking"}
        self.template = {**kept, "reasoning_effort": level}
        self.note(f"effort, as near as the model's template has it: {level}")

    def show(self, what: str) -> None:
        if (what or "info") not in SHOWN:
            raise ValueError(f"/show takes {', '.join(SHOWN)}: not {what!r}")
        SHOWN[what or "info"](self, "")

    def stats(self, _: str) -> None:
        self.note(summary(self.last) if self.last else "no finished answer to tell about")

    def set_verbose(self, on: bool) -> None:
        self.verbose = on
        self.note(f"statistics after each answer: {'on' if on else 'off'}")

    def set_wordwrap(self, on: bool) -> None:
        self.wordwrap = on
        self.note(f"words stay whole at the end of a line: {'on' if on else 'off'}")

    def set_think(self, on: bool) -> None:
        self.template = {**self.template, "enable_thinking": on}
        self.note(f"thinking before answers, if the model can do without: {'on' if on else 'off'}")

    def toggle_debug(self, _: str) -> None:
        self.debug = not self.debug
        self.note(f"prompts as the model sees them, and tracebacks: {'on' if self.debug else 'off'}")

    def model(self, name: str) -> None:
        if name:
            self._change_model(name, self.loading)
        self.note(f"{self.llm.path}, context {self.llm.context}")

    def _change_model(self, name: str, loading: dict[str, Any]) -> None:
        llm = self.load(name, **loading)  # first, so that the old one stays if this fails
        self.llm.close()
        self.llm, self.loading = llm, loading

    def help(self, _: str) -> None:
        rows = [*((name, text) for name, (_, text) in COMMANDS.items()), ("/bye", "end sotol; so does /quit"), *KEYS]
        for name, text in rows:
            self.console.print(
                fill(text, max(self.console.width, 30), initial_indent=f"  {name:<12}", subsequent_indent=" " * 14)
            )


COMMANDS: dict[str, tuple[Callable[[Repl, str], None], str]] = {
    "/clear": (Repl.clear, "begin a new conversation"),
    "/retry": (Repl.retry, "answer the last message again"),
    "/undo": (Repl.undo, "take the last message and its answer back"),
    "/read": (Repl.read, "/read FILE puts a text before the next message"),
    "/save": (Repl.save, "/save NAME keeps the conversation"),
    "/load": (Repl.restore, "/load NAME goes on with one that was kept; alone it lists them"),
    "/system": (Repl.set_system, "show the system message; /system TEXT sets it, /system off removes it"),
    "/set": (
        Repl.set,
        "parameter NAME VALUE (temperature, top_k, seed, ctx, …; without a name: show all), system TEXT, verbose or"
        " quiet, wordwrap or nowordwrap, think or nothink, effort LEVEL",
    ),
    "/show": (Repl.show, "info (of the model), parameters or system, as they are set"),
    "/model": (Repl.model, "show the model; /model NAME changes it and keeps the conversation"),
    "/context": (Repl.context, "how much of the context is used"),
    "/stats": (Repl.stats, "how long the last answer took"),
    "/verbose": (lambda repl, _: repl.set_verbose(not repl.verbose), "statistics after each answer, on or off"),
    "/debug": (Repl.toggle_debug, "show prompts as the model sees them, and tracebacks, on or off"),
    "/?": (Repl.help, "this list; so does /help"),
}
SETTINGS: dict[str, Callable[[Repl, str], None]] = {
    "parameter": Repl.set_parameter,
    "system": Repl.set_system,
    "verbose": lambda repl, _: repl.set_verbose(True),
    "quiet": lambda repl, _: repl.set_verbose(False),
    "wordwrap": lambda repl, _: repl.set_wordwrap(True),
    "nowordwrap": lambda repl, _: repl.set_wordwrap(False),
    "think": lambda repl, _: repl.set_think(True),
    "nothink": lambda repl, _: repl.set_think(False),
    "effort": Repl.set_effort,
}
SHOWN: dict[str, Callable[[Repl, str], None]] = {
    "info": Repl.model,
    "parameters": Repl.set_parameter,
    "system": Repl.set_system,
}
ALIASES = {"/help": "/?", "/regen": "/retry", "/regenerate": "/retry"}
QUITTING = ("/bye", "/quit", "/exit")
LEAVING = ("exit", "quit", "bye")
