"""Continuous batching: which tokens of which requests run in the next step. Steps mix decode with chunked prefill.

Clients share capacity evenly (one call of `generate`, with one prompt or thousands, is a client unless told otherwise).
The client with the fewest running requests is admitted next; if it has none, a request of the largest client is
preempted for it. Prompts of several clients share the tokens of a step. `policy.py` has priorities and budgets.

A sequence starts after its cached prefix and gets blocks as it grows (`kv/memory.py`). When no block is available, the
newest request of the largest client is preempted. When it continues, whatever has been evicted meanwhile is computed
again, to the same bits, so preemption never changes an answer.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import NamedTuple

import numpy as np

from sotol.arrays import Int32Array
from sotol.engine.policy import Pace
from sotol.engine.sequence import Sequence
from sotol.engine.waiting import Client, Entry, Waiting
from sotol.errors import SotolError
from sotol.kv.memory import GroupLoad, Memory
from sotol.program.memory import Copy, Group
from sotol.program.step import Limits, Step

__all__ = ["Batch", "Load", "Scheduler", "Take"]

SHARES = 8  # of a step's tokens: smaller ones are not given to prompts, so that crowds of short ones end one by one
LOOKS = 16  # admission skips at most this many clients in one step, whose requests wait for another's prefix


@dataclass(frozen=True, slots=True)
class Take:
    """One sequence's share of a batch."""

    sequence: Sequence
    count: int  # how many of its tokens run
    rows: slice  # its rows of the results; empty while more of the prompt is to come


class Batch(NamedTuple):
    """One step, the shares of its sequences, and the block copies that must run before it."""

    step: Step
    takes: tuple[Take, ...]
    copies: tuple[Copy, ...] = ()


class Load(NamedTuple):
    """How busy the engine is, for monitoring."""

    waiting: int
    running: int
    groups: tuple[GroupLoad, ...]


class Scheduler:
    """Waiting and running requests. The cost of scheduling a step does not depend on how many wait."""

    def __init__(self, limits: Limits, groups: tuple[Group, ...], *, reuse: bool = True, slowdown: float = 1.8) -> None:
        """reuse: whether to use the prefix cache. slowdown: see `Pace`.

        ValueError if memory can't hold one context: a request of that length could never finish.
        """
        self.memory = Memory(groups, limits.blocks, step_tokens=limits.tokens, reuse=reuse)
        nothing = self.memory.open((), 0)
        assert nothing is not None
        whole = self.memory.needs(nothing, limits.context)
        self.memory.close(nothing)
        if any(need > blocks for need, blocks in zip(whole, limits.blocks, strict=True)):
            raise ValueError(f"{limits.blocks} blocks can't hold a context of {limits.context} tokens")
        self._limits = limits
        self._waiting = Waiting(limits.sequences)
        self._running: dict[Sequence, tuple[Client, Entry]] = {}  # in order of admission
        self._pace = Pace(slowdown, limits.tokens)

    def check(self, sequence: Sequence) -> None:
        """ValueError for a request that has no tokens or could outgrow the context."""
        if not 0 < len(sequence.tokens) <= self._limits.context or sequence.limit > self._limits.context:
            raise ValueError(
                f"a request of {len(sequence.tokens)} to {sequence.limit} tokens:"
                f" there must be 1 to {self._limits.context}"
            )

    def add(self, sequences: Iterable[Sequence]) -> None:
        """Queue requests that were submitted together."""
        self._waiting.add(sequences)

    def active(self) -> list[Sequence]:
        """All requests that are not done."""
        return [s for s in (*self._running, *self._waiting.requests()) if not _over(s)]

    @property
    def waiting(self) -> int:
        """How many requests are queued: not yet admitted, or preempted."""
        return self._waiting.count

    def load(self) -> Load:
        """How many requests wait and run, and how full the cache memory is."""
        return Load(self.waiting, len(self._running), self.memory.load())

    def next(self) -> Batch | None:
        """The next batch; None when there is no work."""
        self._drop_done()
        self._admit()
        # A step that only decodes is impossible if those that decode find no blocks: then the prompts go on.
        counts = self._plan() or self._plan(paced=False)
        return self._batch(counts) if counts else None

    def advance(self, batch: Batch, seconds: float | None = None) -> None:
        """Commit a batch that has run, in `seconds`: its tokens are in memory now."""
        decoding = prompts = 0
        for take in batch.takes:
            held = take.sequence.held
            assert held is not None
            if _decodes(take.sequence):
                decoding, prompts = decoding + 1, prompts + take.count - 1
            else:
                prompts += take.count
            self.memory.commit(held, take.sequence.tokens, held.length + take.count)
        if seconds is not None:
            self._pace.note(decoding, prompts, seconds)

    # ---- admission and preemption

    def _drop_done(self) -> None:
        now = monotonic()
        for sequence in [*(s for s in self._running if s.terms.deadline < now), *self._waiting.expired(now)]:
            _expire(sequence)
        for sequence in list(self._running):
            if _over(sequence):
                client, _ = self._stop(sequence)
                self._waiting.forget(client)

    def _admit(self) -> None:
        """Admit waiting requests while memory has room for the tokens of all that run, and one more for each."""
        passed: list[Client] = []  # their next requests wait for a prefix that another is about to compute
        while len(passed) < LOOKS and (client := self._next_client(passed)) is not None:
            sequence, victim = client.queue[0][-1], None
            if len(self._running) == self._limits.sequences:
                victim = self._victim()
                if not self._may_take(client, victim):
                    return
            if not self._open(sequence):
                passed.append(client)
                continue
            if victim is not None:
                self._preempt(victim)
            if not self._has_room(client, sequence):
                self._close(sequence)
                return
            self._start(client)

    def _next_client(self, passed: list[Client]) -> Client | None:
        while (client := self._waiting.first(passed)) is not None:
            if not _over(client.queue[0][-1]):
                return client
            self._waiting.pop(client)
            self._waiting.forget(client)
        return None

    def _has_room(self, client: Client, sequence: Sequence) -> bool:
        """Whether memory has room for its tokens and one more, beside the running ones; may preempt for it."""
        others = [s for s in self._running if s is not sequence]
        while not self._fits([*others, sequence]):
            if not others:
                return True  # alone, a sequence always has room for a step
            victim = self._victim()
            if not self._may_take(client, victim):
                return False
            self._preempt(victim)
            others.remove(victim)
        return True

    def _may_take(self, client: Client, victim: Sequence) -> bool:
        """Whether a client's next request may preempt another: by higher priority, or because nothing of it runs."""
        if client.queue[0][-1].terms.priority != victim.terms.priority:
            return client.queue[0][-1].terms.priority > victim.terms.priority
        return not client.running and self._running[victim][0].running > 1

    def _fits(self, sequences: list[Sequence]) -> bool:
        available = list(self.memory.available())
        for sequence in sequences:
            assert sequence.held is not None
            for g, need in enumerate(self.memory.needs(sequence.held, len(sequence.tokens) + 1)):
                available[g] -= need
        return min(available, default=0) >= 0

    def _open(self, sequence: Sequence) -> bool:
        """Find its cached prefix; False: it should wait, since another is about to compute more of its prefix."""
        sequence.held = self.memory.open(sequence.tokens, sequence.reusable, sequence.key)
        return sequence.held is not None

    def _close(self, sequence: Sequence) -> None:
        if sequence.held is not None:
            self.memory.close(sequence.held)
            sequence.held = None

    def _start(self, client: Client) -> None:
        entry = self._waiting.pop(client)
        client.running += 1
        self._running[entry[-1]] = client, entry
        entry[-1].start()

    def _stop(self, sequence: Sequence) -> tuple[Client, Entry]:
        """Take a running request's blocks and its place among the running ones."""
        self._close(sequence)
        client, entry = self._running.pop(sequence)
        client.running -= 1
        return client, entry

    def _preempt(self, sequence: Sequence) -> None:
        """Preempt a request: it goes back to the head of its client's queue."""
        self._waiting.push(*self._stop(sequence))

    def _victim(self) -> Sequence:
        """Whom to preempt: of the lowest priority, the newest request of the client with most requests running."""
        return max(reversed(self._running), key=lambda s: (-s.terms.priority, self._running[s][0].running))

    # ---- making a batch

    def _plan(self, *, paced: bool = True) -> dict[Sequence, int]:
        """How many tokens of each running sequence the next step takes, with their blocks allocated.

        paced: whether prompts take no more beside decoding sequences than `Pace` says.
        """
        counts: dict[Sequence, tuple[int, int]] = {}  # tokens, rows of results
        turns, tokens = self._turns(paced)
        rows = self._limits.rows
        for sequence, sharing in turns:
            held = sequence.held
            if held is None:
                continue  # preempted by an earlier sequence of this loop
            least = min(tokens, self._limits.tokens // SHARES)
            count = min(_left(sequence), max(least, -(-tokens // sharing)))
            if sequence.every_row:
                count = min(count, -(-rows // sharing))
            if count < 1 or rows < 1:
                continue
            count = self.memory.stop(held, held.length + count) - held.length
            ready = self._reserve(sequence, held.length + count)
            for gone in [s for s in counts if s.held is None]:  # preempted for this one: its share is free again
                back = counts.pop(gone)
                tokens, rows = tokens + back[0], rows + back[1]
            if not ready:
                continue
            counts[sequence] = count, len(sequence.rows_wanted(count))
            tokens, rows = tokens - count, rows - counts[sequence][1]
        return {s: counts[s][0] for s in self._running if s in counts}

    def _reserve(self, sequence: Sequence, end: int) -> bool:
        """Allocate blocks for the sequence's tokens up to `end`, preempting others if needed."""
        assert sequence.held is not None
        while not self.memory.extend(sequence.held, end):
            victim = self._victim()
            if victim is sequence:
                return False  # it keeps its blocks and waits for the others
            self._preempt(victim)
        return True

    def _turns(self, paced: bool) -> tuple[list[tuple[Sequence, int]], int]:
        """Running sequences in the order in which a step serves them, and the step's token budget.

        Each comes with the number of sequences, itself included, that share the remaining tokens equally. Decoding
        sequences need the tokens that their last step added, mostly one, and go first, so that no long prompt delays
        them; those with one come before those with several. If several clients run, the budget for prefill beside
        decode is that of `Pace`. The first prompt of each client gets an equal share, or what is left of a larger one
        where many share: the oldest, so that it ends some time, then those that need least.
        """
        most = self._limits.tokens
        running = sorted(self._running, key=lambda s: -s.terms.priority)
        answering = [s for s in running if _decodes(s)]
        decoding = [(s, 1) for s in sorted(answering, key=lambda s: (-s.terms.priority, _left(s)))]
        if len(decoding) == len(running):
            return decoding, most
        prompts = [s for s in running if not _decodes(s)]
        client_of = {s: client for s, (client, _) in self._running.items()}
        first = {client_of[s]: s for s in reversed(prompts)}
        oldest, *rest = (s for s in prompts if first[client_of[s]] is s)
        heads = [oldest, *sorted(rest, key=lambda s: (-s.terms.priority, _left(s)))]
        others = [(s, 1) for s in prompts if first[client_of[s]] is not s]
        # One with a name may ask for many readers, as a server's clients do.
        if paced and decoding and (len(set(client_of.values())) > 1 or running[0].terms.client is not None):
            waiting = len(prompts) + self.waiting
            needed = sum(max(_left(s), 1) for s in answering)
            most = min(most, needed + self._pace.prompt_tokens(waiting, len(decoding)))
        return [*decoding, *zip(heads, range(len(heads), 0, -1), strict=True), *others], most

    def _batch(self, counts: dict[Sequence, int]) -> Batch:
        tokens: list[int] = []
        positions: list[int] = []
        starts, logit_rows, takes = [0], list[int](), list[Take]()
        helds = [s.held for s in counts if s.held is not None]
        for (sequence, count), held in zip(counts.items(), helds, strict=True):
            wanted = sequence.rows_wanted(count)
            takes.append(Take(sequence, count, slice(len(logit_rows), len(logit_rows) + len(wanted))))
            logit_rows += [len(tokens) + i for i in wanted]
            tokens += sequence.tokens[held.length : held.length + count]
            positions += range(held.length, held.length + count)
            starts.append(len(tokens))
        # A step must have a row of results: if none is wanted, it is the last token's, and nobody reads it.
        rows = logit_rows or [len(tokens) - 1]
        step = Step(_ids(tokens), _ids(positions), _ids(starts), self.memory.tables(helds), _ids(rows))
        return Batch(step, tuple(takes), tuple(self.memory.take_copies()))


def _left(sequence: Sequence) -> int:
    """How many of its tokens are still to run."""
    return len(sequence.tokens) - (0 if sequence.held is None else sequence.held.length)


def _decodes(sequence: Sequence) -> bool:
    """Whether only what its last step added is to run, or the end of its prompt, which costs as little."""
    return _left(sequence) <= max(sequence.new, 1)


def _over(sequence: Sequence) -> bool:
    return sequence.done or sequence.cancelled


def _expire(sequence: Sequence) -> None:
    """Fail a request whose deadline has passed."""
    if not _over(sequence):
        with suppress(Exception):  # its listener may be gone
            sequence.fail(SotolError("the request was not done at its deadline"))


def _ids(numbers: list[int]) -> Int32Array:
    return np.array(numbers, np.int32)
