"""A Step is checked before kernels trust it: every way to be wrong is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.running import make_step

from sotol.program.step import Limits, Step

LIMITS = Limits(tokens=24, sequences=3, rows=6, context=48, blocks=10)
VOCABULARY = 50


def good() -> Step:
    """Three sequences: a prompt, a later chunk, a decode."""
    return make_step([[1, 2, 3], [4] * 14, [49]], [0, 10, 47], [[5], [9, 0], [1, 2, 3]], [2, 16, 17])


def ids(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.array(values, np.int32)


def changed(
    array: np.ndarray[tuple[int, ...], np.dtype[np.int32]], at: int, value: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    copy = array.copy()
    copy.flat[at] = value
    return copy


def test_a_good_step_passes() -> None:
    good().check(LIMITS, VOCABULARY)


def test_slots_are_places_in_blocks() -> None:
    expected = [80, 81, 82, *range(9 * 16 + 10, 9 * 16 + 16), *range(8), 3 * 16 + 15]
    assert good().slots.tolist() == expected
    assert good().slots.dtype == np.int32


S = good()
BAD = {
    "a token below the vocabulary": (S._replace(tokens=changed(S.tokens, 4, -1)), r"token ids must be in 0\.\.49"),
    "a token beyond the vocabulary": (S._replace(tokens=changed(S.tokens, 4, 50)), r"token ids must be in 0\.\.49"),
    "a position below 0": (S._replace(positions=changed(S.positions, 17, -1)), r"positions must be in 0\.\.47"),
    "a position beyond the context": (S._replace(positions=changed(S.positions, 17, 48)), r"positions must be in"),
    "positions with a gap": (S._replace(positions=changed(S.positions, 2, 3)), "positions must ascend by one"),
    "positions that stand": (S._replace(positions=changed(S.positions, 1, 0)), "positions must ascend by one"),
    "too few positions": (S._replace(positions=S.positions[:-1]), "must cover its tokens"),
    "starts that begin late": (S._replace(starts=changed(S.starts, 0, 1)), "must cover its tokens"),
    "starts that end early": (S._replace(starts=changed(S.starts, 3, 17)), "must cover its tokens"),
    "an empty sequence": (S._replace(starts=changed(S.starts, 2, 3)), "none empty"),
    "starts that go back": (S._replace(starts=ids(0, 17, 3, 18)), "none empty"),
    "a block table missing": (S._replace(blocks=S.blocks[:2]), "a block table is too short"),
    "a block table too short": (S._replace(blocks=S.blocks[:, :2]), "a block table is too short"),
    "a block below 0": (S._replace(blocks=changed(S.blocks, 0, -1)), r"block ids must be in 0\.\.9"),
    "a block beyond the cache": (S._replace(blocks=changed(S.blocks, 8, 10)), r"block ids must be in 0\.\.9"),
    "a row below 0": (S._replace(logit_rows=ids(-1)), r"logit rows must be in 0\.\.17"),
    "a row beyond the tokens": (S._replace(logit_rows=ids(18)), r"logit rows must be in 0\.\.17"),
    "no rows": (S._replace(logit_rows=ids()), "18 tokens, 3 sequences, 0 rows exceeds"),
    "too many rows": (S._replace(logit_rows=ids(*range(7))), "18 tokens, 3 sequences, 7 rows exceeds"),
    "too many tokens": (make_step([[1] * 25], [0], [[0, 1]], [0]), "25 tokens, 1 sequences, 1 rows exceeds"),
    "too many sequences": (make_step([[1]] * 4, [0] * 4, [[0]] * 4, [0]), "4 tokens, 4 sequences, 1 rows exceeds"),
    "no tokens": (
        Step(ids(), ids(), ids(0), np.zeros((0, 1), np.int32), ids(0)),
        "0 tokens, 0 sequences, 1 rows exceeds",
    ),
}


@pytest.mark.parametrize("why", BAD)
def test_a_bad_step_is_refused(why: str) -> None:
    step, message = BAD[why]
    with pytest.raises(ValueError, match=message):
        step.check(LIMITS, VOCABULARY)


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(0, 40)), min_size=1, max_size=3))
def test_steps_of_schedulers_pass_and_their_slots_are_apart(parts: list[tuple[int, int]]) -> None:
    """Sequences with tables of their own never write to the same slot."""
    free = np.random.default_rng(len(parts)).permutation(10).tolist()
    tables = [[free.pop() for _ in range((begin + size - 1) // 16 + 1)] for size, begin in parts]
    total = sum(size for size, _ in parts)
    step = make_step([[1] * size for size, _ in parts], [begin for _, begin in parts], tables, [total - 1])
    step.check(LIMITS, VOCABULARY)
    assert len(set(step.slots.tolist())) == total
