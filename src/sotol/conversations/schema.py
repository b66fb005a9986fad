"""The tables, and how a database of an earlier version becomes one of this.

`PRAGMA user_version` counts the migrations that were made. Each is one transaction, so a process that is killed in the
middle leaves the version before.

The index for searching (FTS5, https://www.sqlite.org/fts5.html) is of trigrams: what is found is any part of a word, in
any script. It is kept by triggers, and has a message once that is not being written any more.
"""

import sqlite3

__all__ = ["MIGRATIONS", "migrate"]

MIGRATIONS = (
    (
        """CREATE TABLE conversations (
            id TEXT PRIMARY KEY,
            owner TEXT NOT NULL,
            title TEXT NOT NULL,
            model TEXT NOT NULL,
            settings TEXT NOT NULL,
            leaf INTEGER,
            created INTEGER NOT NULL,
            changed INTEGER NOT NULL
        ) STRICT""",
        "CREATE INDEX conversations_changed ON conversations (owner, changed DESC, id DESC)",
        """CREATE TABLE messages (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            conversation TEXT NOT NULL REFERENCES conversations ON DELETE CASCADE,
            parent INTEGER REFERENCES messages,
            role TEXT NOT NULL,
            content TEXT NOT NULL,
            reasoning TEXT NOT NULL,
            details TEXT NOT NULL,
            status TEXT NOT NULL,
            created INTEGER NOT NULL,
            changed INTEGER NOT NULL
        ) STRICT""",
        "CREATE INDEX messages_conversation ON messages (conversation)",
        "CREATE INDEX messages_parent ON messages (parent)",
        """CREATE TABLE responses (
            id TEXT PRIMARY KEY,
            owner TEXT NOT NULL,
            previous TEXT,
            response TEXT NOT NULL,
            items TEXT NOT NULL,
            used INTEGER NOT NULL,
            hidden INTEGER NOT NULL DEFAULT 0
        ) STRICT""",
        "CREATE INDEX responses_previous ON responses (previous) WHERE previous IS NOT NULL",
        "CREATE INDEX messages_streaming ON messages (changed) WHERE status = 'streaming'",
        "CREATE VIRTUAL TABLE search USING fts5(content, content='messages', content_rowid='id', tokenize='trigram')",
        """CREATE TRIGGER messages_added AFTER INSERT ON messages WHEN new.status <> 'streaming' BEGIN
            INSERT INTO search (rowid, content) VALUES (new.id, new.content);
        END""",
        """CREATE TRIGGER messages_changed AFTER UPDATE OF content, status ON messages BEGIN
            INSERT INTO search (search, rowid, content)
                SELECT 'delete', old.id, old.content WHERE old.status <> 'streaming';
            INSERT INTO search (rowid, content) SELECT new.id, new.content WHERE new.status <> 'streaming';
        END""",
        """CREATE TRIGGER messages_deleted AFTER DELETE ON messages WHEN old.status <> 'streaming' BEGIN
            INSERT INTO search (search, rowid, content) VALUES ('delete', old.id, old.content);
        END""",
    ),
)


def migrate(connection: sqlite3.Connection) -> int:
    """Make what is missing; the version that the database had. One that is newer than this program stays as it is."""
    before = _version(connection)
    if before >= len(MIGRATIONS):
        return before
    connection.execute("BEGIN IMMEDIATE")
    try:
        for number in range(_version(connection), len(MIGRATIONS)):  # another process may have been faster
            for statement in MIGRATIONS[number]:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    return before


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)
