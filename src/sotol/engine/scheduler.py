"""Which tokens of which requests run next. Those of one submission come in order; a step mixes decoding with prompts.

Submissions (a call of `generate`, with one prompt or thousands) share evenly: the one that has fewest requests running
is next to start one, and if it has none, the largest makes room; prompts of several share a step's tokens.

A sequence gets blocks of the cache as it grows. When none is left, the last comer of the largest submission gives up
its own and starts again later: its cache is computed anew, which gives the same bits, so nobody can tell.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np

from sotol.engine.sequence import Generation, Scoring
from sotol.kv.pool import BlockPool
from sotol.program.step import BLOCK_TOKENS, Ids, Limits, Step

__all__ = ["Batch", "Scheduler", "Work"]

Sequence = Generation | Scoring
SHORT = 4  # a short step takes this part of the tokens that a step can


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


class _Submission:
    """Requests that came together."""

    def __init__(self, requests: Iterable[Sequence]) -> None:
        self.waiting = deque(requests)
        self.running = 0


class Scheduler:
    """Requests, waiting and running. A step's cost does not depend on how many wait."""

    def __init__(self, limits: Limits) -> None:
        """Raises ValueError for a cache that can't hold one context: its request could never end."""
        if limits.blocks < _blocks(limits.context):
            raise ValueError(f"a cache of {limits.blocks} blocks can't hold a context of {limits.context} tokens")
        self._limits = limits
        self._pool = BlockPool(limits.blocks)
        self._waiting: deque[_Submission] = deque()  # with a request that waits; by turns
        self._running: dict[Sequence, _Submission] = {}  # in the order of their coming

    def check(self, sequence: Sequence) -> None:
        """ValueError for a request that has no tokens or would outgrow the context."""
        longest = sequence.limit if isinstance(sequence, Generation) else len(sequence.tokens)
        if not 0 < len(sequence.tokens) <= self._limits.context or longest > self._limits.context:
            raise ValueError(
                f"a request of {len(sequence.tokens)} to {longest} tokens: there must be 1 to {self._limits.context}"
            )

    def add(self, sequences: Iterable[Sequence]) -> None:
        """A submission, behind the others."""
        submission = _Submission(sequences)
        if submission.waiting:
            self._waiting.append(submission)

    def active(self) -> list[Sequence]:
        """All requests that are not done."""
        waiting = [s for submission in self._waiting for s in submission.waiting]
        return [s for s in (*self._running, *waiting) if not (s.done or s.cancelled)]

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
        for sequence in [s for s in self._running if s.done or s.cancelled]:
            self._stop(sequence)

    def _admit(self) -> None:
        """Start waiting requests while there is room for everyone's prompt and one token more."""
        promised = sum(map(_missing_blocks, self._running)) if self._waiting else 0
        while (submission := self._next_submission()) is not None:
            sequence = submission.waiting[0]
            promised += _missing_blocks(sequence)
            while self._running and (len(self._running) == self._limits.sequences or promised > self._pool.free):
                last = self._last_of_the_largest()
                if submission.running or self._running[last].running == 1:
                    return
                promised -= _missing_blocks(last)
                self._preempt(last)
            self._start(submission)

    def _next_submission(self) -> _Submission | None:
        """Of those that wait, the one with fewest requests running, and of these the first."""
        while self._waiting:
            # No more than `sequences` have any running, so one that has fewest of all is among these.
            submission = min(islice(self._waiting, self._limits.sequences + 1), key=lambda s: s.running)
            waiting = submission.waiting
            while waiting and (waiting[0].done or waiting[0].cancelled):
                waiting.popleft()
            if waiting:
                return submission
            self._waiting.remove(submission)
        return None

    def _start(self, submission: _Submission) -> None:
        """Run its first request; for the next one it waits behind the others."""
        sequence = submission.waiting.popleft()
        self._waiting.remove(submission)
        if submission.waiting:
            self._waiting.append(submission)
        submission.running += 1
        self._running[sequence] = submission
        sequence.start()

    def _stop(self, sequence: Sequence) -> _Submission:
        """Take a running request's blocks and its place."""
        self._pool.release(sequence.blocks)
        sequence.blocks, sequence.cached = [], 0
        submission = self._running.pop(sequence)
        submission.running -= 1
        return submission

    def _preempt(self, sequence: Sequence) -> None:
        """Stop a request for now: it is the next of its submission."""
        submission = self._stop(sequence)
        if not submission.waiting:
            self._waiting.appendleft(submission)
        submission.waiting.appendleft(sequence)

    def _last_of_the_largest(self) -> Sequence:
        """Who gives way: the last comer of the submission with most requests running. Never the first of all."""
        return max(reversed(self._running), key=lambda s: self._running[s].running)

    def _shares(self) -> dict[Sequence, int]:
        """How many tokens of each running sequence the next step takes, oldest first; its blocks are at hand."""
        counts: dict[Sequence, int] = {}
        turns, tokens = self._turns()
        rows = self._limits.rows
        for sequence, sharing in turns:
            if sequence not in self._running:
                continue  # gave up its blocks to another meanwhile
            count = min(len(sequence.tokens) - sequence.cached, -(-tokens // sharing))
            if isinstance(sequence, Scoring):
                count = min(count, -(-rows // sharing))
            if count < 1 or rows < 1 or not self._provide(sequence, count):
                continue
            counts[sequence] = count
            tokens -= count
            rows -= len(sequence.rows_wanted(count))
        return {s: counts[s] for s in self._running if s in counts}

    def _turns(self) -> tuple[list[tuple[Sequence, int]], int]:
        """Running sequences as a step serves them, each with how many then share what is left; the step's tokens.

        Sequences that decode want one token each: they go first, so that no long prompt delays them, and while they
        wait for a token the prompts of other submissions take only a short step. Then the first prompt of each
        submission has an equal part.
        """
        most = self._limits.tokens
        decoding = [(s, 1) for s in self._running if len(s.tokens) - s.cached <= 1]
        if len(decoding) == len(self._running):
            return decoding, most
        prompts = [s for s in self._running if len(s.tokens) - s.cached > 1]
        first = {self._running[s]: s for s in reversed(prompts)}
        heads = [s for s in prompts if first[self._running[s]] is s]
        others = [(s, 1) for s in prompts if first[self._running[s]] is not s]
        if decoding and len(set(self._running.values())) > 1:
            most = min(most, len(decoding) + -(-most // SHORT))
        return [*decoding, *zip(heads, range(len(heads), 0, -1), strict=True), *others], most

    def _provide(self, sequence: Sequence, count: int) -> bool:
        """Give the sequence the blocks for its next tokens, taking them from others where none is free."""
        needed = _blocks(sequence.cached + count) - len(sequence.blocks)
        while needed > self._pool.free:
            last = self._last_of_the_largest()
            if last is sequence:
                return False  # others go on; its turn comes
            self._preempt(last)
        sequence.blocks += self._pool.take(needed)
        return True

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


def _missing_blocks(sequence: Sequence) -> int:
    """Those that it wants for its prompt and one token more."""
    return max(0, _blocks(len(sequence.tokens) + 1) - len(sequence.blocks))
