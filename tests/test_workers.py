"""Threads end with their owner: when it is closed or garbage-collected, or if one of them can't be started."""

import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from sotol.errors import SotolError
from sotol.workers import STACK_BYTES, Worker, Workers, check_process

PATIENCE = 20  # seconds, of what takes milliseconds


class Job:
    """The threads' target: waits until it is told to stop."""

    def __init__(self) -> None:
        self.stopped, self.begun, self.stops = threading.Event(), 0, 0

    def run(self) -> None:
        self.begun += 1
        assert self.stopped.wait(PATIENCE)

    def stop(self) -> None:
        self.stops += 1
        self.stopped.set()


def alive() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("sotol-test")]


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.001)


def test_they_run_until_they_are_closed() -> None:
    job = Job()
    workers = Workers("test", [job.run] * 3, job.stop)
    until(lambda: job.begun == 3)
    assert not workers.wait(0.001)
    workers.close()
    assert workers.wait()
    assert not alive()
    workers.close()


def test_losing_them_ends_them() -> None:
    job = Job()
    workers = Workers("test", [job.run] * 3, job.stop)
    assert len(alive()) == 3
    del workers
    gc.collect()
    assert not alive()
    assert job.stops == 1


def test_each_who_closes_returns_when_they_have_ended() -> None:
    job, gate, seen = Job(), threading.Event(), list[bool]()

    def run() -> None:
        job.run()
        gate.wait(PATIENCE)

    workers = Workers("test", [run], job.stop)

    def close() -> None:
        workers.close()
        seen.append(bool(alive()))

    closers = [threading.Thread(target=close) for _ in range(5)]
    for closer in closers:
        closer.start()
    time.sleep(0.02)
    assert not seen
    gate.set()
    for closer in closers:
        closer.join(PATIENCE)
    assert seen == [False] * 5


def test_a_worker_that_closes_them_does_not_wait_for_itself() -> None:
    held: list[Workers] = []
    ready, job = threading.Event(), Job()

    def run() -> None:
        ready.wait(PATIENCE)
        held.pop().close()

    held.append(Workers("test", [run, job.run], job.stop))
    ready.set()
    until(lambda: not alive())


@pytest.mark.parametrize("started", [0, 1, 2])
@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), KeyboardInterrupt()])
def test_where_one_can_not_start_all_end(started: int, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    start, calls = threading.Thread.start, list[Any]()

    def limited(self: threading.Thread) -> None:
        calls.append(self)
        if isinstance(self, Worker) and len(calls) > started:
            raise error
        start(self)

    monkeypatch.setattr(threading.Thread, "start", limited)
    job, before = Job(), threading.stack_size()
    expected = SotolError if isinstance(error, RuntimeError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        Workers("test", [job.run] * 3, job.stop)
    if expected is SotolError:
        assert "starts no more threads (3 for test: can't start new thread): load with fewer" in str(caught.value)
    assert not alive()
    assert threading.stack_size() == before


def test_their_stacks_are_large_whatever_the_program_set(monkeypatch: pytest.MonkeyPatch) -> None:
    start, sizes = threading.Thread.start, list[int]()

    def noting(self: threading.Thread) -> None:
        sizes.append(threading.stack_size())
        start(self)

    monkeypatch.setattr(threading.Thread, "start", noting)
    job, before = Job(), threading.stack_size()
    try:
        for own in (256 << 10, 64 << 20):
            threading.stack_size(own)
            Workers("test", [job.run], job.stop).close()
            assert threading.stack_size() == own
    finally:
        threading.stack_size(before)
    assert sizes == [STACK_BYTES, 64 << 20]


def test_another_process_has_none_of_them() -> None:
    import os

    check_process(os.getpid())
    with pytest.raises(SotolError, match=r"loaded before fork\(\): load it in the child"):
        check_process(os.getppid())
