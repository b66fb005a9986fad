"""The scheduler under every pressure, with a runner whose logits show a wrong block table, position or restart."""

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.support.fake_runner import VOCABULARY, FakeRunner, alone, generation, scores, scoring

from sotol.engine.options import Sampling
from sotol.engine.sampling import pick
from sotol.engine.scheduler import Batch, Scheduler
from sotol.engine.sequence import Chunk, Failed, Finished, Generation, Scoring
from sotol.program.step import Limits

CONTEXT = 48  # three blocks
tokens = st.integers(0, VOCABULARY - 1)


def run(runner: FakeRunner, scheduler: Scheduler, batch: Batch) -> None:
    """What the engine does with a batch."""
    logits = runner.run(batch.step)
    scheduler.done(batch)
    for work in batch.works:
        rows = logits[work.rows]
        if isinstance(work.sequence, Scoring) and len(rows):
            work.sequence.accept(rows)
        elif isinstance(work.sequence, Generation) and len(rows):
            work.sequence.accept(pick(rows, [work.sequence.sampler])[0])


def drain(runner: FakeRunner, scheduler: Scheduler, most: int = 3000) -> list[Batch]:
    """Run all there is."""
    batches: list[Batch] = []
    while (batch := scheduler.next()) is not None:
        run(runner, scheduler, batch)
        batches.append(batch)
        assert len(batches) <= most, "no end in sight"
    return batches


def check_generation(events: Sequence[Any], prompt: Sequence[int], new: int, ends: Sequence[int], s: Sampling) -> None:
    """The events of a finished generation are those of the request alone."""
    expected, reason = alone(prompt, new, ends=ends, sampling=s)
    *chunks, end = events
    assert [c.picked.token for c in chunks if isinstance(c, Chunk)] == expected
    assert len(chunks) == len(expected)
    assert isinstance(end, Finished)
    assert end.reason == reason


def check_scores(parts: Sequence[Any], text: Sequence[int]) -> None:
    """Each row came once, and right."""
    *rows, end = parts
    assert end is None
    assert all(len(part) for part in rows)
    np.testing.assert_array_equal(np.concatenate(rows), scores(text))


class SchedulerMachine(RuleBasedStateMachine):
    """Requests come, run, are cancelled and fail at any time, in a pool that may hold little more than one of them."""

    @initialize(
        budget=st.integers(1, 40), sequences=st.integers(1, 5), rows=st.integers(1, 5), blocks=st.integers(3, 9)
    )
    def start(self, budget: int, sequences: int, rows: int, blocks: int) -> None:
        self.limits = Limits(budget, sequences, min(rows, budget), CONTEXT, blocks)
        self.scheduler, self.runner = Scheduler(self.limits), FakeRunner(self.limits)
        self.checks: list[tuple[Any, Any]] = []  # a request, and what must hold of it in the end
        self.ran: Batch | None = None

    @rule(
        prompt=st.lists(tokens, min_size=1, max_size=CONTEXT - 1),
        new=st.integers(1, CONTEXT),
        ends=st.sets(tokens, max_size=2),
        seed=st.integers(0, 9),
        temperature=st.sampled_from([0, 1]),
    )
    def generate(self, prompt: list[int], new: int, ends: set[int], seed: int, temperature: int) -> None:
        new = min(new, CONTEXT - len(prompt))
        sampling, events = Sampling(temperature=temperature, seed=seed), list[Any]()
        request = generation(prompt, events.append, new=new, ends=sorted(ends), sampling=sampling)
        self.checks.append((request, lambda: check_generation(events, prompt, new, sorted(ends), sampling)))
        self.scheduler.check(request)
        self.scheduler.add([request])

    @rule(text=st.lists(tokens, min_size=1, max_size=CONTEXT))
    def score(self, text: list[int]) -> None:
        parts = list[Any]()
        request = scoring(text, parts)
        self.checks.append((request, lambda: check_scores(parts, text)))
        self.scheduler.check(request)
        self.scheduler.add([request])

    @precondition(lambda self: self.scheduler.active())
    @rule(count=st.integers(1, 9))
    def steps(self, count: int) -> None:
        for _ in range(count):
            self.ran = self.scheduler.next()
            if self.ran is None:
                return
            self._check_shares(self.ran)
            run(self.runner, self.scheduler, self.ran)

    @precondition(lambda self: self.checks)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        request, _ = self.checks.pop(data.draw(st.integers(0, len(self.checks) - 1)))
        request.cancelled = True

    @rule()
    def fail(self) -> None:
        """A step that fails: its requests end."""
        batch = self.scheduler.next()
        if batch is not None:
            lost = [work.sequence for work in batch.works]
            for sequence in lost:
                sequence.fail(RuntimeError("the step failed"))
            self.checks = [(request, check) for request, check in self.checks if request not in lost]

    def _check_shares(self, batch: Batch) -> None:
        """The oldest request gets on, unless those that decode need all there is."""
        served = [work.sequence for work in batch.works]
        running = list(self.scheduler._running)
        assert len(set(served)) == len(served) <= self.limits.sequences
        if running[0] not in served:
            full = (
                len(batch.step.tokens) == self.limits.tokens
                or sum(len(w.sequence.rows_wanted(w.count)) for w in batch.works) == self.limits.rows
            )
            assert full
            assert all(work.count == 1 for work in batch.works)

    @invariant()
    def blocks_have_one_owner(self) -> None:
        held = [block for request in self.scheduler._running for block in request.blocks]
        assert len(held) == len(set(held))
        assert len(held) + self.scheduler._pool.free == self.limits.blocks
        for request in self.scheduler.active():
            assert request.cached <= min(len(request.tokens), 16 * len(request.blocks))
            assert len(request.blocks) <= -(-len(request.tokens) // 16)

    def teardown(self) -> None:
        if hasattr(self, "scheduler"):
            drain(self.runner, self.scheduler)
            assert self.scheduler.active() == []
            assert self.scheduler._pool.free == self.limits.blocks
            for _, check in self.checks:
                check()


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def limits(*, budget: int = 16, sequences: int = 8, rows: int = 8, context: int = 64, blocks: int = 32) -> Limits:
    return Limits(budget, sequences, rows, context, blocks)


@pytest.mark.parametrize("blocks", [4, 5, 7])
def test_preemption_changes_nothing_that_is_generated(blocks: int) -> None:
    """Eight requests of a whole context each, in a cache for little more than one."""
    small = limits(blocks=blocks)
    runner, scheduler = FakeRunner(small), Scheduler(small)
    prompts = [[i] * (5 + 3 * i) for i in range(8)]
    events: list[list[Any]] = [[] for _ in prompts]
    requests = [generation(p, e.append, new=64 - len(p)) for p, e in zip(prompts, events, strict=True)]
    scheduler.add(requests)
    batches = drain(runner, scheduler)
    for prompt, got in zip(prompts, events, strict=True):
        check_generation(got, prompt, 64 - len(prompt), (), Sampling(temperature=0))
    computed = sum(len(batch.step.tokens) for batch in batches)
    needed = sum(len(request.tokens) - 1 for request in requests)
    assert computed > needed or blocks == 4  # some had to give way
    assert computed < 3 * needed


def test_a_scored_text_that_gives_way_delivers_each_row_once() -> None:
    small = limits(budget=8, rows=4, blocks=5)
    runner, scheduler = FakeRunner(small), Scheduler(small)
    events, parts, text = list[Any](), list[Any](), [i % VOCABULARY for i in range(60)]
    scheduler.add([generation([1, 2, 3], events.append, new=61), scoring(text, parts)])
    batches = drain(runner, scheduler)
    check_scores(parts, text)
    check_generation(events, [1, 2, 3], 61, (), Sampling(temperature=0))
    assert sum(len(batch.step.tokens) for batch in batches) > 63 + 60  # it gave way


def test_prompts_do_not_hold_up_those_that_decode() -> None:
    """Each step brings a submission's running request one token further, whatever comes meanwhile."""
    wide = limits(budget=8)
    runner, scheduler = FakeRunner(wide), Scheduler(wide)
    events = list[Any]()
    scheduler.add([generation([2] * 60, lambda _e: None, new=2)])
    scheduler.add([generation([1], events.append, new=20)])
    for step in range(20):
        scheduler.add([generation([step] * 40, lambda _e: None, new=2)])
        batch = scheduler.next()
        assert batch is not None
        run(runner, scheduler, batch)
        assert len([e for e in events if isinstance(e, Chunk)]) == step + 1
        assert len(batch.step.tokens) == 1 + 8 // 4  # and the prompts get a part that does not take long
    assert isinstance(events[-1], Finished)


@pytest.mark.parametrize("blocks", [4, 6, 32])
def test_equal_requests_end_in_the_order_of_their_coming(blocks: int) -> None:
    small = limits(sequences=3, blocks=blocks)
    runner, scheduler = FakeRunner(small), Scheduler(small)
    order: list[int] = []

    def note(i: int) -> Any:
        return lambda event: order.append(i) if isinstance(event, Finished) else None

    scheduler.add([generation([i] * 20, note(i), new=20) for i in range(9)])
    drain(runner, scheduler)
    assert order == sorted(order)
    assert len(order) == 9


# ---- submissions


def step(runner: FakeRunner, scheduler: Scheduler) -> Batch:
    batch = scheduler.next()
    assert batch is not None
    run(runner, scheduler, batch)
    return batch


@pytest.mark.parametrize("blocks", [12, 32])
def test_a_caller_with_thousands_of_prompts_keeps_no_other_waiting(blocks: int) -> None:
    """Neither for a place nor for blocks: who has nothing running starts in the next step."""
    small = limits(budget=64, blocks=blocks)
    runner, scheduler = FakeRunner(small), Scheduler(small)
    scheduler.add([generation([1] * 20, lambda _e: None, new=40) for _ in range(3000)])
    for _ in range(3):
        step(runner, scheduler)
    for prompt in ([2], [3] * 20):
        events = list[Any]()
        request = generation(prompt, events.append, new=4)
        scheduler.add([request])
        steps = 0
        while not request.done:
            assert request in [work.sequence for work in step(runner, scheduler).works]
            steps += 1
        check_generation(events, prompt, 4, (), Sampling(temperature=0))
        assert steps <= 4 + 1  # a prompt of 20 takes two short steps
    assert len(scheduler.active()) > 2900


def test_submissions_have_equally_many_running() -> None:
    small = limits(budget=64, context=16)
    runner, scheduler = FakeRunner(small), Scheduler(small)
    for number in range(3):
        scheduler.add([generation([number], lambda _e: None, new=4 + i % 5) for i in range(200)])
    seen = [0, 0, 0]
    for i in range(60):
        tokens = [work.sequence.tokens[0] for work in step(runner, scheduler).works]
        if i >= 20:
            seen = [n + tokens.count(number) for number, n in enumerate(seen)]
    assert sum(seen) == 8 * 40
    assert max(seen) < 1.25 * min(seen)


def test_prompts_of_submissions_share_a_step() -> None:
    """A long prompt does not keep a short one waiting, and alone it takes all there is."""
    wide = limits(budget=16)
    runner, scheduler = FakeRunner(wide), Scheduler(wide)
    scheduler.add([generation([1] * 60, lambda _e: None, new=2), generation([1] * 60, lambda _e: None, new=2)])
    assert [work.count for work in step(runner, scheduler).works] == [16]
    scheduler.add([scoring([2] * 60, [])])
    assert [work.count for work in step(runner, scheduler).works] == [8, 8]
    scheduler.add([generation([3] * 2, lambda _e: None, new=2)])
    works = [(work.sequence.tokens[0], work.count) for work in step(runner, scheduler).works]
    assert works == [(1, 6), (1, 4), (2, 4), (3, 2)]  # the scored text has half of the rows, and others what it leaves


def test_what_waits_costs_a_step_nothing() -> None:
    class Unseen(deque[Any]):
        def __iter__(self) -> Any:
            raise AssertionError("somebody looks through all that wait")

    small = limits()
    runner, scheduler = FakeRunner(small), Scheduler(small)
    scheduler.add([generation([1], lambda _e: None, new=40) for _ in range(100)])
    scheduler._waiting[0].waiting = Unseen(scheduler._waiting[0].waiting)
    for _ in range(50):
        step(runner, scheduler)


def test_thousands_that_are_cancelled_while_they_wait_are_passed_over() -> None:
    small = limits()
    runner, scheduler = FakeRunner(small), Scheduler(small)
    requests = [generation([1], lambda _e: None, new=4) for _ in range(3000)]
    events = list[Any]()
    scheduler.add(requests)
    scheduler.add([generation([2], events.append, new=4)])
    for request in requests:
        request.cancelled = True
    assert scheduler.active()[-1].tokens == [2]
    assert len(scheduler.active()) == 1
    drain(runner, scheduler, 4)
    check_generation(events, [2], 4, (), Sampling(temperature=0))


def test_a_request_waits_until_prompts_before_it_have_their_room() -> None:
    """Blocks promised to a prompt that runs in chunks are not given to a later one, which would lose its work."""
    small = limits(budget=40, context=96, blocks=6)
    runner, scheduler = FakeRunner(small), Scheduler(small)
    scheduler.add([generation([i] * 60, lambda _e: None, new=20) for i in range(2)])
    batches = drain(runner, scheduler)
    assert sum(len(batch.step.tokens) for batch in batches) == 2 * 79  # nothing twice


def test_failed_and_cancelled_requests_give_their_blocks_back() -> None:
    wide = limits()
    scheduler, runner = Scheduler(wide), FakeRunner(wide)
    events, parts = list[Any](), list[Any]()
    first, second = generation([1] * 20, events.append), scoring([2] * 20, parts)
    scheduler.add([first, second])
    batch = scheduler.next()
    assert batch is not None
    run(runner, scheduler, batch)
    first.fail(RuntimeError("bad"))
    second.cancelled = True
    assert scheduler.next() is None
    assert scheduler._pool.free == wide.blocks
    assert [type(e) for e in events] == [Failed]


def test_what_can_never_run_is_refused() -> None:
    scheduler = Scheduler(limits())
    with pytest.raises(ValueError, match="there must be 1 to 64"):
        scheduler.check(scoring([], []))
    with pytest.raises(ValueError, match="65 to 65 tokens"):
        scheduler.check(scoring([1] * 65, []))
    with pytest.raises(ValueError, match="60 to 65 tokens"):
        scheduler.check(generation([1] * 60, lambda _e: None, new=5))
    with pytest.raises(ValueError, match="a cache of 3 blocks can't hold a context of 64 tokens"):
        Scheduler(limits(blocks=3))
