"""Choosing the next token from a row of logits.

`Sampling` says how (the options of a request), a `Sampler` is the state of one request (its random stream and the
tokens it has seen), and `pick` chooses for a whole batch. The steps are in llama.cpp's default order:

    logit bias -> penalties -> top-k -> top-p -> min-p -> temperature -> one draw

Candidates are always ranked by (-logit, id) and drawn by inverting their cumulative distribution, with arithmetic that
is the same on every machine (`sotol.numerics`) and for each row apart: a seed gives the same text on any CPU and beside
any other requests. Nothing here knows about text, stop strings or end-of-generation tokens.
"""

import math
import numbers
import os
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from sotol import numerics
from sotol.errors import ModelError
from sotol.numerics import Float64Array

__all__ = ["Picked", "Sampler", "Sampling", "pick"]

Float32Array: TypeAlias = npt.NDArray[np.float32]
Ids: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]

# option: (kind, least, most); None is also allowed for those in OPTIONAL
RANGES: dict[str, tuple[type[int] | type[float], float, float]] = {
    "temperature": (float, 0, 100),
    "top_k": (int, 0, 2**31 - 1),
    "top_p": (float, 0, 1),
    "min_p": (float, 0, 1),
    "repeat_penalty": (float, 0.01, 100),
    "repeat_last_n": (int, -1, 2**31 - 1),
    "frequency_penalty": (float, -2, 2),
    "presence_penalty": (float, -2, 2),
    "seed": (int, 0, 2**63 - 1),
    "logprobs": (int, 0, 20),
    "max_tokens": (int, 1, 2**31 - 1),
}
OPTIONAL = frozenset({"seed", "logprobs", "max_tokens"})
MAX_STOPS = 64
PIECE = 4096
TOGETHER = 256  # rows with at most so many candidates are drawn as one array


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to choose tokens, and when to stop; a wrong value raises ValueError that names the option and its range.

    temperature: 0 takes the most likely token (the lowest id of equals); 1 draws from the model's own distribution.
    top_k: keep the k most likely tokens; 0 keeps all.
    top_p: keep the fewest tokens whose probabilities reach p (Holtzman et al. 2019, arXiv 1904.09751); 1 keeps all.
    min_p: keep tokens at least this times as likely as the best (Nguyen et al. 2024, arXiv 2407.01082); 0 keeps all.
    repeat_penalty: divides positive and multiplies negative logits of the last `repeat_last_n` tokens, prompt included
        (Keskar et al. 2019, arXiv 1909.05858); 1 is off. `repeat_last_n` -1 is the whole context, 0 is off.
    frequency_penalty, presence_penalty: subtracted per generated occurrence, and once for any (OpenAI's meaning).
    logit_bias: added to these ids' logits; -inf forbids an id.
    seed: of the random stream; None takes one at random.
    stop: the text ends before the first of these strings. One may spell tokens that answers do not show, "<|im_end|>".
    logprobs: how many alternatives per token to report, from the model's own distribution; None reports none.
    max_tokens: how many tokens to generate at most; None goes on to the end of the context.
    ignore_eos: go on after the model's end-of-generation tokens.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    stop: str | Sequence[str] = ()
    logprobs: int | None = None
    max_tokens: int | None = None
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        for name, (kind, least, most) in RANGES.items():
            object.__setattr__(self, name, _number(name, getattr(self, name), kind, least, most))
        object.__setattr__(self, "logit_bias", _biases(self.logit_bias))
        object.__setattr__(self, "stop", _stops(self.stop))
        if not isinstance(self.ignore_eos, bool):
            raise ValueError(f"ignore_eos is {self.ignore_eos!r}; it must be True or False")

    @classmethod
    def of(cls, base: "Sampling | None" = None, **options: object) -> "Sampling":
        """`base` (or the defaults) with some options changed; an unknown one raises ValueError that names it."""
        known = [f.name for f in fields(cls)]
        for name in options:
            if name not in known:
                raise ValueError(f"unknown sampling option {name!r}; the options are {', '.join(known)}")
        return replace(base or cls(), **options)  # type: ignore[arg-type]  # __post_init__ checks every value


class Sampler:
    """The state of one request between tokens: its options, its random stream and the tokens seen so far."""

    def __init__(self, sampling: Sampling, vocabulary: int, prompt: Sequence[int] = ()) -> None:
        """vocabulary: the ids below it can be chosen. `prompt` counts for the repeat penalty only.

        Raises ValueError for a biased id outside the vocabulary.
        """
        self.sampling, self.vocabulary = sampling, vocabulary
        for token in sampling.logit_bias:
            if token >= vocabulary:
                raise ValueError(f"logit_bias names token {token}, but the vocabulary ends at {vocabulary - 1}")
        self._generated: Counter[int] = Counter()
        self._recent: deque[int] = deque()  # the last repeat_last_n tokens, and how often each is among them
        self._recent_counts: Counter[int] = Counter()
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
        """Made when it is first drawn from: importing numpy.random takes time that greedy answers need not spend."""
        seed = self.sampling.seed
        return np.random.PCG64(int.from_bytes(os.urandom(8)) if seed is None else seed)

    def uniform(self) -> float:
        """The next number in [0, 1) of this request's stream, with 53 random bits; `pick` takes one per token."""
        # the raw stream, because NumPy promises that it never changes, and does not promise it for Generator's methods
        return (int(self._stream.random_raw()) >> 11) * 2.0**-53

    def adjusted(self, row: Float32Array) -> Float32Array:
        """The logits [V] after bias and penalties: a changed copy, or `row` itself where there is nothing to change."""
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

    These are of the model's own distribution: before bias, penalties, filters and temperature.
    """

    token: int
    logprob: float | None
    top: tuple[tuple[int, float], ...]


def pick(logits: Float32Array, samplers: Sequence[Sampler], masks: Sequence[Mask | None] | None = None) -> list[Picked]:
    """Choose a token for each row of `logits` [R, V], one sampler per row, and let each sampler accept it.

    A model may have more logits than its vocabulary has tokens: those beyond `sampler.vocabulary` don't count. `masks`
    may give a row the tokens it can choose from, bool [V]. `logits` is only read. A sampler must not appear
    twice: its second row depends on the choice in its first. Raises ModelError, and accepts nothing, for a row without
    any token to choose or with NaN.
    """
    known = [row[: sampler.vocabulary] for sampler, row in zip(samplers, logits, strict=True)]
    rows = [sampler.adjusted(row) for sampler, row in zip(samplers, known, strict=True)]
    if masks is not None:
        rows = [r if m is None else np.where(m, r, np.float32(-np.inf)) for r, m in zip(rows, masks, strict=True)]
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


class _Candidates(NamedTuple):
    """What is left of a row: ids and logits by (-logit, id); and sum(exp(logit - best)), if more than those count."""

    row: int
    ids: Ids  # [N]
    values: Float64Array  # [N]
    mass: float | None


def _candidates(i: int, row: Float32Array, s: Sampling) -> _Candidates:
    """Top-k; without it, drop only what top-p or min-p will drop anyway, so that few are left to sort."""
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
        # tokens below (1 - p) / V sum to less than 1 - p, so those above them reach p; half, for rounding
        least = max(least, best + float(numerics.log(0.5 * (1 - s.top_p) / len(row) * mass)))
    ids = np.flatnonzero(row >= _just_below(least)) if least > -math.inf else np.arange(len(row))
    return _Candidates(i, *_ranked(row, ids), mass)


def _largest(row: Float32Array, k: int) -> tuple[Ids, Float64Array]:
    """Ids and values of the k largest of a row [V], best first, the lowest ids of equals."""
    n, width = len(row), 64
    if k >= n:
        return _ranked(row, np.arange(n))
    if n // width >= 2 * k:
        # k parts have a maximum of at least the k-th largest maximum, so k values do: a cheap bound, and a close one
        parts = row[: n // width * width].reshape(width, -1).max(axis=0)  # one of each 64th, which vectors do at once
        bound = np.partition(parts, len(parts) - k)[len(parts) - k]
    else:
        bound = np.partition(row, n - k)[n - k]
    ids, values = _ranked(row, np.flatnonzero(row >= bound))
    return ids[:k], values[:k]


def _ranked(row: Float32Array, ids: Ids) -> tuple[Ids, Float64Array]:
    """The given ascending ids of a row and their values, by (-value, id)."""
    values = row[ids].astype(np.float64)
    order = np.argsort(-values, kind="stable")
    return ids[order], values[order]


def _draw(group: Sequence[_Candidates], samplers: Sequence[Sampler]) -> list[int]:
    """Top-p, min-p, temperature and one draw, for rows padded to one width; padding has probability 0."""
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
    before = np.cumsum(p, axis=1) - p  # the mass ahead of each candidate
    mass = np.array([before[g, -1] + p[g, -1] if c.mass is None else c.mass for g, c in enumerate(group)])
    keep = ((before < top_p * mass[:, None]) | (top_p == 1)) & (p >= min_p)
    keep[:, 0] = True
    weights = np.cumsum(np.where(keep, weights, 0.0), axis=1)  # [G, N]
    points = np.array([s.uniform() for s in samplers]) * weights[:, -1]
    chosen = (weights <= points[:, None]).sum(axis=1)  # whole numbers, so any order of summing is exact
    return [int(c.ids[min(j, len(c.ids) - 1)]) for c, j in zip(group, chosen, strict=True)]


def _report(row: Float32Array, token: int, count: int) -> Picked:
    """Log-softmax of the raw row [V] at the token and at its `count` largest."""
    best = float(row.max())
    offset = best + float(numerics.log(_mass(row, best)))
    ids, values = _largest(row, count) if count else (np.arange(0), np.zeros(0))
    top = tuple((int(i), float(v) - offset) for i, v in zip(ids, values, strict=True))
    return Picked(token, float(row[token]) - offset, top)


def _mass(row: Float32Array, best: float) -> float:
    """sum(exp(row - best)) over a row [V], in pieces that stay in a core's cache."""
    pieces = (row[i : i + PIECE].astype(np.float64) - best for i in range(0, len(row), PIECE))
    return float(numerics.total([numerics.total(numerics.exp(piece)) for piece in pieces]))


def _check(row: int, best: float) -> None:
    if not math.isfinite(best):
        what = "no token left to choose" if best == -math.inf else f"a logit that is {best}"
        raise ModelError(f"row {row} of the logits has {what}: the weights are damaged, or a bias or mask forbids all")


def _just_below(bound: float) -> np.float32:
    """The float32 next below a bound, less a millionth, so that comparing with it never drops a candidate too many."""
    return np.float32(np.nextafter(np.float32(bound - 1e-6), np.float32(-np.inf)))


def _number(name: str, value: Any, kind: type[int] | type[float], least: float, most: float) -> float | None:
    if value is None and name in OPTIONAL:
        return None
    right = isinstance(value, numbers.Integral if kind is int else numbers.Real) and not isinstance(value, bool)
    if not right or not least <= value <= most:  # not >, so that NaN fails too
        what = "a whole number" if kind is int else "a number"
        none = ", or None" if name in OPTIONAL else ""
        raise ValueError(f"{name} is {value!r}; it must be {what} from {least:.20g} to {most:.20g}{none}")
    return kind(value)


def _biases(given: object) -> dict[int, float]:
    if not isinstance(given, Mapping):
        raise ValueError(f"logit_bias is {given!r}; it must map token ids to numbers")
    biases: dict[int, float] = {}
    for token, value in given.items():
        if isinstance(token, bool) or not isinstance(token, numbers.Integral) or token < 0:
            raise ValueError(f"logit_bias has the key {token!r}; keys must be token ids, whole numbers from 0")
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not value < math.inf:
            raise ValueError(
                f"logit_bias[{token}] is {value!r}; it must be a finite number, or -inf to forbid the token"
            )
        biases[int(token)] = float(value)
    return biases


def _stops(given: object) -> tuple[str, ...]:
    stops = (given,) if isinstance(given, str) else given
    if not isinstance(stops, Sequence) or not all(isinstance(s, str) and s for s in stops) or len(stops) > MAX_STOPS:
        raise ValueError(f"stop is {given!r}; it must be a string or up to {MAX_STOPS} strings, none of them empty")
    return tuple(stops)
