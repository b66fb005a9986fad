"""Bodies of requests: what is JSON for everybody is read, and all else refused with one clear sentence."""

import asyncio
import json
from collections.abc import MutableMapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sotol.server.body import BODY_BYTES, ClientGone, parsed, read_json
from sotol.server.problems import Problem

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(TEXT, children, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(TEXT, VALUES), st.booleans())
def test_what_is_json_is_read(value: dict[str, Any], ascii_only: bool) -> None:
    assert parsed(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(data: bytes) -> None:
    try:
        assert isinstance(parsed(data), dict)
    except Problem as problem:
        assert problem.status == 400  # noqa: PT017  (most bytes are none, some are)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"[]", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b"{", "is not JSON: .* line 1, column 2"),
        (b"{}{}", "is not JSON"),
        (b"{'a': 1}", "is not JSON"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b'{"a": 1e999}', "beyond a double"),
        (b'{"a": ' + b"9" * 5000 + b"}", "too many digits"),
        (b'{"a": 1, "a": 1}', "key 'a' twice"),
        (b'{"b": [{"a": 1, "c": 2, "a": 3}]}', "key 'a' twice"),
        (b'{"a": "\xff"}', "not UTF-8, at byte 7"),
        (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),
        (b'{"a": "\\ud800"}', "half a surrogate pair"),
        (b'{"\\udc00": 1}', "half a surrogate pair"),
        (b'{"a": [["\\ud83d\\u0041"]]}', "half a surrogate pair"),
        (b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}", "more than 128 levels"),
        (b'{"a": ' + b"[" * 100_000, "more than 128 levels|not JSON"),
        (b'{"a":' * 100_000, "more than 128 levels|not JSON"),
        (b'{"a": "\x00"}', "is not JSON"),
    ],
)
def test_what_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(Problem, match=said) as refused:
        parsed(data)
    assert refused.value.status == 400
    assert len(refused.value.message) < 200


def test_what_is_fine() -> None:
    assert parsed(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}  # a byte order mark, which some editors write
    assert parsed(b'{"a": "\\ud83d\\udc4b"}') == {"a": "👋"}
    assert parsed(b'{"a": ' + b"[" * 127 + b"]" * 127 + b"}")
    assert parsed(b'{"a": {"b": 1}, "b": 1, "": null}') == {"a": {"b": 1}, "b": 1, "": None}


def _read(parts: list[MutableMapping[str, Any]], headers: dict[str, str], limit: int = BODY_BYTES) -> Any:
    waiting = iter(parts)

    async def receive() -> MutableMapping[str, Any]:
        return next(waiting)

    return asyncio.run(read_json(headers, receive, limit))


def _parts(*bodies: bytes) -> list[MutableMapping[str, Any]]:
    last = len(bodies) - 1
    return [{"type": "http.request", "body": body, "more_body": i < last} for i, body in enumerate(bodies)]


def test_reading() -> None:
    assert _read(_parts(b'{"a"', b": 1", b"}"), {}) == {"a": 1}
    large = json.dumps({"a": "x" * 100_000}).encode()
    assert _read(_parts(large), {}) == {"a": "x" * 100_000}  # in a thread
    with pytest.raises(ClientGone):
        _read([*_parts(b'{"a"', b"")[:1], {"type": "http.disconnect"}], {})


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-length": "11"}, 413),
        ({"content-length": "9" * 30}, 413),
        ({"content-length": "2"}, 413),  # a lie
        ({}, 413),
        ({"content-encoding": "gzip"}, 415),
    ],
)
def test_limits(headers: dict[str, str], status: int) -> None:
    with pytest.raises(Problem) as refused:
        _read(_parts(b'{"a": ', b'"12345"', b"}"), headers, 10)
    assert refused.value.status == status
