"""Masks beside a step: all of them, in order, whoever computes them, with and without a thread."""

import threading
from typing import Any

import numpy as np
import pytest
from tests.support.fake_runner import Ruled

from sotol.engine import masks as module
from sotol.engine.masks import Complete, Masks
from sotol.errors import SotolError


class Held(Ruled):
    """A matcher whose mask tells who computed it, and may wait or fail."""

    def __init__(self, number: int, held: threading.Event | None = None, error: BaseException | None = None) -> None:
        super().__init__()
        self.number, self.held, self.error, self.by = number, held, error, ""

    def mask(self) -> Any:
        self.by = threading.current_thread().name
        if self.held is not None:
            assert self.held.wait(20)
        if self.error is not None:
            raise self.error
        return np.full(1, self.number, np.float32)


def results(masks: Masks, matchers: list[Any]) -> list[Any]:
    return masks.start(matchers)()


def test_no_matchers_are_no_masks() -> None:
    masks = Masks()
    assert results(masks, []) == []
    masks.close()


def test_the_order_is_kept_whoever_computes() -> None:
    masks, released = Masks(), threading.Event()
    first, others = Held(0, released), [Held(i) for i in range(1, 30)]
    finish = masks.start([first, *others])  # type: ignore[list-item]  # as far as masks know one
    while not first.by:  # the thread has begun with the first, and hangs there
        pass
    timer = threading.Timer(0.05, released.set)
    timer.start()
    done: list[Any] = finish()
    timer.join()
    assert [float(mask[0]) for mask in done] == list(range(30))
    assert first.by.startswith("sotol-masks")
    assert {one.by for one in others} == {threading.current_thread().name}
    masks.close()


def test_what_fails_is_its_own_result() -> None:
    masks, complete = Masks(), Ruled()
    complete.accept(30)
    given = [Held(0), Held(1, error=SotolError("lost")), Held(2, error=KeyboardInterrupt("panic")), complete, Held(4)]
    for _ in range(50):
        done = results(masks, given)
        assert [type(one) for one in done[1:4]] == [SotolError, RuntimeError, Complete]
        assert (done[0][0], done[4][0]) == (0, 4)
    masks.close()


def test_without_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> Any:
        raise SotolError("no more threads")

    monkeypatch.setattr(module, "Workers", refused)
    masks = Masks()
    given = [Held(i) for i in range(3)]
    for _ in range(3):
        assert [float(one[0]) for one in results(masks, given)] == [0, 1, 2]
    masks.close()


def test_cheap_masks_wake_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHEAP", 20.0)
    masks = Masks()
    given = [Held(i) for i in range(3)]
    results(masks, given)
    results(masks, given)
    assert {one.by for one in given} == {threading.current_thread().name}
    masks.close()
