"""Multiple choice: which of several endings of a text a model finds likeliest, as HellaSwag (arXiv 1905.07830) asks.

A file has a question a line, as JSON: `context`, `endings` and `label`, the number of the right ending from 0 on.
HellaSwag's own files have `ctx`, with an `activity_label` that comes before it, and the label as text. An ending's
score is the sum of log p of its tokens after the context. Scores by length are divided by the ending's characters, so
that long endings do not lose by being long; so EleutherAI's lm-evaluation-harness has it (acc_norm).
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sotol.arrays import Float64Array, Int32Array
from sotol.errors import FormatError, plain
from sotol.formats.strict_json import parse_object
from sotol.progress import Progress
from sotol.tokenizers import Tokenizer
from sotol.tools.perplexity import log_sums
from sotol.tools.windows import WindowRunner, open_windows

__all__ = ["Choices", "Question", "choices", "read_questions"]

MOST_ENDINGS = 64


class Question(NamedTuple):
    """A text and its possible endings, of which one is right."""

    context: str
    endings: tuple[str, ...]
    right: int
    where: str  # for errors: the file and its line


class Choices(NamedTuple):
    """How often the right ending had the best score, with standard errors."""

    accuracy: float
    error: float
    by_length: float  # where scores are divided by the endings' characters
    by_length_error: float
    questions: int


def read_questions(text: str, name: str) -> list[Question]:
    """The questions of a file, empty lines left out. FormatError names the line that is none."""
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise FormatError(f"{name}: has no questions: give a file with one a line, in JSON")
    return [_question(line, f"{name}, line {number}") for number, line in lines]


def _question(line: str, where: str) -> Question:
    said = parse_object(line.encode(), where)
    context, endings, label = said.get("context", said.get("ctx")), said.get("endings"), said.get("label")
    if not isinstance(context, str) or not context:
        raise FormatError(f"{where}: context (or HellaSwag's ctx) is {plain(repr(context), 60)}, not a text")
    if (
        not isinstance(endings, list)
        or not 2 <= len(endings) <= MOST_ENDINGS
        or not all(isinstance(ending, str) and ending.strip() for ending in endings)
    ):
        raise FormatError(f"{where}: endings is {plain(repr(endings), 60)}, not a list of 2 to {MOST_ENDINGS} texts")
    right = int(label) if isinstance(label, str) and label.isdecimal() and len(label) < 4 else label
    if isinstance(right, bool) or not isinstance(right, int) or not 0 <= right < len(endings):
        raise FormatError(f"{where}: label is {plain(repr(label), 60)}, not the number of an ending, from 0 on")
    activity = said.get("activity_label")
    before = f"{activity}: " if isinstance(activity, str) and "context" not in said else ""
    return Question(before + context, tuple(endings), right, where)


def choices(
    path: Path, questions: Sequence[Question], *, size: int = 512, precision: str = "int8", threads: int | None = None,
    backend: str = "cpu", progress: Progress | None = None,
    told: Callable[[Choices], None] = lambda _: None,
) -> Choices:  # fmt: skip
    """Ask a model all questions, each of at most `size` tokens with any of its endings.

    told: of the shares so far, after each question. FormatError for a question that is longer; errors besides as of
    `windows.open_windows`.
    """
    plainly, by_length = list[bool](), list[bool]()
    with open_windows(path, size, precision=precision, threads=threads, name=backend, progress=progress) as model:
        for question in questions:
            scores = _scores(model, question)
            lengths = np.array([len(ending) for ending in question.endings])
            plainly.append(int(scores.argmax()) == question.right)
            by_length.append(int((scores / lengths).argmax()) == question.right)
            told(_summed(plainly, by_length))
    return _summed(plainly, by_length)


def _scores(model: WindowRunner, question: Question) -> Float64Array:
    """Each ending's sum of log p: [endings]."""
    given, whole = _tokens(model.tokenizer, question)
    if (longest := max(map(len, whole))) > model.size:
        raise FormatError(f"{question.where}: has {longest} tokens, and windows {model.size}: give a larger size")
    return np.array([_log_probability(model, ids, given) for ids in whole])


def _tokens(tokenizer: Tokenizer, question: Question) -> tuple[int, list[Int32Array]]:
    """How many tokens are the context's, whatever the ending, and the tokens of both together, for each ending.

    The last token of a context may be another one where an ending follows: then it counts with the endings.
    """
    bos = [tokenizer.bos] if tokenizer.adds_bos and tokenizer.bos is not None else []
    alone = np.array(bos + tokenizer.encode(question.context, add_special=False), np.int32)
    apart = question.context[-1].isspace()
    whole, given = list[Int32Array](), len(alone)
    for ending in question.endings:
        joined = question.context + ("" if apart or ending[0].isspace() else " ") + ending
        ids = np.array(bos + tokenizer.encode(joined, add_special=False), np.int32)
        both = min(len(ids), len(alone))
        differ = np.flatnonzero(ids[:both] != alone[:both])
        given = min(given, int(differ[0]) if len(differ) else both)
        whole.append(ids)
    return max(1, given), whole  # of the first token nothing can be said


def _log_probability(model: WindowRunner, ids: Int32Array, given: int) -> float:
    """The sum of log p of the tokens from `given` on."""
    total = 0.0
    for begin, results in model.run(ids[:-1], given - 1):
        logits = results["logits"]
        nexts = ids[begin + 1 : begin + 1 + len(logits)]
        total += float((logits[np.arange(len(nexts)), nexts] - log_sums(logits)).sum())
    return total


def _summed(plainly: Sequence[bool], by_length: Sequence[bool]) -> Choices:
    shares = [sum(found) / len(found) for found in (plainly, by_length)]
    errors = [math.sqrt(share * (1 - share) / max(1, len(plainly) - 1)) for share in shares]
    return Choices(shares[0], errors[0], shares[1], errors[1], len(plainly))
