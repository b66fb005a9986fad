"""What a conversation is: a tree of messages, of which one branch is shown."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

__all__ = [
    "ROLES", "STATUSES", "TITLE", "Conversation", "Found", "Message", "NewMessage", "Role", "Status", "branch",
    "title_of",
]  # fmt: skip

Role: TypeAlias = Literal["user", "assistant", "tool"]
# streaming: it is being written. stopped: it was cut by who asked, by a lost connection, or by the end of the process.
Status: TypeAlias = Literal["streaming", "complete", "stopped", "failed"]
ROLES: tuple[Role, ...] = ("user", "assistant", "tool")
STATUSES: tuple[Status, ...] = ("streaming", "complete", "stopped", "failed")
TITLE = 200  # characters of a title
SHOWN = 60  # of one that is made of the first message


class Conversation(NamedTuple):
    """All but its messages.

    leaf: the last message of the branch that is shown; None before the first. settings: what its answers are asked
    with, as JSON: `system` and fields of sampling. created, changed: milliseconds of Unix.
    """

    id: str
    title: str
    model: str
    settings: Mapping[str, Any]
    leaf: int | None
    created: int
    changed: int


class Message(NamedTuple):
    """A message. parent: what it follows; messages of one parent are alternatives. Ids grow with time.

    details: what else there is to know, as JSON: of an answer its model, the tools that it calls, token counts, speed.
    """

    id: int
    parent: int | None
    role: Role
    content: str
    reasoning: str
    details: Mapping[str, Any]
    status: Status
    created: int


class NewMessage(NamedTuple):
    """What a message says, before it has a place."""

    role: Role
    content: str
    reasoning: str = ""
    details: Mapping[str, Any] = {}
    status: Status = "complete"


class Found(NamedTuple):
    """A conversation of a list. excerpt: where the words that were searched for are; empty if in the title."""

    conversation: Conversation
    excerpt: str = ""


def branch(messages: Iterable[Message], leaf: int | None) -> list[Message]:
    """The messages from the root to a leaf, which is one of them."""
    known = {message.id: message for message in messages}
    path: list[Message] = []
    while leaf is not None:
        path.append(known[leaf])
        leaf = path[-1].parent
    return path[::-1]


def title_of(text: str) -> str:
    """A title for a conversation that begins so: the first line that says something, cut between words."""
    line = next((line for line in (" ".join(row.split()) for row in text.splitlines()) if line), "")
    line = line.lstrip("#>-* ").strip() or line
    if len(line) <= SHOWN:
        return line
    cut = line[:SHOWN].rsplit(" ", 1)[0]
    return f"{cut if len(cut) > SHOWN // 2 else line[:SHOWN]}…"
