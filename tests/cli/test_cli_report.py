"""What is said about an answer's speed."""

import pytest

from sotol import Completion, Timings, Usage
from sotol.cli.report import speeds, summary


def completion(prompt: int, answer: int, known: int, *, prefill: float = 0.5, decode: float = 2.0) -> Completion:
    usage, timings = Usage(prompt, answer, known), Timings(0.0, prefill, decode)
    return Completion("", (5,) * answer, "stop", None, usage, timings, 1)


def test_what_was_known_took_no_time() -> None:
    assert speeds(completion(100, 5, 0)) == {"prefill": 200, "decode": 2}
    assert speeds(completion(100, 5, 80)) == {"prefill": pytest.approx(40), "decode": 2}


def test_one_token_has_no_speed() -> None:
    assert speeds(completion(100, 1, 0, prefill=0.0)) == {"prefill": None, "decode": None}


@pytest.mark.parametrize(("known", "said"), [(0, "100 tokens in"), (80, "100 tokens, 80 of them known, in")])
def test_a_line(known: int, said: str) -> None:
    speed = (100 - known) / 0.5
    assert summary(completion(100, 5, known)) == (
        f"prompt {said} 0.50 s ({speed:.1f} tokens/s), answer 5 tokens in 2.00 s (2.0 tokens/s), ended by stop"
    )
