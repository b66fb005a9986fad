"""JSON from files that are not trusted."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sotol.errors import FormatError
from sotol.formats import strict_json
from sotol.formats.strict_json import parse_json, parse_object

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda values: st.lists(values) | st.dictionaries(TEXTS, values),
)


@given(VALUES, st.booleans())
def test_what_json_writes_is_read(value: object, ascii_only: bool) -> None:
    assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode(), "x") == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a": 1, "a": 2}', "x: has the key 'a' twice"),
        (b'{"a": {"b": 1, "c": 1, "b": 2}}', "x: has the key 'b' twice"),
        (b'{"a": NaN}', "x: has NaN, which is no number of JSON"),
        (b"[-Infinity]", "x: has -Infinity, which is no number of JSON"),
        (b"[1e999]", "x: has the number 1e999, which is too large"),
        (b"[" + b"9" * 100 + b"]", "x: has the number 999"),
        (b"[1,]", "x: is not JSON at character 3"),
        (b"", "x: is not JSON at character 0"),
        (b"\xef\xbb\xbf{}", "x: is not JSON at character 0"),
        (b'["\xff"]', "x: is not UTF-8 at byte 2"),
        (b'["\\ud800"]', "x: has an escape that is half of a surrogate pair"),
        (b"[" * 100_000, "x: is nested too deeply"),
        (b"{} {}", "x: is not JSON at character 3"),
    ],
)
def test_what_is_refused(text: bytes, message: str) -> None:
    with pytest.raises(FormatError, match="^" + re.escape(message)) as error:
        parse_json(text, "x")
    assert "\n" not in str(error.value)


def test_a_whole_pair_of_escapes_is_a_character() -> None:
    assert parse_json(b'["\\ud83d\\ude00"]', "x") == ["\U0001f600"]


def test_more_values_than_any_file_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_json, "MAX_VALUES", 10)
    assert parse_json(b"[0,0,0,0,0,0,0,0,0,0]", "x") == [0] * 10
    with pytest.raises(FormatError, match="x: has more than the 10 values"):
        parse_json(b"[0,0,0,0,0,0,0,0,0,0,0]", "x")


@pytest.mark.parametrize("text", [b"[]", b"1", b'"x"', b"null"])
def test_what_is_no_object(text: bytes) -> None:
    with pytest.raises(FormatError, match=r"in JSON, not an object$"):
        parse_object(text, "x")
