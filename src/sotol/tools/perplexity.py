"""How well a model predicts a text: perplexity, and how far its predictions are from another model's.

As llama.cpp's perplexity measures it: in each window, the tokens of the second half are scored, so that each has a
context of half a window at least. The perplexity is e to the mean of -log p(token). Of two models, the Kullback-Leibler
divergence of each scored token's distributions is sum p (log p - log q), p being the baseline's. V vocabulary.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sotol.arrays import BoolArray, Float32Array, Float64Array, Int32Array
from sotol.errors import ModelError
from sotol.progress import Progress
from sotol.tools.baseline import DEPTH, Baseline, BaselineWriter, scored
from sotol.tools.windows import WindowRunner, cut, open_windows, windows_of

__all__ = ["Divergence", "Scores", "perplexity"]

ROWS = 16  # of logits that are looked at together: bounds what their exponentials take


class Divergence(NamedTuple):
    """How far predictions are from a baseline's, over all scored tokens."""

    mean: float  # of the Kullback-Leibler divergence, in nats
    error: float  # standard error of the mean
    median: float
    percentiles: dict[str, float]  # of the divergence: "90", "95", "99", "99.9"
    most: float
    same_top: float  # share of tokens whose likeliest prediction is the same
    baseline: float  # the baseline's perplexity
    ratio: float  # of the two perplexities
    ratio_error: float


class Scores(NamedTuple):
    """What was measured."""

    perplexity: float
    error: float  # standard error
    tokens: int  # that were scored
    windows: int
    size: int
    divergence: Divergence | None = None


class Scored(NamedTuple):
    """Of some scored tokens: -log p, the baseline's, the divergence, whether the likeliest token is the same."""

    loss: Float64Array
    base: Float64Array
    divergence: Float64Array
    same: BoolArray


def perplexity(
    path: Path, text: str | None, *, size: int = 512, most: int | None = None, save: Path | None = None,
    baseline: Path | None = None, precision: str = "int8", threads: int | None = None, backend: str = "cpu",
    progress: Progress | None = None, told: Callable[[int, Scores], None] = lambda _window, _scores: None,
) -> Scores:  # fmt: skip
    """Score a text in windows of `size` tokens, at most `most` of them.

    save: where log-probabilities go, for comparisons. baseline: such a file, whose tokens are scored instead of a
    text's. told(window, scores so far) is called after each window. ValueError for options that exclude each other,
    errors besides as of `open_windows`.
    """
    if (text is None) == (baseline is None):
        raise ValueError("give a text or a baseline, one of them: a baseline has the tokens of its text")
    if save is not None and baseline is not None:
        raise ValueError("either save log-probabilities or compare with a baseline")
    known = None if baseline is None else Baseline.open(baseline)
    size = size if known is None else known.windows.shape[1]
    with (
        open_windows(path, size, precision=precision, threads=threads, name=backend, progress=progress) as model,
        ExitStack() as files,
    ):
        if known is None:
            plain, run = windows_of(model.tokenizer, str(text), size, most)
        else:
            _check_same(model, known)
            plain = known.windows[:most]
            run = cut(model.tokenizer, plain)
        writer = None if save is None else files.enter_context(BaselineWriter(save, plain, model.vocabulary))
        done = list[Scored]()
        for number, window in enumerate(run):
            compared = None if known is None else known.rows(number)
            done += list(_scored(model, window, plain[number], compared, writer))
            told(number, _summed(done, number + 1, size, compared=known is not None))
    return _summed(done, len(run), size, compared=known is not None)


def _check_same(model: WindowRunner, baseline: Baseline) -> None:
    """ModelError for a baseline of a model with another vocabulary."""
    if baseline.vocabulary != model.vocabulary:
        raise ModelError(
            f"{baseline.file.path}: is of a model with {baseline.vocabulary} tokens, and this one has"
            f" {model.vocabulary}: only models with the same vocabulary can be compared"
        )


def _scored(
    model: WindowRunner, window: Int32Array, plain: Int32Array, compared: Float32Array | None,
    writer: BaselineWriter | None,
) -> Iterator[Scored]:  # fmt: skip
    """A window's scored tokens, some at a time."""
    first, last = len(window) // 2, len(window) - 1
    for begin, results in model.run(window, first):
        logits = results["logits"][: last - begin]
        for at in range(0, len(logits), ROWS):
            rows, position = logits[at : at + ROWS], begin + at
            nexts = plain[position + 1 : position + 1 + len(rows)]
            base = None if compared is None else compared[position - first : position - first + len(rows)]
            sums = log_sums(rows)
            if writer is not None:
                writer.add(rows, sums)
            yield score(rows, sums, nexts, base)


def log_sums(logits: Float32Array) -> Float64Array:
    """The logarithm of the sum of exponentials of each row [n, V], in float64: [n]."""
    most = logits.max(axis=1)
    sums = np.exp(logits - most[:, None]).sum(axis=1, dtype=np.float64)
    result: Float64Array = most + np.log(sums)
    return result


def score(logits: Float32Array, sums: Float64Array, nexts: Int32Array, base: Float32Array | None) -> Scored:
    """Rows of logits [n, V] against the tokens that came next [n], and a baseline's log-probabilities [n, V]."""
    each = np.arange(len(logits))
    loss = sums - logits[each, nexts]
    if base is None:
        nothing = np.zeros(len(logits))
        return Scored(loss, nothing, nothing, np.ones(len(logits), np.bool_))
    probable = np.where(base > -DEPTH, np.exp(base), np.float32(0))
    divergence = np.einsum("nv,nv->n", probable, base - (logits - sums[:, None].astype(np.float32)), dtype=np.float64)
    return Scored(loss, -base[each, nexts].astype(np.float64), divergence, logits.argmax(axis=1) == base.argmax(axis=1))


def _summed(done: list[Scored], windows: int, size: int, *, compared: bool) -> Scores:
    loss, base, divergence, same = (np.concatenate(column) for column in zip(*done, strict=True))
    assert len(loss) == windows * scored(size)
    mean = math.exp(float(loss.mean()))
    scores = Scores(mean, mean * _error(loss), len(loss), windows, size)
    if not compared:
        return scores
    ratio = math.exp(float((loss - base).mean()))
    at = ("90", "95", "99", "99.9")
    found = np.percentile(divergence, [float(p) for p in at])
    return scores._replace(
        divergence=Divergence(
            float(divergence.mean()),
            _error(divergence),
            float(np.median(divergence)),
            dict(zip(at, map(float, found), strict=True)),
            float(divergence.max()),
            float(same.mean()),
            math.exp(float(base.mean())),
            ratio,
            ratio * _error(loss - base),
        )
    )


def _error(x: Float64Array) -> float:
    """The standard error of the mean."""
    return float(x.std(ddof=1) / math.sqrt(len(x))) if len(x) > 1 else 0.0
