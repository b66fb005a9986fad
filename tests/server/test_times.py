"""Lengths of time, as people write them."""

import math

import pytest

from sotol.server.times import seconds_of


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("5m", 300), ("1h30m", 5400), ("90s", 90), ("300ms", 0.3), ("-1", math.inf), ("-5m", math.inf), (-1, math.inf),
     (0, 0), ("0", 0), ("0m", 0), ("-0", 0), (2.5, 2.5), ("12", 12), ("+3s", 3), ("soon", None), ("", None),
     ("5x", None), ("1m2", None), (math.nan, None)],
)  # fmt: skip
def test_times(given: str | float, seconds: float | None) -> None:
    assert seconds_of(given) == (seconds if seconds is None else pytest.approx(seconds))
