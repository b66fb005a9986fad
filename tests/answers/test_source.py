"""Reading text that arrives in any cuts."""

from collections.abc import Callable, Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.support.answers import cut

from sotol.answers.source import LONGEST_NAME, Malformed, Markers, Reading, Source, T


def read(reader: Callable[[Source], Reading[T]], parts: Iterable[str]) -> tuple[T, str]:
    """What a reader gives, and what it has not read."""
    source = Source()
    reading = reader(source)
    try:
        next(reading)
        for part in parts:
            source.add(part)
            next(reading)
        source.end()
        next(reading)
    except StopIteration as end:
        return end.value, source._text[source._at :]
    raise AssertionError("it waits for more at the end")


MARKERS = st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=4)


@given(MARKERS, st.text("abc", max_size=30), st.lists(st.integers(0, 30)))
@example(["ab", "xabc"], "xabc", [3])
@example(["ab", "abab"], "abac", [2])
@example(["ab", "xabc"], "xabd", [3])
def test_text_flows_to_the_first_marker_the_longest_there(markers: list[str], text: str, places: list[int]) -> None:
    given: list[str] = []
    parts = cut(text, places)
    mark, _ = read(lambda source: source.flow(Markers(markers), given.append), parts)
    at = min((text.find(m) for m in markers if m in text), default=len(text))
    assert "".join(given) == text[:at]
    assert mark == max((m for m in markers if text.startswith(m, at)), key=len, default="")


def test_text_that_can_be_no_marker_flows_at_once() -> None:
    source, given = Source(), list[str]()
    reading = source.flow(Markers(["<b>", "</b>"]), given.append)
    next(reading)
    for part, wanted in (("a<", "a"), ("c", "<c"), ("<", ""), ("/", ""), ("/", "<//"), ("</b", ""), (">", "")):
        source.add(part)
        with pytest.raises(StopIteration) if part == ">" else Nothing():
            next(reading)
        assert "".join(given) == wanted
        given.clear()


class Nothing:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


JSON = st.recursive(
    st.sampled_from(["1", "-2.5e3", "true", "null", '"a"', r'"\"}]\\"', '""']),
    lambda inner: (
        st.lists(inner).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(inner).map(lambda items: "{" + ", ".join(f'"k": {item}' for item in items) + "}")
    ),
)


@given(JSON, st.sampled_from([",", "]", " x", "}"]), st.lists(st.integers(0, 60)))
def test_values_end_where_they_end(value: str, rest: str, places: list[int]) -> None:
    found, left = read(lambda source: source.value(), cut(value + rest, places))
    assert found == value
    assert (value + rest).endswith(left)


@pytest.mark.parametrize("text", ["", ",", '"a', '"a\\', "[", '{"a": "}', "]"])
def test_what_is_no_value(text: str) -> None:
    for parts in ([text], text):
        with pytest.raises(Malformed):
            read(lambda source: source.value(), parts)


@given(st.integers(LONGEST_NAME - 3, LONGEST_NAME + 3), st.lists(st.integers(0, 300)))
def test_names_have_a_longest(length: int, places: list[int]) -> None:
    text = "a" * length + ">b"
    parts = cut(text, places)
    if length <= LONGEST_NAME:
        assert read(lambda source: source.until(Markers([">"])), parts)[0] == ("a" * length, ">")
        assert read(lambda source: source.string(LONGEST_NAME), ['"', *cut(text.replace(">", '"'), places)])
    else:
        with pytest.raises(Malformed):
            read(lambda source: source.until(Markers([">"])), parts)
        with pytest.raises(Malformed):
            read(lambda source: source.string(LONGEST_NAME), ['"', *cut(text.replace(">", '"'), places)])
