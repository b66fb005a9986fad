"""Fuzzes the parser of answers: whatever a model writes, however it is cut, is read the same, and nothing is lost.

`python -m tests.fuzz.fuzz_answers --seconds 60`; `--seed s --case n` runs one case again.
"""

import json
import random
import re
from itertools import islice
from pathlib import Path

from tests.support.answers import CASES, TOOLS, cut, read
from tests.support.fuzzing import Bounds, Broken, run

from sotol.answers.formats import FORMATS
from sotol.answers.forms import AnswerFormat
from sotol.answers.parser import AnswerParser

MEMORY = 256 << 20
WORD = re.compile("#[0-9]+#")
MOST_HELD = 1000  # characters of the buffer, of cuts of 64


def fragments(row: AnswerFormat) -> list[str]:
    """Of what answers of a format are made; # is a word that must not be lost."""
    markers = [*row.markers, *(m for form in row.calls for m in form.markers), "<think>", "</think>"]
    halves = [part for m in markers for part in (m[: len(m) // 2], m[len(m) // 2 :])]
    texts = [
        '{"name": "now", "arguments": {',
        *'{}[]":,\\',
        '"name": ',
        '"arguments": ',
        "now",
        "get_weather",
        "(a=",
        ")",
    ]
    return [part for part in (*markers, *markers, *halves, *texts, " ", "\n", "#", "#", "é🎉") if part]


def written(rng: random.Random, row: AnswerFormat) -> str:
    """An answer: fragments at random, or one that means something with changes; now and then one that is long."""
    parts = fragments(row)
    if rng.random() < 0.5:
        text = "".join(rng.choice(parts) for _ in range(rng.randrange(40)))
    else:
        text = rng.choice([case.text for case in CASES if case.format == row.name])
        for _ in range(rng.randrange(4)):
            at, size = rng.randrange(len(text) + 1), rng.randrange(12)
            text = text[:at] + rng.choice(("", rng.choice(parts), text[at : at + size] * 2)) + text[at + size :]
    if rng.random() < 0.002:
        at, part = rng.randrange(len(text) + 1), rng.choice((*parts, text or "x"))
        text = text[:at] + part * (20_000 // len(part)) + text[at:]
    numbers = iter(range(10**6))
    return re.sub("#", lambda _: f"#{next(numbers)}#", text)


def case(rng: random.Random, _folder: Path) -> bool:
    """One answer, whole and in two ways of cutting; True if it has calls."""
    row = FORMATS[rng.choice(sorted(FORMATS))]
    text, thinking = written(rng, row), rng.random() < 0.2
    hidden = row.markers if rng.random() < 0.3 else ()
    whole = read(row, [text], thinking=thinking, hidden=hidden)
    small = [rng.randrange(len(text) + 1) for _ in range(rng.randrange(1, 40))]
    for places in (small, range(0, len(text), rng.choice((1, 3, 64)))):
        if read(row, cut(text, places), thinking=thinking, hidden=hidden) != whole:
            raise Broken(f"cuts of {text[:200]!r} at {list(islice(places, 40))} change what it says")
    parser = AnswerParser(row, TOOLS, thinking=thinking, hidden=frozenset(hidden))
    for part in cut(text, range(0, len(text), 64)):
        parser.push(part)
        if parser.source.waiting > MOST_HELD:
            raise Broken(f"{parser.source.waiting} characters are held of {text[:200]!r}")
    shown = "".join([whole.content, whole.reasoning, *(call.arguments for call in whole.calls)])
    ignored = {word for form in row.calls for word in ("id", "tool_call_id") if getattr(form, "id", "")}
    if not ignored and set(WORD.findall(text)) - set(WORD.findall(shown)) and not _has_other_members(text):
        raise Broken(f"lost of {text[:400]!r}: {shown[:400]!r}")
    return bool(whole.calls)


def _has_other_members(text: str) -> bool:
    """Whether an object in it may have members that calls have no place for, or keys that come twice."""
    for found in re.finditer(r"\{", text):
        try:
            pairs, _ = json.JSONDecoder(object_pairs_hook=list).raw_decode(text, found.start())
        except (ValueError, RecursionError):
            continue
        keys = [pair[0] for pair in pairs if isinstance(pair, tuple)]
        if len(set(keys)) < len(keys) or set(keys) - {"name", "arguments"}:
            return True
    return False


if __name__ == "__main__":
    raise SystemExit(run("tests.fuzz.fuzz_answers", case, bounds=Bounds(memory=MEMORY)))
