"""sotol.engine.stops against a search of the whole text."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sotol.engine.stops import StopMatcher

letters = st.text("ab\n", max_size=30)


def naive(text: str, stops: list[str]) -> tuple[str, bool]:
    """The text before the first completed stop string."""
    for end in range(len(text) + 1):
        found = [len(s) for s in stops if text[:end].endswith(s)]
        if found:
            return text[: end - max(found)], True
    return text, False


def held_back(text: str, stops: list[str]) -> int:
    """How many characters at the end may begin a stop string."""
    return max((n for s in stops for n in range(len(s)) if text.endswith(s[:n])), default=0)


@given(st.lists(letters, max_size=12), st.lists(st.text("ab\n", min_size=1, max_size=6), max_size=4))
def test_any_cut_of_the_text_releases_what_the_whole_does(pieces: list[str], stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    whole, released, stopped = "", "", False
    for piece in pieces:
        text, stopped = matcher.push(piece)
        released += text
        whole += piece
        expected, expect_stop = naive(whole, stops)
        assert stopped == expect_stop
        if stopped:
            assert released == expected
            break
        assert released == whole[: len(whole) - held_back(whole, stops)]
    released += matcher.finish()
    assert (released, stopped) == naive(whole, stops)
    assert matcher.finish() == ""


SHOWN = st.lists(st.sampled_from("ab") | st.integers(0, 2), max_size=12)  # characters, and hidden tokens


@given(SHOWN, st.lists(st.lists(st.sampled_from("ab") | st.integers(0, 2), min_size=1, max_size=4), max_size=4))
def test_tokens_that_are_not_shown_are_symbols(symbols: list[str | int], stops: list[list[str | int]]) -> None:
    """As if each hidden token were one more character, which is removed from the released text."""
    known = {symbol for stop in stops for symbol in stop}
    text = "".join(str(symbol) for symbol in symbols if isinstance(symbol, str) or symbol in known)
    released, stopped = naive(text, ["".join(map(str, stop)) for stop in stops])
    matcher, found = StopMatcher(stops), ""
    for symbol in symbols:
        found += (matcher.push(symbol) if isinstance(symbol, str) else matcher.push("", symbol))[0]
    assert matcher.push("")[1] == stopped
    assert found + matcher.finish() == released.translate(dict.fromkeys(map(ord, "012")))


def test_a_stop_string_across_pieces_never_leaks() -> None:
    matcher = StopMatcher(["</answer>", "END"])
    assert matcher.push("so 2 < 3 <") == ("so 2 < 3 ", False)
    assert matcher.push("/ans") == ("", False)
    assert matcher.push("wers> </answer") == ("</answers> ", False)
    assert matcher.push("> more") == ("", True)
    assert matcher.push("ignored") == ("", True)
    assert matcher.finish() == ""


def test_text_that_only_looked_like_a_stop_comes_at_the_end() -> None:
    matcher = StopMatcher(["STOP"])
    assert matcher.push("x STO") == ("x ", False)
    assert matcher.finish() == "STO"


@given(letters, st.lists(st.text("ab", min_size=1, max_size=4), max_size=4, unique=True))
def test_it_says_which_stop_was_found(text: str, stops: list[str]) -> None:
    """The one that ends first; of several that end there, the longest."""
    matcher = StopMatcher(stops)
    _, stopped = matcher.push(text)
    ends = [(text.find(stop) + len(stop), -len(stop), i) for i, stop in enumerate(stops) if stop in text]
    assert matcher.found == (min(ends)[2] if ends else None)
    assert stopped == bool(ends)


def test_no_stop_strings_pass_everything() -> None:
    assert StopMatcher(()).push("abc") == ("abc", False)


def test_an_empty_stop_string_is_an_error() -> None:
    with pytest.raises(ValueError, match="empty"):
        StopMatcher(["a", ""])


def test_time_is_linear_in_the_text() -> None:
    """The worst case of naive search: 100 times the text may not take 1000 times as long."""

    def seconds(length: int) -> float:
        matcher = StopMatcher(["a" * 500 + "b", "aa" * 200 + "c"])
        start = time.perf_counter()
        for _ in range(length // 10):
            matcher.push("a" * 10)
        return time.perf_counter() - start

    seconds(5_000)
    assert seconds(200_000) < 1000 * max(seconds(2_000), 1e-3)
