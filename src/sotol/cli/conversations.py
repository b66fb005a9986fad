"""Conversations at a terminal that are kept: in the user's database, which the chat page shares."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from sotol.catalog import find_model, installed
from sotol.conversations import Conversation as Kept
from sotol.conversations import Conversations, Message, NewMessage, branch, default_path, imported, title_of
from sotol.errors import FormatError, SotolError, plain

__all__ = ["Conversation", "Session", "latest", "load", "names", "resumed", "same_model", "save"]

MOST = 64 << 20  # bytes of a file
NAMED = 20  # conversations that an error lists
COMPLETED = 1000  # that are offered for Tab
SAMPLED = (
    "temperature", "top_k", "top_p", "min_p", "repeat_penalty", "frequency_penalty", "presence_penalty", "max_tokens",
    "seed", "stop",
)  # fmt: skip

Turn: TypeAlias = dict[str, str]


class Conversation(NamedTuple):
    """What is said, and to whom: turns are {"role": "user" or "assistant", "content": text}, and where the model's
    template wants what it thought, "reasoning_content".
    """

    model: str
    system: str | None
    turns: list[Turn]


class Session:
    """A conversation that is kept after each answer. Where its turns leave what was kept, another branch begins."""

    def __init__(self, kept: Kept | None = None, messages: Sequence[Message] = ()) -> None:
        """kept: one that goes on; None: the first answer begins one."""
        self._kept = kept
        shown = [] if kept is None else branch(messages, kept.leaf)
        self._known = [(turn, message.id) for message in shown if (turn := _turn(message)) is not None]
        self._leaf = None if kept is None else kept.leaf

    @property
    def id(self) -> str | None:
        """The conversation's, once there is one."""
        return self._kept and self._kept.id

    @property
    def model(self) -> str:
        """Which model it was held with; "" if with none yet."""
        return self._kept.model if self._kept else ""

    @property
    def system(self) -> str | None:
        """Its system message."""
        system = self._kept.settings.get("system") if self._kept else None
        return system if isinstance(system, str) else None

    @property
    def turns(self) -> list[Turn]:
        """What was said, as `Conversation` has it. Results of tools are left out: a terminal has no tools."""
        return [dict(turn) for turn, _ in self._known]

    @property
    def sampling(self) -> dict[str, Any]:
        """Fields of `Sampling` that were set for it."""
        return {name: self._kept.settings[name] for name in SAMPLED if self._kept and name in self._kept.settings}

    @property
    def template(self) -> dict[str, Any]:
        """Options of the chat template that were set for it."""
        think = self._kept.settings.get("think") if self._kept else None
        return {} if think is None else {"enable_thinking": think}

    def keep(self, held: Conversation, title: str | None = None) -> str:
        """Keep it as it is now: it is on the disk when this returns. The id. title: another one than it has."""
        same = 0
        for (known, _), turn in zip(self._known, held.turns, strict=False):
            if (known["role"], known["content"]) != (turn["role"], turn["content"]):
                break
            same += 1
        new = held.turns[same:]
        model = self.model if same_model(self.model, held.model) else _known_as(held.model)
        before = self._known[same - 1][1] if same else None
        parent = self._leaf if same == len(self._known) else before
        with _database() as db:
            kept = self._kept
            if kept is None:
                first = next((turn["content"] for turn in held.turns if turn["role"] == "user"), "")
                kept = db.begin(title=title_of(first), model=model, settings=_settings({}, held.system))
            added = db.add("", kept.id, parent, [_message(turn, model) for turn in new])
            settings = _settings(kept.settings, held.system)
            self._kept = db.change("", kept.id, title=title, model=model, settings=settings)
        self._known = [*self._known[:same], *zip(held.turns[same:], (message.id for message in added), strict=True)]
        self._leaf = added[-1].id if added else parent
        return self._kept.id


def latest() -> Session:
    """The conversation that went on last; a new one where there is none."""
    with _database() as db:
        try:
            kept = db.latest()
        except KeyError:
            return Session()
        return Session(kept, db.messages("", kept.id))


def resumed(name: str) -> Session:
    """A conversation by its id or title. SotolError where there is none."""
    with _database() as db:
        try:
            kept = db.get("", name)
        except KeyError:
            try:
                kept = db.latest("", name)
            except KeyError:
                listed = ", ".join(found.conversation.title for found in db.listed(limit=NAMED)) or "none yet"
                raise SotolError(f"no conversation {plain(repr(name), 80)}; there are: {plain(listed)}") from None
        return Session(kept, db.messages("", kept.id))


def same_model(one: str, other: str) -> bool:
    """Whether two names or paths mean one file."""
    try:
        return one == other or find_model(one).resolve() == find_model(other).resolve()
    except (SotolError, OSError, ValueError):
        return False


def names() -> list[str]:
    """The titles of all that are kept, without repetitions."""
    try:
        if not default_path().exists():
            return []
        with _database() as db:
            return sorted({found.conversation.title for found in db.listed(limit=COMPLETED)} - {""})
    except SotolError:
        return []


def save(name: str, conversation: Conversation) -> str:
    """Keep a conversation under a title, beside one that has it already and began alike; its id."""
    _check(name)
    try:
        session = resumed(name)
    except SotolError:
        session = Session()
    return session.keep(conversation, title=name)


def load(name: str) -> Conversation:
    """A conversation that was kept, by its id or title. ValueError for a bad name, SotolError where there is none."""
    _check(name)
    try:
        session = resumed(name)
    except SotolError:
        earlier = _from_file(name)
        if earlier is None:
            raise
        return earlier
    return Conversation(session.model, session.system, session.turns)


def _check(name: str) -> None:
    if not name or plain(name, 200) != name or name != name.strip():
        raise ValueError(f"{plain(repr(name), 80)} is no name: give one of a line, up to 200 characters")


@contextmanager
def _database() -> Iterator[Conversations]:
    db = Conversations(default_path())
    try:
        yield db
    finally:
        db.close()


def _known_as(path: str) -> str:
    """The name of a model that has one: it stays where another environment has the file elsewhere."""
    names = (name for name, found in installed().items() if str(found) == path)
    return next(names, path)


def _settings(before: Mapping[str, Any], system: str | None) -> dict[str, Any]:
    others = {name: value for name, value in before.items() if name != "system"}
    return {**others, **({} if system is None else {"system": system})}


def _turn(message: Message) -> Turn | None:
    if message.role == "tool" or not message.content:
        return None
    thought = {"reasoning_content": message.reasoning} if message.reasoning else {}
    return {"role": message.role, "content": message.content, **thought}


def _message(turn: Turn, model: str) -> NewMessage:
    if turn["role"] == "user":
        return NewMessage("user", turn["content"])
    return NewMessage(
        "assistant",
        turn["content"],
        turn.get("reasoning_content", ""),
        {"model": Path(model).name.removesuffix(".gguf")},
    )


def _from_file(name: str) -> Conversation | None:
    """What `/save` wrote before there was a database, if there is such a file."""
    path = default_path().parent / "conversations" / f"{name}.json"
    if "/" in name or "\\" in name or not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            ((kept, messages),) = imported(json.loads(file.read(MOST)))
    except OSError as error:
        raise SotolError(f"{plain(path)} can't be read: {str(error.strerror).lower()}") from None
    except (ValueError, RecursionError):
        raise FormatError(f"{plain(path)}: is no conversation that sotol saved") from None
    session = Session(kept, messages)
    return Conversation(session.model, session.system, session.turns)
