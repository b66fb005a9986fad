"""Fuzzes files of multiple-choice questions, a line of JSON each.

A text gives questions whose right ending is one of theirs, or one FormatError that names the line.
Run `python -m tests.fuzz.fuzz_questions --seconds 60 --seed 1`.
"""

import random
from pathlib import Path
from typing import Any

from tests.support.fuzzing import Bounds, Broken, run, sentence
from tests.support.mutating import spoilt

from sotol.errors import FormatError
from sotol.tools.choices import MOST_ENDINGS, read_questions

BOUNDS = Bounds(seconds=0.5, memory=128 << 20, allocated=3 << 20)
LINES: tuple[dict[str, Any], ...] = (
    {"context": "The sky is", "endings": [" blue", " green"], "label": 0},
    {"ctx": "A man", "activity_label": "Sailing", "endings": ["sails", "é", "c", "d"], "label": "3", "ind": 24},
    {"context": "x", "endings": ["a"] * MOST_ENDINGS, "label": 63},
)
BREAKS = ("\n", "\n\n", "\r\n", "\n \n", "\u2028", "\x0b", "")


def case(rng: random.Random, folder: Path) -> bool:
    """One file."""
    del folder
    lines = [spoilt(rng.choice(LINES), rng).decode(errors="replace") for _ in range(rng.choice([0, 1, 1, 2, 5]))]
    text = "".join(line + rng.choice(BREAKS[: rng.choice([1, 4, 7])]) for line in lines)
    try:
        found = read_questions(text, "questions.jsonl")
    except FormatError as error:
        return sentence(error, "questions.jsonl")
    for question in found:
        if not question.context or not 0 <= question.right < len(question.endings) <= MOST_ENDINGS:
            raise Broken(f"no question: {question!r:.200}")
        if any(not ending.strip() for ending in question.endings):
            raise Broken(f"an empty ending: {question!r:.200}")
    return True


if __name__ == "__main__":
    raise SystemExit(run("tests.fuzz.fuzz_questions", case, bounds=BOUNDS))
