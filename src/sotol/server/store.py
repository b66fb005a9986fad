"""Where responses are kept, to be fetched and continued: in memory, or in the user's database."""

import asyncio
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, NamedTuple, Protocol

from sotol.conversations import Responses
from sotol.server.answering import dumps

__all__ = ["Kept", "Memory", "Record", "Store"]

RECORDS, CHARACTERS = 4096, 64 << 20  # kept in memory at most


class Record(NamedTuple):
    """A response. owner: whose it is; nobody else finds it. own: how many of the last items are its request's input;
    those before it are of the conversation that it continues.
    """

    owner: Hashable
    response: dict[str, Any]
    items: tuple[dict[str, Any], ...]
    own: int

    @property
    def conversation(self) -> tuple[dict[str, Any], ...]:
        """All that a response that continues this one begins with."""
        return (*self.items, *self.response["output"])


class Store(Protocol):
    """Keeps responses by their ids. A record that is put is kept once `put` returns."""

    async def put(self, record: Record) -> None: ...
    async def get(self, owner: Hashable, id_: str) -> Record | None: ...
    async def delete(self, owner: Hashable, id_: str) -> bool:
        """Whether there was one."""
        ...


class Memory:
    """The latest responses, within limits; those that were not used for the longest time go first."""

    def __init__(self, records: int = RECORDS, characters: int = CHARACTERS) -> None:
        self._most, self._longest = records, characters
        self._records: OrderedDict[str, tuple[Record, int]] = OrderedDict()
        self._characters = 0

    async def put(self, record: Record) -> None:
        """Keeps a record."""
        new = record.items[len(record.items) - record.own :]  # the others are shared with the response before
        size = len(dumps(record.response)) + len(dumps(new)) + 8 * len(record.items)
        self._records[record.response["id"]] = record, size
        self._characters += size
        while len(self._records) > self._most or self._characters > self._longest:
            _, (_, gone) = self._records.popitem(last=False)
            self._characters -= gone

    async def get(self, owner: Hashable, id_: str) -> Record | None:
        """A record, which then was the latest to be used."""
        found = self._records.get(id_)
        if found is None or found[0].owner != owner:
            return None
        self._records.move_to_end(id_)
        return found[0]

    async def delete(self, owner: Hashable, id_: str) -> bool:
        """Forgets a record."""
        if await self.get(owner, id_) is None:
            return False
        self._characters -= self._records.pop(id_)[1]
        return True


class Kept:
    """Responses in a database: they outlive the server, however it ends. The event loop does not wait for the disk."""

    def __init__(self, responses: Responses) -> None:
        self._responses = responses

    async def put(self, record: Record) -> None:
        """Keeps a record; it is on the disk when this returns."""
        own = record.items[len(record.items) - record.own :]
        await asyncio.to_thread(self._responses.put, str(record.owner), record.response, own)

    async def get(self, owner: Hashable, id_: str) -> Record | None:
        """A record."""
        found = await asyncio.to_thread(self._responses.get, str(owner), id_)
        return None if found is None else Record(owner, found.response, tuple(found.items), found.own)

    async def delete(self, owner: Hashable, id_: str) -> bool:
        """Forgets a record."""
        return await asyncio.to_thread(self._responses.delete, str(owner), id_)
