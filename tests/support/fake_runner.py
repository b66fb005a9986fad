"""A runner without a model, for tests of scheduling: its logits depend on the tokens so far, and on nothing else.

It finds those tokens in memory through the tables of the step, as kernels do: in a group of pages all that a sequence
sees, in a group of states a digest of all its tokens. So a wrong table, position, shared block or state changes what is
generated, and `alone` says what should have been.
"""

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sotol.engine.options import Sampling
from sotol.engine.policy import NO_TERMS, Terms
from sotol.engine.sampling import Sampler, pick, take
from sotol.engine.sequence import Event, Generation, Scoring
from sotol.engine.stops import StopMatcher
from sotol.program.memory import BLOCK_TOKENS, Cache, Copy, Group, Paged, State, group_caches
from sotol.program.runner import Results
from sotol.program.step import Limits, Step
from sotol.progress import Progress
from sotol.quant import Float32Array

__all__ = ["FULL", "STATE", "VOCABULARY", "FakeRunner", "Numbers", "Ruled", "alone", "generation", "logits_after",
           "scores", "scoring", "window"]  # fmt: skip

VOCABULARY = 32
FULL = group_caches([Cache("kv.0", Paged(1, 1, 1))])
STATE = group_caches([Cache("state.0", State((1,)))])
Groups = tuple[Group, ...]


def window(tokens: int) -> Groups:
    """A group with a window."""
    return group_caches([Cache(f"kv.{tokens}", Paged(1, 1, 1, tokens))])


class FakeRunner:
    """Counts steps; `failure` is raised by the next step; `before` is called in each, on the engine's thread."""

    def __init__(
        self,
        limits: Limits,
        groups: Groups = FULL,
        logits: Callable[[Sequence[Sequence[int]]], Float32Array] | None = None,
        vocabulary: int = VOCABULARY,
    ) -> None:
        """logits: [vocabulary] of what each group shows of a sequence; at random, but always the same, unless given."""
        self.limits, self.groups, self.threads = limits, groups, 1
        self._logits_of, self._vocabulary = logits or _logits, vocabulary
        self.steps = 0
        self.failure: Exception | None = None
        self.before: Callable[[Step], None] = lambda _step: None
        shapes = [(n,) if g.state else (n, BLOCK_TOKENS) for g, n in zip(groups, limits.blocks, strict=True)]
        self._memory: list[np.ndarray[Any, Any]] = [np.full(shape, -1, np.int64) for shape in shapes]
        self._logits = np.zeros((limits.rows, vocabulary), np.float32)

    def run(self, step: Step) -> Results:
        step.check(self.limits, self.groups, self._vocabulary)
        self.steps += 1
        self.before(step)
        if self.failure is not None:
            failure, self.failure = self.failure, None
            self._write(step)  # some of it may have happened
            raise failure
        states = self._write(step)
        self._logits[:] = np.nan  # what the last step gave is valid no more
        for i, row in enumerate(step.logit_rows.tolist()):
            sequence = int(np.searchsorted(step.starts, row, "right")) - 1
            seen = [self._seen(g, step, sequence, row, states) for g in range(len(self.groups))]
            self._logits[i] = self._logits_of(seen)
        return {"logits": self._logits[: len(step.logit_rows)]}

    def _write(self, step: Step) -> list[int]:
        """Put tokens where they go; the digest of a state after each token."""
        states: list[int] = []
        for g, group in enumerate(self.groups):
            memory = self._memory[g]
            if not group.state:
                slots = np.array(step.slots(g))
                assert len(np.unique(slots)) == len(slots), "two tokens of a step share a slot"
                memory[slots // BLOCK_TOKENS, slots % BLOCK_TOKENS] = step.tokens
                continue
            own = step.tables[g].blocks[:, 0].tolist()
            assert len(set(own)) == len(own), "two sequences share a state"
            for s, block in enumerate(own):
                begin, end = step.starts[s : s + 2].tolist()
                digest = int(memory[block]) if step.positions[begin] else 0
                for token in step.tokens[begin:end].tolist():
                    digest = _digest(digest, token)
                    states.append(digest)
                memory[block] = digest
        return states

    def _seen(self, g: int, step: Step, sequence: int, row: int, states: list[int]) -> list[int]:
        group = self.groups[g]
        if group.state:
            return [states[row]]
        last, table = int(step.positions[row]), step.tables[g]
        past = np.arange(max(0, last - group.window + 1) if group.window else 0, last + 1)
        blocks = table.blocks[sequence, past // BLOCK_TOKENS - table.first[sequence]]
        seen: list[int] = self._memory[g][blocks, past % BLOCK_TOKENS].tolist()
        return seen

    def copy(self, copies: Sequence[Copy]) -> None:
        for group, source, to in copies:
            self._memory[group][to] = self._memory[group][source]

    def read(self, group: int, block: int) -> bytes:
        return np.asarray(self._memory[group][block]).tobytes()

    def write(self, group: int, block: int, data: bytes) -> None:
        self._memory[group][block] = np.frombuffer(data, np.int64)

    def wait(self, progress: Progress) -> None:
        pass

    def close(self) -> None:
        pass


def _digest(digest: int, token: int) -> int:
    return zlib.crc32(token.to_bytes(4, "little"), digest)


def _logits(seen: Sequence[Sequence[int]]) -> Float32Array:
    """[V] of what each group shows."""
    seed = zlib.crc32(b"|".join(np.array(part, np.int64).tobytes() for part in seen))
    return (3 * np.random.default_rng(seed).normal(size=VOCABULARY)).astype(np.float32)


def logits_after(tokens: Sequence[int], groups: Groups = FULL) -> Float32Array:
    """The fake model itself: [V]."""
    seen: list[list[int]] = []
    for group in groups:
        digest = 0
        for token in tokens if group.state else ():
            digest = _digest(digest, token)
        seen.append([digest] if group.state else list(tokens)[-group.window :])
    return _logits(seen)


class Numbers:
    """A decoder for tokens without text: token 7 is "7,"."""

    def push(self, token: int) -> str:
        return f"{token},"

    def finish(self) -> str:
        return ""


class Ruled:
    """What `Matcher` is to a request, for tokens without text: a third may follow a token, after some others must."""

    def __init__(self) -> None:
        self._last = self._count = 0

    @property
    def over(self) -> bool:
        return self._last == VOCABULARY - 1

    def mask(self) -> Float32Array | None:
        if self._last == VOCABULARY - 2:
            return None
        mask = np.full(VOCABULARY, -np.inf, np.float32)
        mask[(3 * self._last + self._count + np.arange(VOCABULARY // 3)) % VOCABULARY] = 0
        return mask

    def accept(self, token: int) -> None:
        self._last, self._count = token, self._count + 1

    def forced(self) -> list[int]:
        tokens = [(5 * self._last + i) % VOCABULARY for i in range(self._last % 4)] if self._last % 3 == 0 else []
        for token in tokens:
            self.accept(token)
        return tokens


def generation(
    tokens: Sequence[int],
    deliver: Callable[[Event], None],
    *,
    new: int = 5,
    ends: Sequence[int] = (),
    sampling: Sampling | None = None,
    terms: Terms = NO_TERMS,
    ruled: bool = False,
) -> Generation:
    """A request for `new` tokens, greedy unless told otherwise. ruled: constrained as `Ruled` says."""
    sampling = sampling or Sampling(temperature=0)
    sampler = Sampler(sampling, VOCABULARY, tokens)
    stops = StopMatcher(sampling.stop)
    request = Generation(list(tokens), sampler, Numbers(), stops, frozenset(ends), len(tokens) + new, deliver, terms)
    if ruled:
        request.matcher = Ruled()  # type: ignore[assignment]  # as far as requests know one
    return request


def alone(
    tokens: Sequence[int],
    new: int,
    *,
    ends: Sequence[int] = (),
    sampling: Sampling | None = None,
    groups: Groups = FULL,
    ruled: bool = False,
) -> tuple[list[int], str]:
    """The generated tokens and the reason of the end, without scheduling."""
    sampler = Sampler(sampling or Sampling(temperature=0), VOCABULARY, tokens)
    out: list[int] = []
    rules, forced = Ruled() if ruled else None, list[int]()
    while len(out) < new:
        logits = logits_after([*tokens, *out], groups)
        if chosen := not forced:
            mask = rules.mask() if rules else None
            if rules and mask is None:
                return out, "stop"
            token = pick(logits[None], [sampler], [mask])[0].token
        else:
            token = take(logits, sampler, forced.pop(0)).token
        if token in ends:
            return out, "stop"
        if rules and chosen:
            rules.accept(token)
            forced = rules.forced()
        out.append(token)
        if rules and not forced and rules.over:
            return out, "stop"
    return out, "length"


def scores(tokens: Sequence[int], groups: Groups = FULL) -> Float32Array:
    """[T, V] of a text."""
    return np.stack([logits_after(tokens[: i + 1], groups) for i in range(len(tokens))])


def scoring(tokens: Sequence[int], parts: list[object]) -> Scoring:
    """A request for a text's logits; what it delivers is added to `parts`."""
    return Scoring(list(tokens), parts.append)
