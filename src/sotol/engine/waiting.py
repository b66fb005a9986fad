"""The waiting requests: a queue for each client, and clients take turns."""

import math
from collections import deque
from collections.abc import Hashable, Iterable
from heapq import heapify, heappop, heappush
from itertools import islice

from sotol.engine.sequence import Sequence

__all__ = ["Client", "Waiting"]

Entry = tuple[int, float, int, Sequence]  # (-priority, deadline, arrival number, request): the least is next


class Client:
    """The unit of fair sharing: a queue of requests, and how many of them run."""

    def __init__(self) -> None:
        self.running = 0
        self.queue: list[Entry] = []  # a heap of waiting requests


class Waiting:
    """All clients with waiting requests. The calls of a step take the same time, however many requests wait."""

    def __init__(self, sequences: int) -> None:
        """sequences: the most requests that run at once."""
        self._sequences = sequences
        self._levels: dict[int, deque[Client]] = {}  # priority of the next request -> clients, in order of turns
        self._named: dict[Hashable, Client] = {}
        self._numbers = 0
        self._soonest = math.inf  # no deadline is before this
        self.count = 0

    def requests(self) -> list[Sequence]:
        """All waiting requests."""
        return [entry[-1] for level in self._levels.values() for client in level for entry in client.queue]

    def add(self, sequences: Iterable[Sequence]) -> None:
        """Queue requests that were submitted together, after the earlier ones of their clients."""
        together = Client()
        fresh: dict[Client, list[Entry]] = {}
        for sequence in sequences:
            terms = sequence.terms
            client = together if terms.client is None else self._named.setdefault(terms.client, Client())
            self._numbers += 1
            self._soonest = min(self._soonest, terms.deadline)
            fresh.setdefault(client, []).append((-terms.priority, terms.deadline, self._numbers, sequence))
        for client, entries in fresh.items():
            self._leave(client)
            client.queue += entries
            self.count += len(entries)
            heapify(client.queue)
            self._enter(client)

    def expired(self, now: float) -> list[Sequence]:
        """Those whose deadline has passed; looks at all only when there may be one."""
        if self._soonest >= now:
            return []
        deadlines = [(s.terms.deadline, s) for s in self.requests() if not (s.done or s.cancelled)]
        self._soonest = min((deadline for deadline, _ in deadlines if deadline >= now), default=math.inf)
        return [s for deadline, s in deadlines if deadline < now]

    def first(self, passed: Iterable[Client] = ()) -> Client | None:
        """The client whose turn it is: highest priority, then fewest running requests. passed: clients to skip."""
        passed = set(passed)
        for priority in sorted(self._levels, reverse=True):
            # At most `sequences` clients have any running, so one with the fewest is among the first sequences + 1.
            level = islice(self._levels[priority], self._sequences + 1 + len(passed))
            free = [client for client in level if client not in passed]
            if free:
                return min(free, key=lambda client: client.running)
        return None

    def pop(self, client: Client) -> Entry:
        """Take a client's next request; its turn for another comes after the other clients."""
        self._leave(client)
        entry = heappop(client.queue)
        self.count -= 1
        self._enter(client)
        return entry

    def push(self, client: Client, entry: Entry) -> None:
        """Put a request back at the head of the queues: it was preempted."""
        self._leave(client)
        heappush(client.queue, entry)
        self.count += 1
        self._soonest = min(self._soonest, entry[1])
        self._enter(client, first=True)

    def forget(self, client: Client) -> None:
        """Drop a client's name if it has neither waiting nor running requests."""
        if not client.running and not client.queue:
            for name in [name for name, known in self._named.items() if known is client]:
                del self._named[name]

    def _enter(self, client: Client, *, first: bool = False) -> None:
        if client.queue:
            level = self._levels.setdefault(-client.queue[0][0], deque())
            level.appendleft(client) if first else level.append(client)

    def _leave(self, client: Client) -> None:
        if client.queue:
            priority = -client.queue[0][0]
            level = self._levels[priority]
            level.remove(client)
            if not level:
                del self._levels[priority]
