"""Work of several threads whose results come in the order of the tasks, a few ahead of who takes them."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["in_order"]

Result = TypeVar("Result")
AHEAD = 2  # tasks for each thread that are begun before their results are wanted


def in_order(
    pool: ThreadPoolExecutor, threads: int, tasks: Iterable[Callable[[], Result]]
) -> Generator[Result, None, None]:
    """The results of all tasks, in order. An exception of a task is raised where its result would come.

    Tasks that have not begun when the iterator is closed are left out.
    """
    begun = deque[Future[Result]]()
    try:
        for task in tasks:
            begun.append(pool.submit(task))
            if len(begun) > AHEAD * threads:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        for future in begun:
            future.cancel()
