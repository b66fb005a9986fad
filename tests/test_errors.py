"""sotol.errors.plain: text from outside is quoted as one short line without control characters."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sotol.errors import plain

HIDDEN = {"Cc", "Cs", "Zl", "Zp"}  # categories of control characters, surrogates, line and paragraph separators
TURNED = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}  # bidirectional classes that change the order


@given(st.text(st.characters() | st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp"])), st.integers(2, 50))
def test_it_is_one_short_line_of_visible_text(text: str, limit: int) -> None:
    shown = plain(text, limit)
    assert len(shown) <= limit
    assert not {unicodedata.category(c) for c in shown} & HIDDEN
    assert not {unicodedata.bidirectional(c) for c in shown} & TURNED
    assert plain(shown, limit) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a short text", "a short text"),
        ("lines\r\nand\t tabs ", "lines and tabs"),
        ("\x1b]0;title\x07\x1b[31mred\x9b0m", "]0;title [31mred 0m"),
        ("abc\u202egpj.exe", "abc gpj.exe"),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 199 + "…"),
        (" " * 10_000 + "far", "…"),
        (ValueError("an error"), "an error"),
        ("日本語 é 😀", "日本語 é 😀"),
    ],
)
def test_what_is_kept(text: object, shown: str) -> None:
    assert plain(text) == shown
