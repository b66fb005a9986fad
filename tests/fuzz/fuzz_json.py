"""Fuzzes the JSON of files that are not trusted, with Python's own parser as the judge.

A text gives the value that Python's parser gives, or one FormatError that names the place. What is refused is no JSON,
or has what sotol refuses: keys that come twice, NaN, infinities, numbers of more than 40 digits, halves of characters.
Run `python -m tests.fuzz.fuzz_json --seconds 60 --seed 1`.
"""

import json
import random
from pathlib import Path
from typing import Any, NoReturn

from tests.support.fuzzing import Bounds, Broken, run, sentence
from tests.support.mutating import JUNK, doubled, mutated_bytes, nested

from sotol.errors import FormatError
from sotol.formats.strict_json import parse_json

BOUNDS = Bounds(seconds=0.5, memory=128 << 20, allocated=3 << 20)
TEXTS = ("a", "é", "\u2028", "\ud83d\ude00", '"', "\\", "\x00", "", "a" * 200)


def value(rng: random.Random, depth: int = 3) -> Any:
    """Any value."""
    how = rng.random()
    if depth and how < 0.35:
        return {rng.choice(TEXTS) + str(i): value(rng, depth - 1) for i in range(rng.randrange(5))}
    if depth and how < 0.6:
        return [value(rng, depth - 1) for _ in range(rng.randrange(5))]
    return rng.choice([rng.choice(JUNK), rng.choice(TEXTS), rng.randrange(-(10**6), 10**6), rng.random()])


def strict(text: bytes) -> Any:
    """What Python makes of a text; ValueError for what sotol refuses."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise ValueError("a key twice")
        return dict(pairs)

    def refused(text: str) -> NoReturn:
        raise ValueError(text)

    def whole(text: str) -> int:
        return int(text) if len(text) <= 40 else refused(text)

    def finite(text: str) -> float:
        return float(text) if abs(float(text)) < float("inf") else refused(text)

    made = json.loads(
        text.decode(), object_pairs_hook=unique, parse_constant=refused, parse_int=whole, parse_float=finite
    )
    json.dumps(made, ensure_ascii=False).encode()
    return made


def case(rng: random.Random, folder: Path) -> bool:
    """One text."""
    del folder
    written = json.dumps(value(rng), ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, None, 1]))
    text = written.encode(errors="surrogatepass")
    if rng.random() < 0.9:
        text = rng.choice([doubled, nested, mutated_bytes, mutated_bytes, mutated_bytes])(text, rng)
    try:
        expected: Any = [strict(text)]
    except (ValueError, RecursionError):
        expected = None
    try:
        found = parse_json(text, "fuzzed.json")
    except FormatError as error:
        if expected is not None:
            raise Broken(f"{text[:200]!r} is refused: {error}") from error
        return sentence(error, "fuzzed.json")
    if expected is None or repr(found) != repr(expected[0]):
        raise Broken(f"{text[:200]!r} is {found!r:.100}, and not {expected!r:.100}")
    return True


if __name__ == "__main__":
    raise SystemExit(run("tests.fuzz.fuzz_json", case, bounds=BOUNDS))
