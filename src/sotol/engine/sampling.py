"""Choosing the next token from a row of logits.

`options.Sampling` has the options, a `Sampler` the state of one request (its random stream and the tokens it has seen),
and `pick` chooses for a whole batch. The stages are in llama.cpp's default order:

    logit bias -> penalties -> top-k -> top-p -> min-p -> temperature -> one draw

Candidates are always ranked by (-logit, id) and drawn by inverting their cumulative distribution. The arithmetic is the
same on every machine (`sotol.numerics`), and no row affects another: a seed gives the same text on any CPU and in any
batch. Nothing here knows about text, stop strings or end-of-generation tokens.
"""

import math
import os
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from sotol import numerics
from sotol.arrays import Float32Array, Float64Array, Int64Array
from sotol.engine.options import Sampling
from sotol.errors import ModelError

__all__ = ["Picked", "Sampler", "pick", "take"]


PIECE = 4096
TOGETHER = 256  # rows with at most this many candidates are drawn as one array


class Sampler:
    """The state of one request between tokens: its options, its random stream and the tokens seen so far."""

    def __init__(self, sampling: Sampling, vocabulary: int, prompt: Sequence[int] = ()) -> None:
        """vocabulary: only ids below it can be chosen. `prompt` counts for the repeat penalty only.

        ValueError for a biased id outside the vocabulary.
        """
        self.sampling, self.vocabulary = sampling, vocabulary
        self.seed = int.from_bytes(os.urandom(8)) >> 1 if sampling.seed is None else sampling.seed
        for token in sampling.logit_bias:
            if token >= vocabulary:
                raise ValueError(f"logit_bias names token {token}, but the vocabulary ends at {vocabulary - 1}")
        self._generated: Counter[int] = Counter()
        self._recent: deque[int] = deque()  # the last repeat_last_n tokens
        self._recent_counts: Counter[int] = Counter()  # how often each is among them
        self._remember(prompt)

    def accept(self, token: int) -> None:
        """Count a token as generated. `pick` does this itself; call it only for tokens that come from elsewhere."""
        self._generated[token] += 1
        self._remember((token,))

    def _remember(self, tokens: Iterable[int]) -> None:
        last_n = self.sampling.repeat_last_n
        if self.sampling.repeat_penalty == 1 or last_n == 0:
            return
        for token in tokens:
            if token >= self.vocabulary:
                continue
            self._recent.append(token)
            self._recent_counts[token] += 1
            if 0 < last_n < len(self._recent):
                old = self._recent.popleft()
                self._recent_counts[old] -= 1
                if not self._recent_counts[old]:
                    del self._recent_counts[old]

    @cached_property
    def _stream(self) -> "np.random.PCG64":
        """Made at the first draw: importing numpy.random takes time that greedy answers need not spend."""
        return np.random.PCG64(self.seed)

    def uniform(self) -> float:
        """The next number in [0, 1) of this request's stream, with 53 random bits; `pick` takes one per token."""
        # The raw stream: NumPy guarantees that it never changes, but not the methods of Generator.
        return (int(self._stream.random_raw()) >> 11) * 2.0**-53

    def adjusted(self, row: Float32Array) -> Float32Array:
        """The logits [V] after bias and penalties: a changed copy, or `row` itself if nothing changes."""
        s = self.sampling
        occurrences = self._generated if s.frequency_penalty or s.presence_penalty else {}
        if not (s.logit_bias or self._recent_counts or occurrences):
            return row
        row = row.copy()
        if s.logit_bias:
            row[list(s.logit_bias)] += np.array(list(s.logit_bias.values()), np.float32)
        if self._recent_counts:
            ids = list(self._recent_counts)
            penalty = np.float32(s.repeat_penalty)
            row[ids] = np.where(row[ids] > 0, row[ids] / penalty, row[ids] * penalty)
        if occurrences:
            counts = np.array(list(occurrences.values()), np.float64)
            row[list(occurrences)] -= (counts * s.frequency_penalty + s.presence_penalty).astype(np.float32)
        return row


class Picked(NamedTuple):
    """A chosen token; with `logprobs`, its natural log-probability and the likeliest alternatives, best first.

    Log-probabilities are those of the model itself: before bias, penalties, filters and temperature.
    """

    token: int
    logprob: float | None
    top: tuple[tuple[int, float], ...]


def pick(
    logits: Float32Array, samplers: Sequence[Sampler], masks: Sequence[Float32Array | None] | None = None
) -> list[Picked]:
    """Choose a token for each row of `logits` [R, V], one sampler per row, and let each sampler accept it.

    A model may have more logits than its vocabulary has tokens: those beyond `sampler.vocabulary` are ignored. `masks`
    may restrict a row to some tokens: they are added to its logits [V], 0 for these and -inf for others. `logits` is
    not changed. A sampler must not appear twice, since its second row would depend on the choice in its first.
    ModelError for a row with NaN or without any token to choose; then no sampler has accepted anything.
    """
    known = [row[: sampler.vocabulary] for sampler, row in zip(samplers, logits, strict=True)]
    rows = [sampler.adjusted(row) for sampler, row in zip(samplers, known, strict=True)]
    if masks is not None:
        rows = [r if m is None else r + m for r, m in zip(rows, masks, strict=True)]
    tokens = [0] * len(rows)
    drawn: list[_Candidates] = []
    for i, (row, sampler) in enumerate(zip(rows, samplers, strict=True)):
        if sampler.sampling.temperature == 0:
            tokens[i] = int(row.argmax())  # the first of equals, and the first NaN if there is one
            _check(i, float(row[tokens[i]]))
        else:
            drawn.append(_candidates(i, row, sampler.sampling))
    few = [c for c in drawn if len(c.ids) <= TOGETHER]
    for group in ([few] if few else []) + [[c] for c in drawn if len(c.ids) > TOGETHER]:
        for c, token in zip(group, _draw(group, [samplers[c.row] for c in group]), strict=True):
            tokens[c.row] = token
    for sampler, token in zip(samplers, tokens, strict=True):
        sampler.accept(token)
    return [
        Picked(token, None, ()) if s.sampling.logprobs is None else _report(row, token, s.sampling.logprobs)
        for row, s, token in zip(known, samplers, tokens, strict=True)
    ]


def take(row: Float32Array, sampler: Sampler, token: int) -> Picked:
    """A token of which there was no choice, from a row of logits [V]: no random number is drawn."""
    known, count = row[: sampler.vocabulary], sampler.sampling.logprobs
    sampler.accept(token)
    return Picked(token, None, ()) if count is None else _report(known, token, count)


class _Candidates(NamedTuple):
    """The candidates of a row, ranked by (-logit, id). mass: sum(exp(logit - best)) of the row, if top-p needs it."""

    row: int
    ids: Int64Array  # [N]
    values: Float64Array  # [N]
    mass: float | None


def _candidates(i: int, row: Float32Array, s: Sampling) -> _Candidates:
    """The candidates after top-k. Without top-k, drop only what top-p or min-p drop anyway, so that few are sorted."""
    best = float(row.max())
    _check(i, best)
    if s.top_k:
        ids, values = _largest(row, s.top_k)
        return _Candidates(i, ids, values, None)
    mass, least = None, -math.inf
    if s.min_p:
        least = best + float(numerics.log(s.min_p))
    if s.top_p < 1:
        mass = _mass(row, best)
        # Tokens less likely than (1 - p) / V sum to less than 1 - p, so the others reach p; half of it, for rounding.
        least = max(least, best + float(numerics.log(0.5 * (1 - s.top_p) / len(row) * mass)))
    ids = np.flatnonzero(row >= _just_below(least)) if least > -math.inf else np.arange(len(row))
    return _Candidates(i, *_ranked(row, ids), mass)


def _largest(row: Float32Array, k: int) -> tuple[Int64Array, Float64Array]:
    """Int64Array and values of the k largest of a row [V], best first; among equals, the lowest ids."""
    n, width = len(row), 64
    if k >= n:
        return _ranked(row, np.arange(n))
    if n // width >= 2 * k:
        # The k-th largest of the parts' maxima is a lower bound of the k-th largest value: cheap to find, and close.
        parts = row[: n // width * width].reshape(width, -1).max(axis=0)  # 64 numbers, a stride apart: vectorised
        bound = np.partition(parts, len(parts) - k)[len(parts) - k]
    else:
        bound = np.partition(row, n - k)[n - k]
    # A mask may leave fewer than k: those that it forbids are not worth sorting.
    ids, values = _ranked(row, np.flatnonzero(row >= bound if bound > -np.inf else row > bound))
    return ids[:k], values[:k]


def _ranked(row: Float32Array, ids: Int64Array) -> tuple[Int64Array, Float64Array]:
    """The given ascending ids of a row and their values, by (-value, id)."""
    values = row[ids].astype(np.float64)
    order = np.argsort(-values, kind="stable")
    return ids[order], values[order]


def _draw(group: Sequence[_Candidates], samplers: Sequence[Sampler]) -> list[int]:
    """Top-p, min-p, temperature and one draw, for rows padded to equal width; padding has probability 0."""
    width = max(len(c.ids) for c in group)
    values = np.full((len(group), width), -np.inf)  # [G, N]
    for c, line in zip(group, values, strict=True):
        line[: len(c.values)] = c.values
    values -= values[:, :1]
    options = np.array([(s.sampling.top_p, s.sampling.min_p, s.sampling.temperature) for s in samplers])
    top_p, min_p, temperature = (options[:, j : j + 1] for j in range(3))  # [G, 1] each
    with np.errstate(over="ignore"):  # a tiny temperature: -inf, and so no weight, is right
        scaled = values / temperature
    p, weights = numerics.exp(np.stack([values, scaled]))  # relative to the best token
    before = np.cumsum(p, axis=1) - p  # the mass of the better candidates
    mass = np.array([before[g, -1] + p[g, -1] if c.mass is None else c.mass for g, c in enumerate(group)])
    keep = ((before < top_p * mass[:, None]) | (top_p == 1)) & (p >= min_p)
    keep[:, 0] = True
    weights = np.cumsum(np.where(keep, weights, 0.0), axis=1)  # [G, N]
    points = np.array([s.uniform() for s in samplers]) * weights[:, -1]
    chosen = (weights <= points[:, None]).sum(axis=1)  # a count: exact in any order of summing
    return [int(c.ids[min(j, len(c.ids) - 1)]) for c, j in zip(group, chosen, strict=True)]


def _report(row: Float32Array, token: int, count: int) -> Picked:
    """Log-softmax of the raw row [V] at the token and at its `count` largest."""
    best = float(row.max())
    offset = best + float(numerics.log(_mass(row, best)))
    ids, values = _largest(row, count) if count else (np.arange(0), np.zeros(0))
    top = tuple((int(i), float(v) - offset) for i, v in zip(ids, values, strict=True))
    return Picked(token, float(row[token]) - offset, top)


def _mass(row: Float32Array, best: float) -> float:
    """sum(exp(row - best)) over a row [V], in pieces that fit a core's cache."""
    pieces = (row[i : i + PIECE].astype(np.float64) - best for i in range(0, len(row), PIECE))
    return float(numerics.total([numerics.total(numerics.exp(piece)) for piece in pieces]))


def _check(row: int, best: float) -> None:
    if not math.isfinite(best):
        what = "no token left to choose" if best == -math.inf else f"a logit that is {best}"
        raise ModelError(f"row {row} of the logits has {what}: the weights are damaged, or a bias or mask forbids all")


def _just_below(bound: float) -> np.float32:
    """The float32 below `bound` - 1e-6: a threshold with a margin, so that rounding never drops a candidate."""
    return np.float32(np.nextafter(np.float32(bound - 1e-6), np.float32(-np.inf)))
