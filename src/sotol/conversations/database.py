"""Conversations in the user's database. Each method is one transaction, which is on the disk when it returns."""

import json
import secrets
import sqlite3
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import platformdirs

from sotol.conversations.file import DatabaseFile
from sotol.conversations.records import TITLE, Conversation, Found, Message, NewMessage, Status
from sotol.errors import SotolError, plain

__all__ = ["Conversations", "default_path"]

WORDS = 12  # of a search
TRIGRAM = 3  # characters of the shortest word that the index finds
AROUND = 48  # characters on each side of what was found
FIELDS = "c.id, c.title, c.model, c.settings, c.leaf, c.created, c.changed"


def default_path() -> Path:
    """The user's database; SotolError for a user without a home."""
    path = Path(platformdirs.user_data_dir("sotol")) / "conversations.db"
    if not path.is_absolute():
        raise SotolError(f"there is no place for conversations: {plain(path)} is no absolute path (set HOME)")
    return path


class Conversations:
    """Conversations by their owners: nobody else's are found. The file is made when the first method is called.

    owner: whoever a caller tells apart; "" is the user of this machine. Methods raise SotolError where the file can't
    be read or written, and KeyError for what is not there.
    """

    def __init__(self, path: Path) -> None:
        self.file = DatabaseFile(path)

    def close(self) -> None:
        """Let go of the file. The next call opens it again."""
        self.file.close()

    # ---- conversations

    def begin(
        self, owner: str = "", title: str = "", model: str = "", settings: Mapping[str, Any] | None = None
    ) -> Conversation:
        """A new conversation."""
        now = _now()
        made = Conversation(secrets.token_hex(8), title[:TITLE], model, dict(settings or {}), None, now, now)
        with self.file.writing() as connection:
            _insert(connection, owner, made)
        return made

    def get(self, owner: str, id_: str) -> Conversation:
        """A conversation by its id."""
        with self.file.reading() as connection:
            return _conversation(connection, owner, id_)

    def latest(self, owner: str = "", title: str | None = None) -> Conversation:
        """The one that changed last; title: of those with this title."""
        named = ("", ()) if title is None else (" AND c.title = ?", (title,))
        with self.file.reading() as connection:
            query = f"SELECT {FIELDS} FROM conversations c WHERE owner = ?{named[0]} ORDER BY changed DESC, id DESC"
            row = connection.execute(query + " LIMIT 1", (owner, *named[1])).fetchone()
        if row is None:
            raise KeyError(title or "")
        return _read(row)

    def listed(
        self, owner: str = "", search: str = "", before: Conversation | None = None, limit: int = 50
    ) -> list[Found]:
        """Conversations, those that changed last first: of those where all words are in the title or in a message.

        before: the last of an earlier list, behind which this one begins.
        """
        words = search.replace("\0", " ").split()[:WORDS]
        where, values = "", list[object]()
        if words:
            matched, values = _matching(words)
            titled = " AND ".join("instr(fold(c.title), ?)" for _ in words)
            where = f" AND (({titled}) OR c.id IN (SELECT m.conversation FROM messages m WHERE {matched}))"
            values = [*(word.casefold() for word in words), *values]
        if before is not None:
            where += " AND (c.changed, c.id) < (?, ?)"
            values += [before.changed, before.id]
        query = (
            f"SELECT {FIELDS} FROM conversations c WHERE c.owner = ?{where} ORDER BY c.changed DESC, c.id DESC LIMIT ?"
        )
        with self.file.reading() as connection:
            listed = [_read(row) for row in connection.execute(query, (owner, *values, limit))]
            return [Found(one, _excerpt(connection, one, words) if words else "") for one in listed]

    def change(
        self,
        owner: str,
        id_: str,
        *,
        title: str | None = None,
        model: str | None = None,
        settings: Mapping[str, Any] | None = None,
        leaf: int | None = None,
    ) -> Conversation:
        """Change what is given. leaf: one of its messages."""
        with self.file.writing() as connection:
            before = _conversation(connection, owner, id_)
            if leaf is not None:
                _check_message(connection, id_, leaf)
            after = before._replace(
                title=before.title if title is None else title[:TITLE],
                model=before.model if model is None else model,
                settings=before.settings if settings is None else dict(settings),
                leaf=before.leaf if leaf is None else leaf,
            )
            connection.execute(
                "UPDATE conversations SET title = ?, model = ?, settings = ?, leaf = ? WHERE id = ?",
                (after.title, after.model, _json(after.settings), after.leaf, id_),
            )
        return after

    def delete(self, owner: str, id_: str) -> None:
        """Delete a conversation and all of its messages."""
        with self.file.writing() as connection:
            _conversation(connection, owner, id_)
            connection.execute("DELETE FROM conversations WHERE id = ?", (id_,))

    # ---- messages

    def messages(self, owner: str, id_: str) -> list[Message]:
        """All messages of a conversation, the oldest first: each after its parent."""
        with self.file.reading() as connection:
            _conversation(connection, owner, id_)
            rows = connection.execute(
                "SELECT id, parent, role, content, reasoning, details, status, created FROM messages"
                " WHERE conversation = ? ORDER BY id",
                (id_,),
            ).fetchall()
        return [
            Message(number, parent, role, content, reasoning, json.loads(details), status, created)
            for number, parent, role, content, reasoning, details, status, created in rows
        ]

    def add(self, owner: str, id_: str, parent: int | None, new: Sequence[NewMessage]) -> list[Message]:
        """Add messages, each below the one before and the first below `parent`; the last becomes the leaf, or `parent`
        where there are none.
        """
        added: list[Message] = []
        with self.file.writing() as connection:
            _conversation(connection, owner, id_)
            if parent is not None:
                _check_message(connection, id_, parent)
            for message in new:
                added.append(_add(connection, id_, parent, message, _now()))
                parent = added[-1].id
            connection.execute("UPDATE conversations SET leaf = ?, changed = ? WHERE id = ?", (parent, _now(), id_))
        return added

    def write(self, message: int, content: str, reasoning: str, details: Mapping[str, Any], status: Status) -> None:
        """What an answer says by now. Nothing happens if its conversation was deleted meanwhile."""
        with self.file.writing() as connection:
            connection.execute(
                "UPDATE messages SET content = ?, reasoning = ?, details = ?, status = ?, changed = ? WHERE id = ?",
                (content, reasoning, _json(details), status, _now(), message),
            )

    def put(self, owner: str, conversation: Conversation, messages: Sequence[Message]) -> Conversation:
        """A copy of a conversation from elsewhere, with ids of its own. A message comes after its parent."""
        made = conversation._replace(id=secrets.token_hex(8), title=conversation.title[:TITLE], leaf=None)
        ids: dict[int, int] = {}
        with self.file.writing() as connection:
            _insert(connection, owner, made)
            for old in messages:
                parent = None if old.parent is None else ids[old.parent]
                new = NewMessage(old.role, old.content, old.reasoning, old.details, old.status)
                ids[old.id] = _add(connection, made.id, parent, new, old.created).id
            leaf = None if conversation.leaf is None else ids[conversation.leaf]
            connection.execute("UPDATE conversations SET leaf = ? WHERE id = ?", (leaf, made.id))
        return made._replace(leaf=leaf)


def _now() -> int:
    return time.time_ns() // 1_000_000


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _read(row: Sequence[Any]) -> Conversation:
    return Conversation(row[0], row[1], row[2], json.loads(row[3]), *row[4:7])


def _conversation(connection: sqlite3.Connection, owner: str, id_: str) -> Conversation:
    query = f"SELECT {FIELDS} FROM conversations c WHERE owner = ? AND id = ?"
    row = connection.execute(query, (owner, id_)).fetchone()
    if row is None:
        raise KeyError(id_)
    return _read(row)


def _insert(connection: sqlite3.Connection, owner: str, made: Conversation) -> None:
    values = (made.id, owner, made.title, made.model, _json(made.settings), made.created, made.changed)
    connection.execute(
        "INSERT INTO conversations (id, owner, title, model, settings, created, changed) VALUES (?, ?, ?, ?, ?, ?, ?)",
        values,
    )


def _add(connection: sqlite3.Connection, id_: str, parent: int | None, new: NewMessage, created: int) -> Message:
    values = (id_, parent, new.role, new.content, new.reasoning, _json(new.details), new.status, created, created)
    done = connection.execute(
        "INSERT INTO messages (conversation, parent, role, content, reasoning, details, status, created, changed)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        values,
    )
    assert done.lastrowid is not None
    return Message(done.lastrowid, parent, *new, created)


def _check_message(connection: sqlite3.Connection, id_: str, message: int) -> None:
    query = "SELECT 1 FROM messages WHERE conversation = ? AND id = ?"
    if not -(2**63) <= message < 2**63 or connection.execute(query, (id_, message)).fetchone() is None:
        raise KeyError(message)


def _matching(words: Sequence[str]) -> tuple[str, list[object]]:
    """A condition on messages `m` that have all words, and its values: the index has those of three characters."""
    long = [word for word in words if len(word) >= TRIGRAM]
    conditions, values = list[str](), list[object]()
    if long:
        conditions.append("m.id IN (SELECT rowid FROM search WHERE search MATCH ?)")
        values.append(" AND ".join('"' + word.replace('"', '""') + '"' for word in long))
    for word in words:
        if len(word) < TRIGRAM:
            conditions.append("instr(fold(m.content), ?)")
            values.append(word.casefold())
    return " AND ".join(conditions), values


def _excerpt(connection: sqlite3.Connection, found: Conversation, words: Sequence[str]) -> str:
    """Some text around the first word, of the first message that has all."""
    matched, values = _matching(words)
    query = f"SELECT m.content FROM messages m WHERE m.conversation = ? AND {matched} ORDER BY m.id LIMIT 1"
    row = connection.execute(query, (found.id, *values)).fetchone()
    if row is None:
        return ""
    text = str(row[0])
    at = max(text.casefold().find(words[0].casefold()), 0)  # nearly: folding may change the length
    begin, end = max(at - AROUND, 0), at + len(words[0]) + AROUND
    return ("…" if begin else "") + " ".join(text[begin:end].split()) + ("…" if end < len(text) else "")
