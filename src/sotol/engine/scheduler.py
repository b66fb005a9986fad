"""Which tokens of which requests run next. Requests come in order; a step mixes decoding with chunks of prompts.

A sequence gets blocks of the cache as it grows. When none is left, the sequence that came last gives up its own and
starts again later: its cache is computed anew, which gives the same bits, so nobody can tell.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sotol.engine.sequence import Generation, Scoring
from sotol.kv.pool import BlockPool
from sotol.program.step import BLOCK_TOKENS, Ids, Limits, Step

__all__ = ["Batch", "Scheduler", "Work"]

Sequence = Generation | Scoring


@dataclass(frozen=True, slots=True)
class Work:
    """A sequence's part of a batch."""

    sequence: Sequence
    count: int  # its next tokens
    rows: slice  # of the batch's logits; empty while more of the prompt is to come


class Batch(NamedTuple):
    """One step and whose it is."""

    step: Step
    works: tuple[Work, ...]


class Scheduler:
    """Requests, waiting and running."""

    def __init__(self, limits: Limits) -> None:
        """Raises ValueError for a cache that can't hold one context: its request could never end."""
        if limits.blocks < _blocks(limits.context):
            raise ValueError(f"a cache of {limits.blocks} blocks can't hold a context of {limits.context} tokens")
        self._limits = limits
        self._pool = BlockPool(limits.blocks)
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []  # in the order of their coming

    def check(self, sequence: Sequence) -> None:
        """ValueError for a request that has no tokens or would outgrow the context."""
        longest = sequence.limit if isinstance(sequence, Generation) else len(sequence.tokens)
        if not 0 < len(sequence.tokens) <= self._limits.context or longest > self._limits.context:
            raise ValueError(
                f"a request of {len(sequence.tokens)} to {longest} tokens: there must be 1 to {self._limits.context}"
            )

    def add(self, sequences: Iterable[Sequence]) -> None:
        """New requests, behind the others."""
        self._waiting.extend(sequences)

    def active(self) -> list[Sequence]:
        """All requests that are not done."""
        return [*self._running, *self._waiting]

    def next(self) -> Batch | None:
        """The next batch; None when there is no work."""
        self._drop_done()
        self._admit()
        counts = self._shares()
        if not counts:
            return None
        return self._batch(counts)

    def done(self, batch: Batch) -> None:
        """The batch has run: its tokens are in the cache."""
        for work in batch.works:
            work.sequence.cached += work.count

    def _drop_done(self) -> None:
        for sequence in [s for s in self.active() if s.done or s.cancelled]:
            self._release(sequence)
            (self._running if sequence in self._running else self._waiting).remove(sequence)

    def _admit(self) -> None:
        """Start waiting requests while there is room for everyone's prompt and one token more."""
        promised = sum(max(0, _blocks(len(s.tokens) + 1) - len(s.blocks)) for s in self._running)
        while self._waiting and len(self._running) < self._limits.sequences:
            promised += _blocks(len(self._waiting[0].tokens) + 1)
            if self._running and promised > self._pool.free:
                return
            sequence = self._waiting.popleft()
            sequence.start()
            self._running.append(sequence)

    def _shares(self) -> dict[Sequence, int]:
        """How many tokens of each running sequence the next step takes, oldest first; its blocks are at hand."""
        counts: dict[Sequence, int] = {}
        tokens, rows = self._limits.tokens, self._limits.rows
        # Sequences that decode want one token each: they go first, so that no long prompt delays them.
        for sequence in sorted(self._running, key=lambda s: len(s.tokens) - s.cached > 1):
            if sequence not in self._running:
                continue  # gave up its blocks to another meanwhile
            count = min(len(sequence.tokens) - sequence.cached, tokens)
            if isinstance(sequence, Scoring):
                count = min(count, rows)
            if count < 1 or rows < 1 or not self._provide(sequence, count):
                continue
            counts[sequence] = count
            tokens -= count
            rows -= len(sequence.rows_wanted(count))
        return {s: counts[s] for s in self._running if s in counts}

    def _provide(self, sequence: Sequence, count: int) -> bool:
        """Give the sequence the blocks for its next tokens, taking them from the last comers where none is free."""
        needed = _blocks(sequence.cached + count) - len(sequence.blocks)
        while needed > self._pool.free:
            last = self._running[-1]
            if last is sequence:
                return False  # older ones go on; its turn comes
            self._running.pop()
            self._release(last)
            self._waiting.appendleft(last)
        sequence.blocks += self._pool.take(needed)
        return True

    def _release(self, sequence: Sequence) -> None:
        self._pool.release(sequence.blocks)
        sequence.blocks, sequence.cached = [], 0

    def _batch(self, counts: dict[Sequence, int]) -> Batch:
        tokens: list[int] = []
        positions: list[int] = []
        starts, logit_rows, works = [0], list[int](), list[Work]()
        for sequence, count in counts.items():
            wanted = sequence.rows_wanted(count)
            works.append(Work(sequence, count, slice(len(logit_rows), len(logit_rows) + len(wanted))))
            logit_rows += [len(tokens) + i for i in wanted]
            tokens += sequence.tokens[sequence.cached : sequence.cached + count]
            positions += range(sequence.cached, sequence.cached + count)
            starts.append(len(tokens))
        blocks = np.zeros((len(counts), max(len(s.blocks) for s in counts)), np.int32)
        for row, sequence in zip(blocks, counts, strict=True):
            row[: len(sequence.blocks)] = sequence.blocks
        # The kernels always compute a row: where none is wanted, the last token's, which nobody reads.
        rows = logit_rows or [len(tokens) - 1]
        step = Step(_ids(tokens), _ids(positions), _ids(starts), blocks, _ids(rows))
        return Batch(step, tuple(works))


def _ids(numbers: list[int]) -> Ids:
    return np.array(numbers, np.int32)


def _blocks(tokens: int) -> int:
    return -(-tokens // BLOCK_TOKENS)
