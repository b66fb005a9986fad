"""JSON from files that are not trusted: one value, without duplicate keys, NaN, infinities or half characters.

What a text of so many bytes can become in memory is bounded before it is parsed.
"""

import json
import math
import re
from typing import NoReturn

from sotol.errors import FormatError, plain

__all__ = ["parse_json", "parse_object"]

# Values and containers of a text: the largest tokenizers have two million. A file of a few MB may ask for no more.
MAX_VALUES = 1 << 23
HALVES = re.compile(rb"\\u[dD][89a-fA-F]")  # an escape that is half a surrogate pair


def parse_json(data: bytes, where: str) -> object:
    """The value of a text in UTF-8. where: names it in errors, all of which are FormatErrors."""
    if sum(data.count(mark) for mark in (b",", b"[", b"{")) > MAX_VALUES:
        raise FormatError(f"{where}: has more than the {MAX_VALUES} values that sotol accepts")
    try:
        text = data.decode()
        value: object = json.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_finite, parse_int=_whole
        )
        if HALVES.search(data):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise FormatError(f"{where}: has an escape that is half of a surrogate pair") from None
    except UnicodeDecodeError as error:
        raise FormatError(f"{where}: is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise FormatError(f"{where}: is not JSON at character {error.pos}: {plain(error.msg, 80)}") from None
    except RecursionError:
        raise FormatError(f"{where}: is nested too deeply") from None
    except ValueError as error:
        raise FormatError(f"{where}: {error}") from None
    return value


def parse_object(data: bytes, where: str) -> dict[str, object]:
    """The same of a text that must be an object."""
    value = parse_json(data, where)
    if not isinstance(value, dict):
        raise FormatError(f"{where}: is {type(value).__name__} in JSON, not an object")
    return value


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen = set[str]()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"has the key {plain(repr(twice), 80)} twice")
    return made


def _constant(name: str) -> NoReturn:
    raise ValueError(f"has {name}, which is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"has the number {plain(text, 40)}, which is too large")
    return number


def _whole(text: str) -> int:
    if len(text) > 40:
        raise ValueError(f"has the number {plain(text, 40)}, which is too large")
    return int(text)
