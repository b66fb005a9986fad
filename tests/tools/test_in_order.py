"""Tasks of several threads: results in order, few ahead, errors where they belong."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from sotol.tools.in_order import AHEAD, in_order


def test_results_come_in_the_order_of_the_tasks() -> None:
    def late(i: int) -> int:
        time.sleep(0.001 * (i % 3))
        return i

    with ThreadPoolExecutor(3) as pool:
        assert list(in_order(pool, 3, (partial(late, i) for i in range(50)))) == list(range(50))


def test_no_more_is_begun_than_can_be_kept() -> None:
    begun = list[int]()

    def task(i: int) -> int:
        begun.append(i)
        return i

    with ThreadPoolExecutor(2) as pool:
        results = in_order(pool, 2, (partial(task, i) for i in range(100)))
        assert next(results) == 0
        results.close()
    assert len(begun) <= 2 * AHEAD + 1


def test_an_error_is_raised_where_its_result_would_come() -> None:
    def task(i: int) -> int:
        if i == 3:
            raise ValueError("third")
        return i

    with ThreadPoolExecutor(2) as pool, pytest.raises(ValueError, match="third"):
        list(in_order(pool, 2, (partial(task, i) for i in range(10))))
