"""The user's database: one SQLite file, which several processes may share.

What a transaction has written is on the disk when it ends (WAL with synchronous=FULL): neither kill -9 nor a power cut
takes it back (https://www.sqlite.org/wal.html). A writer takes the write lock when it begins, and waits for that of
another process, so a server and `sotol run -c`, or two servers, share the file.

There is one connection behind a lock, since a write takes a millisecond or two, and what follows must see it. Whoever
has an event loop calls from a thread.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sotol.conversations.schema import MIGRATIONS, migrate
from sotol.errors import FormatError, SotolError, plain

__all__ = ["DatabaseFile"]

BUSY_SECONDS = 10.0  # to wait for another process that writes; each takes milliseconds
ABANDONED_MS = 120_000  # without a word: who wrote this answer is gone (it writes every few seconds)
NO_DATABASE = ("file is not a database", "malformed", "file is encrypted")


class DatabaseFile:
    """The file, which is made when it is first read or written. SotolError where that is not possible."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        """Let go of the file. The next use opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for this thread alone."""
        with self._lock, self._explained():
            yield self._opened()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The same in one transaction: all of it is kept, or nothing."""
        with self.reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # SQLite gives the files beside it (-wal, -shm) the same permissions.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.create_function("fold", 1, str.casefold, deterministic=True)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")
        version = migrate(connection)
        if version > len(MIGRATIONS):
            said = f"{plain(self.path)} is of a newer sotol (version {version}, this one knows {len(MIGRATIONS)})"
            raise SotolError(f"{said}: update sotol, or move the file away")
        abandoned = time.time_ns() // 1_000_000 - ABANDONED_MS
        connection.execute(
            "UPDATE messages SET status = 'stopped' WHERE status = 'streaming' AND changed < ?", (abandoned,)
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors of the file as sotol's own."""
        try:
            yield
        except OSError as error:
            raise SotolError(f"{plain(self.path)} can't be written: {str(error.strerror).lower()}") from None
        except sqlite3.Error as error:
            said = plain(error, 200)
            if any(text in said for text in NO_DATABASE):
                raise FormatError(
                    f"{plain(self.path)}: is no database of conversations, or a damaged one ({said}): move it away"
                ) from None
            raise SotolError(f"{plain(self.path)} can't be used: {said}") from error
