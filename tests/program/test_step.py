"""A Step is checked before kernels use it: every kind of error is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.running import make_step, make_table

from sotol.arrays import Int32Array
from sotol.program.memory import Cache, Group, Paged, State
from sotol.program.step import Limits, Step, Table

LIMITS = Limits(tokens=24, sequences=3, rows=6, context=48, blocks=(10,))
GROUPS = (Group((Cache("kv.0", Paged(1, 4, 4)),)),)
VOCABULARY = 50


def good() -> Step:
    """Three sequences: a prompt, a later chunk of another, and one that decodes."""
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
    good().check(LIMITS, GROUPS, VOCABULARY)


def test_slots_are_places_in_blocks() -> None:
    expected = [80, 81, 82, *range(9 * 16 + 10, 9 * 16 + 16), *range(8), 3 * 16 + 15]
    assert good().slots(0) == expected


S = good()
BLOCKS = S.tables[0].blocks


def with_table(**changes: Int32Array) -> Step:
    return S._replace(tables=(S.tables[0]._replace(**changes),))


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
    "a row of the table missing": (with_table(blocks=BLOCKS[:2]), "has 2 rows for 3 sequences"),
    "a first block missing": (with_table(first=ids(0, 0)), "for 3 sequences"),
    "a table too short": (with_table(blocks=BLOCKS[:, :2]), "does not have all that its sequence sees"),
    "no columns": (with_table(blocks=BLOCKS[:, :0]), r"block ids must be in 0\.\.9"),
    "a block below 0": (with_table(blocks=changed(BLOCKS, 0, -1)), r"block ids must be in 0\.\.9"),
    "a block beyond the cache": (with_table(blocks=changed(BLOCKS, 8, 10)), r"block ids must be in 0\.\.9"),
    "a table that begins late": (with_table(first=ids(0, 1, 0)), "does not have all that its sequence sees"),
    "a table that begins before 0": (with_table(first=ids(0, -1, 0)), "does not have all that its sequence sees"),
    "no table": (S._replace(tables=()), "a step for 1 groups of caches has 0 tables"),
    "two tables": (S._replace(tables=S.tables * 2), "a step for 1 groups of caches has 2 tables"),
    "a row below 0": (S._replace(logit_rows=ids(-1)), r"logit rows must be in 0\.\.17"),
    "a row beyond the tokens": (S._replace(logit_rows=ids(18)), r"logit rows must be in 0\.\.17"),
    "no rows": (S._replace(logit_rows=ids()), "18 tokens, 3 sequences, 0 rows exceeds"),
    "too many rows": (S._replace(logit_rows=ids(*range(7))), "18 tokens, 3 sequences, 7 rows exceeds"),
    "too many tokens": (make_step([[1] * 25], [0], [[0, 1]], [0]), "25 tokens, 1 sequences, 1 rows exceeds"),
    "too many sequences": (make_step([[1]] * 4, [0] * 4, [[0]] * 4, [0]), "4 tokens, 4 sequences, 1 rows exceeds"),
    "no tokens": (
        Step(ids(), ids(), ids(0), (Table(np.zeros((0, 1), np.int32), ids()),), ids(0)),
        "0 tokens, 0 sequences, 1 rows exceeds",
    ),
}


@pytest.mark.parametrize("why", BAD)
def test_a_bad_step_is_refused(why: str) -> None:
    step, message = BAD[why]
    with pytest.raises(ValueError, match=message):
        step.check(LIMITS, GROUPS, VOCABULARY)


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(0, 40)), min_size=1, max_size=3))
def test_steps_of_schedulers_pass_and_their_slots_are_apart(parts: list[tuple[int, int]]) -> None:
    """Sequences with disjoint block tables never write to the same slot."""
    free = np.random.default_rng(len(parts)).permutation(10).tolist()
    tables = [[free.pop() for _ in range((begin + size - 1) // 16 + 1)] for size, begin in parts]
    total = sum(size for size, _ in parts)
    step = make_step([[1] * size for size, _ in parts], [begin for _, begin in parts], tables, [total - 1])
    step.check(LIMITS, GROUPS, VOCABULARY)
    assert len(set(step.slots(0))) == total


WINDOW = Group((Cache("kv.1", Paged(1, 4, 4, window=20)),), 20)


@pytest.mark.parametrize(
    ("begin", "size", "first", "columns", "fits"),
    [
        (40, 8, 1, 2, True),  # sees 21 to 47: blocks 1 and 2
        (40, 8, 0, 3, True),
        (40, 8, 2, 1, False),
        (40, 8, 1, 1, False),
        (35, 1, 1, 2, True),  # sees from 16 on
        (34, 1, 1, 2, False),  # from 15
        (34, 1, 0, 3, True),
        (3, 9, 0, 1, True),
    ],
)
def test_a_window_needs_the_blocks_that_it_sees(begin: int, size: int, first: int, columns: int, fits: bool) -> None:
    table = make_table([list(range(columns))], [first])
    step = make_step([[1] * size], [begin], [[0]], [0])._replace(tables=(table,))
    if fits:
        step.check(LIMITS, (WINDOW,), VOCABULARY)
        slots = [(p // 16 - first) * 16 + p % 16 for p in range(begin, begin + size)]
        assert step.slots(0) == slots
    else:
        with pytest.raises(ValueError, match="does not have all that its sequence sees"):
            step.check(LIMITS, (WINDOW,), VOCABULARY)


def test_groups_have_limits_and_tables_of_their_own() -> None:
    """Block tables of a full, a windowed and a state group; a state's block does not depend on positions."""
    state = Group((Cache("state.0", State((4,))),), state=True)
    groups, limits = (*GROUPS, WINDOW, state), LIMITS._replace(blocks=(3, 9, 2))
    tables = make_table([[2, 0, 1]]), make_table([[8, 4]], [1]), make_table([[1]])
    step = make_step([[1, 2]], [40], [[0]], [0])._replace(tables=tables)
    step.check(limits, groups, VOCABULARY)
    assert step.slots(0) == [24, 25]  # block 1
    assert step.slots(1) == [4 * 16 + 8, 4 * 16 + 9]
    for number, blocks in enumerate([(2, 9, 2), (3, 8, 2), (3, 9, 1)]):
        with pytest.raises(ValueError, match=rf"block ids must be in 0\.\.{blocks[number] - 1}$"):
            step.check(limits._replace(blocks=blocks), groups, VOCABULARY)
