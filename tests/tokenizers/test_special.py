"""Finding special tokens: the longest at each position, within a given limit, in linear time on any text."""

import re
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sotol.tokenizers.characters import FEW, character_class
from sotol.tokenizers.special import LONGEST, LongestMatcher

SEARCH = settings(max_examples=400, deadline=None, derandomize=True)
TEXTS = st.lists(st.text("ab<|>", min_size=1, max_size=6), max_size=12, unique=True)


def naive(texts: list[str], text: str, at: int, room: Callable[[int], int]) -> tuple[int, int] | None:
    for start in range(at, len(text)):
        sizes = [len(t) for t in texts if text.startswith(t, start) and len(t) <= room(start)]
        if sizes:
            return start, start + max(sizes)
    return None


@SEARCH
@given(TEXTS, st.text("ab<|>", max_size=40), st.integers(0, 41), st.lists(st.integers(0, 7), min_size=41, max_size=41))
def test_search_is_leftmost_and_longest_in_its_room(texts: list[str], text: str, at: int, rooms: list[int]) -> None:
    longest = LongestMatcher(texts)
    assert longest.search(text, at, rooms.__getitem__) == naive(texts, text, at, rooms.__getitem__)
    assert longest.search(text, at) == naive(texts, text, at, lambda _: 100)


@SEARCH
@given(st.data())
def test_texts_that_are_long_and_begin_alike(data: st.DataObject) -> None:
    """Texts with lengths around the search's window."""
    sizes = st.integers(1, 140)
    part = st.tuples(sizes, st.sampled_from(["", "b", "bb"])).map(lambda p: "a" * p[0] + p[1])
    texts = data.draw(st.lists(part, max_size=8, unique=True))
    text = "".join(data.draw(st.lists(part, max_size=6)))
    room = data.draw(st.integers(0, 150))
    longest, at = LongestMatcher(texts), 0
    while (found := longest.search(text, at, lambda _: room)) is not None:
        assert found == naive(texts, text, at, lambda _: room)
        at = found[1]
    assert naive(texts, text, at, lambda _: room) is None


@SEARCH
@given(TEXTS, st.text("ab<|>", max_size=40))
def test_split_and_find_say_the_same(texts: list[str], text: str) -> None:
    longest = LongestMatcher(texts)
    pieces = longest.split(text)
    assert "".join(pieces) == text
    assert pieces[1::2] == [text[start:stop] for start, stop in longest.find(text)]


def test_texts_beyond_the_limit_are_not_looked_for() -> None:
    longest = LongestMatcher(["a" * LONGEST, "b" * (LONGEST + 1)])
    assert longest.search("b" * 2 * LONGEST + "a" * LONGEST) == (2 * LONGEST, 3 * LONGEST)
    assert LongestMatcher([]).search("a") is None


MANY = [chr(0x10000 + i) for i in range(100_000)]
HOSTILE: dict[str, tuple[list[str], str]] = {
    "as long as the text": (["a" * 200_000 + "b"], "a" * 400_000),
    "as long as may be": (["a" * (LONGEST - 1) + "b"], "a" * 400_000),
    "a thousand that begin alike": ([f"<|{'x' * 90}{i}|>" for i in range(1000)], ("<|" + "x" * 90) * 5000),
    "in each other": (["a" * k + "b" for k in range(2, 2000)], "a" * 200_000),
    "one for each astral character": (MANY, "a" * 400_000 + MANY[7]),
    "text of astral characters": (MANY, "".join(MANY[i % 100_000] for i in range(200_000))),
    "astral characters behind the first": (["<" + c for c in MANY], "<" * 400_000),
    "one for each character of Chinese": ([chr(0x4E00 + i) + "x" for i in range(20_000)], "漢字" * 200_000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_time_is_bounded_by_the_input(name: str) -> None:
    texts, text = HOSTILE[name]
    start = time.process_time()
    longest = LongestMatcher(texts)
    at = 0
    while (found := longest.search(text, at)) is not None:
        at = found[1]
    spent = time.process_time() - start
    assert spent < 10, f"{spent:.1f} s; it takes less than one, and other methods minutes"


@given(st.sets(st.characters()), st.characters())
def test_a_class_has_its_characters(characters: set[str], other: str) -> None:
    if characters:
        pattern = re.compile(f"[{character_class(characters)}]")
        assert all(map(pattern.fullmatch, characters))
        few = sum(character > "\uffff" for character in characters) <= FEW
        if other not in characters and few:
            assert not pattern.fullmatch(other)


def test_a_class_of_many_characters_matches_quickly() -> None:
    characters = [*MANY, "a", "]", "^", "-"]
    start = time.process_time()
    pattern = re.compile(f"[{character_class(characters)}]")
    assert pattern.findall("b^-a]c" * 100_000 + "\U000f0000") == [*"^-a]" * 100_000, "\U000f0000"]
    assert time.process_time() - start < 10
