"""How much of a step prompts may take beside answers."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sotol.engine.policy import Pace


def settle(pace: Pace, decoding: int, alone: float, seconds: Callable[[int], float], steps: int = 60) -> list[int]:
    """The prompt tokens of mixed steps, which take seconds(tokens); the first step only decodes."""
    pace.note(decoding, 0, alone)
    tokens = []
    for _ in range(steps):
        count = pace.prompt_tokens(1, decoding)
        pace.note(decoding, count, seconds(count) if count else alone)
        tokens += [count] if count else []
    return tokens


def test_before_anything_is_measured_prompts_take_a_quarter() -> None:
    assert Pace(2.5, 512).prompt_tokens(100, 8) == 128


@pytest.mark.parametrize(("slowdown", "tokens"), [(2.5, 30), (3.0, 40), (11.0, 200), (1000.0, 512), (1.0, 4)])
def test_a_step_with_prompts_takes_so_many_times_as_long(slowdown: float, tokens: int) -> None:
    """A step of 8 that decode takes 10 ms, each token of a prompt half a ms more."""
    settled = settle(Pace(slowdown, 512), 8, 0.010, lambda n: 0.010 + n * 0.0005)
    assert all(0.9 * tokens - 1 <= n <= 1.1 * tokens + 1 for n in settled[30:])


def test_tokens_behind_many_others_are_fewer() -> None:
    """A step that must read a long context, whatever the number of tokens, has room for fewer."""
    pace = Pace(3.0, 512)
    short = settle(pace, 8, 0.010, lambda n: 0.010 + n * 0.0002)[-1]
    long = settle(pace, 8, 0.010, lambda n: 0.025 + n * 0.0005)[-1]
    again = settle(pace, 8, 0.010, lambda n: 0.010 + n * 0.0002)[-1]
    assert 90 <= short <= 110
    assert 9 <= long <= 11
    assert 90 <= again <= 110


def test_where_more_wait_than_decode_prompts_take_more() -> None:
    """Three wait for each that decodes: what prefill adds may be three times WAITING times as long."""
    pace = Pace(2.0, 512)
    pace.note(4, 0, 0.010)
    for _ in range(60):
        tokens = pace.prompt_tokens(12, 4)
        pace.note(4, tokens, 0.010 + tokens * 0.0005)  # also where there are none
    alone = 0.010 / 0.0005
    assert pace.prompt_tokens(12, 4) == pytest.approx(3 * Pace.WAITING * alone, rel=0.1)
    assert pace.prompt_tokens(4, 4) == pytest.approx(Pace.WAITING * alone, rel=0.15)
    assert pace.prompt_tokens(1, 4) == pytest.approx(alone, rel=0.15)
    assert pace.prompt_tokens(1000, 4) == 512


def test_a_speed_that_varies_moves_nothing() -> None:
    """Every other step takes three times as long: both count alike, so there is no slide to the least."""
    pace = Pace(3.0, 512)
    pace.note(8, 0, 0.010)
    for step in range(200):
        count = pace.prompt_tokens(1, 8)
        busy = 1.0 if step % 2 else 3.0
        pace.note(8, count, busy * (0.010 + count * 0.0005))
    assert pace.prompt_tokens(1, 8) >= 16


def test_what_the_system_held_up_changes_little() -> None:
    pace = Pace(2.0, 512)
    settle(pace, 4, 0.010, lambda n: 0.010 + n * 0.0005)
    before = pace.prompt_tokens(1, 4)
    pace.note(4, before, 10.0)
    assert pace.prompt_tokens(1, 4) >= before // 2
    pace.note(4, 0, 10.0)
    after = settle(pace, 4, 0.010, lambda n: 0.010 + n * 0.0005)[-1]
    assert before <= after <= 1.5 * before


def test_a_short_prompt_does_not_tell_that_more_is_fine() -> None:
    pace = Pace(2.0, 512)
    settle(pace, 4, 0.010, lambda n: 0.010 + n * 0.001)
    pace.note(4, 0, 0.010)
    before = pace.prompt_tokens(1, 4)
    for _ in range(20):
        pace.note(4, before - 3, 0.001)
    assert pace.prompt_tokens(1, 4) == before


def test_a_size_that_was_not_measured_is_measured_first() -> None:
    pace = Pace(2.0, 512)
    pace.note(1, 0, 0.002)
    assert pace.prompt_tokens(60, 60) == 0
    pace.note(60, 0, 0.100)
    assert settle(pace, 60, 0.100, lambda n: 0.100 + n * 0.001)[-1] >= 90


def test_steps_that_only_decode_are_measured_again() -> None:
    """Among thousands of mixed ones, while the answers that decode become longer and slower."""
    pace = Pace(2.0, 512)
    pace.note(8, 0, 0.005)
    alone = 0.005
    for _ in range(2000):
        alone = min(0.020, alone + 0.00002)
        count = pace.prompt_tokens(1, 8)
        pace.note(8, count, alone + count * 0.001)
    assert 16 <= pace.prompt_tokens(1, 8) <= 24


@given(
    st.lists(st.tuples(st.integers(0, 64), st.integers(0, 512), st.floats(0, 10)), max_size=30),
    st.integers(1, 64),
    st.integers(1, 100),
)
def test_prompts_always_get_on(notes: list[tuple[int, int, float]], decoding: int, waiting: int) -> None:
    """In this step, or in the next."""
    pace = Pace(2.5, 512)
    for note in notes:
        pace.note(*note)
    if not pace.prompt_tokens(waiting, decoding):
        pace.note(decoding, 0, 0.01)
    assert 4 <= pace.prompt_tokens(waiting, decoding) <= 512
