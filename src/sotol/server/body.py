"""The body of a request as JSON, read within limits.

What JSON leaves open is refused, since a client and a server would take it differently: keys that come twice, NaN and
numbers beyond a double, halves of surrogate pairs, text that is not UTF-8 (RFC 8259, sections 4 and 8).
"""

import asyncio
import json
import math
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from sotol.errors import plain
from sotol.server.problems import Problem

__all__ = ["BODY_BYTES", "ClientGone", "parsed", "read_json"]

BODY_BYTES = 32 << 20  # of a body, unless a server says otherwise
DEEPEST = 128  # levels of lists and objects
LARGE = 1 << 16  # a longer body is parsed in a thread
HALVES = re.compile(rb"\\u[dD][89a-fA-F]")  # an escape of a surrogate, of a pair or alone

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class ClientGone(Exception):
    """The client has closed its connection: nobody reads what would be answered."""


async def read_json(headers: Mapping[str, str], receive: Receive, limit: int = BODY_BYTES) -> dict[str, Any]:
    """The JSON object that a request carries. Raises Problem for any other body, ClientGone if it ends early."""
    coding = headers.get("content-encoding", "identity")
    if coding != "identity":
        raise Problem(415, f"the body has the content-encoding {plain(coding, 40)}: send it without one")
    length = headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 18 or int(length) > limit):
        raise _too_large(limit)
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            break
    data = bytes(body)
    return await asyncio.to_thread(parsed, data) if len(data) > LARGE else parsed(data)


def parsed(data: bytes) -> dict[str, Any]:
    """A JSON object; Problem says what is wrong with other bytes."""
    if not data.strip():
        raise _bad("the body is empty: send a JSON object")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _bad(f"the body is not UTF-8, at byte {error.start}") from None
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
    except json.JSONDecodeError as error:
        raise _bad(f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:  # Python's limit on the digits of a number
        raise _bad("the body has a number of too many digits") from None
    if not isinstance(value, dict):
        raise _bad("the body must be a JSON object")
    _check(value, strings=HALVES.search(data) is not None)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen = set[str]()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _bad(f"the body has the key {plain(repr(twice), 60)} twice in one object", param=plain(twice, 60))
    return result


def _constant(name: str) -> float:
    raise _bad(f"the body has {name}, which is not JSON")


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _bad(f"the body has the number {plain(digits, 40)}, which is beyond a double")
    return value


def _check(value: dict[str, Any], *, strings: bool) -> None:
    """Problem for what is nested too deep, and, if asked for, for strings with half a surrogate pair."""
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for item in level:
            if strings and isinstance(item, dict):
                _check_strings(item)
            children = item.values() if isinstance(item, dict) else item
            if strings:
                _check_strings(child for child in children if isinstance(child, str))
            below += [child for child in children if isinstance(child, dict | list)]
        if not below:
            return
        level = below
    raise _too_deep()


def _check_strings(strings: Any) -> None:
    for text in strings:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _bad("the body has a string with half a surrogate pair, which is no text") from None


def _too_large(limit: int) -> Problem:
    return Problem(413, f"the body has more than {limit} bytes", code="request_too_large")


def _too_deep() -> Problem:
    return _bad(f"the body is nested more than {DEEPEST} levels deep")


def _bad(message: str, param: str | None = None) -> Problem:
    return Problem(400, message, param=param)
