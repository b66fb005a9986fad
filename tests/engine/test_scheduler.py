"""The scheduler under all kinds of load. The runner's logits reveal a wrong block table, position or restart."""

from collections.abc import Sequence
from functools import partial
from time import monotonic
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.support.fake_runner import FULL, STATE, VOCABULARY, FakeRunner, alone, generation, scores, scoring, window

from sotol.engine import sampling as choices
from sotol.engine.options import Sampling
from sotol.engine.policy import Terms
from sotol.engine.sampling import pick
from sotol.engine.scheduler import Batch, Scheduler
from sotol.engine.sequence import Failed, Finished, Generation, Scoring, TokenText
from sotol.program.step import Limits

CONTEXT = 48  # three blocks
tokens = st.integers(0, VOCABULARY - 1)


def run(runner: FakeRunner, scheduler: Scheduler, batch: Batch, seconds: float | None = None) -> None:
    """Do what the engine does with a batch."""
    runner.copy(batch.copies)
    logits = runner.run(batch.step)["logits"]
    scheduler.advance(batch, seconds)
    for take in batch.takes:
        rows = logits[take.rows]
        if isinstance(take.sequence, Scoring) and len(rows):
            take.sequence.accept(rows)
        elif isinstance(take.sequence, Generation) and len(rows):
            choose(take.sequence, rows)


def choose(request: Generation, rows: Any) -> None:
    """The next token of a request, from its row [1, V], unless its answer is complete."""
    mask = None
    if request.decided is not None:
        request.accept(choices.take(rows[0], request.sampler, request.decided))
    elif request.matcher is not None and (mask := request.matcher.mask()) is None:
        request.complete()
    else:
        request.accept(pick(rows, [request.sampler], [mask])[0])


def drain(runner: FakeRunner, scheduler: Scheduler, most: int = 3000) -> list[Batch]:
    """Run until no work is left."""
    batches: list[Batch] = []
    while (batch := scheduler.next()) is not None:
        run(runner, scheduler, batch)
        batches.append(batch)
        assert len(batches) <= most, "no end in sight"
    return batches


def check_generation(
    events: Sequence[Any], prompt: Sequence[int], new: int, ends: Sequence[int], s: Sampling, groups: Any = FULL,
    *, ruled: bool = False,
) -> None:  # fmt: skip
    """Check that a finished generation has the same events as if it had run alone."""
    expected, reason = alone(prompt, new, ends=ends, sampling=s, groups=groups, ruled=ruled)
    *chunks, end = events
    assert [c.picked.token for c in chunks if isinstance(c, TokenText)] == expected
    assert len(chunks) == len(expected)
    assert isinstance(end, Finished)
    assert end.reason == reason
    assert 0 <= end.reused < len(prompt)


def check_scores(parts: Sequence[Any], text: Sequence[int], groups: Any = FULL) -> None:
    """Check that each row was delivered once, in order, with the right values."""
    *rows, end = parts
    assert end is None
    assert all(len(part) for part in rows)
    np.testing.assert_array_equal(np.concatenate(rows), scores(text, groups))


MODELS = {
    "full": FULL,
    "window": window(20),
    "state": STATE,
    "full and window": FULL + window(20),
    "two windows": window(7) + window(20),
    "all": FULL + window(7) + window(20) + STATE,
}


class SchedulerMachine(RuleBasedStateMachine):
    """Requests arrive, run, are cancelled and fail at any time, in pools with blocks for little more than one of them.

    Prompts often share prefixes, continue an earlier answer, or arrive several times at once.
    """

    @initialize(
        budget=st.integers(1, 40),
        sequences=st.integers(1, 5),
        rows=st.integers(1, 5),
        blocks=st.integers(3, 9),
        model=st.sampled_from(sorted(MODELS)),
        reuse=st.booleans(),
        seconds=st.sampled_from([None, None, 0.01]),
    )
    def start(
        self, budget: int, sequences: int, rows: int, blocks: int, model: str, reuse: bool, seconds: float | None
    ) -> None:
        self.groups = MODELS[model]
        self.seconds = seconds  # of each step, if they are measured: then prompts may have to wait for a step
        sizes = tuple(sequences + blocks - 3 if group.state else blocks for group in self.groups)
        self.limits = Limits(budget, sequences, min(rows, budget), CONTEXT, sizes)
        self.scheduler = Scheduler(self.limits, self.groups, reuse=reuse)
        self.runner, self.reuse = FakeRunner(self.limits, self.groups), reuse
        self.checks: list[tuple[Any, Any]] = []  # a request, and a check of its events at the end
        self.texts: list[list[int]] = [[]]  # texts that have run: later prompts may begin with one

    @rule(
        data=st.data(),
        end=st.lists(tokens, min_size=1, max_size=CONTEXT - 1),
        new=st.integers(1, CONTEXT),
        ends=st.sets(tokens, max_size=2),
        seed=st.integers(0, 9),
        temperature=st.sampled_from([0, 1]),
        answers=st.sampled_from([1, 1, 1, 3]),
        priority=st.sampled_from([0, 0, 0, 1]),
        client=st.sampled_from([None, None, "a", "b"]),
        ruled=st.sampled_from([False, True]),
        logprobs=st.sampled_from([None, None, 0]),
    )
    def generate(
        self, data: st.DataObject, end: list[int], new: int, ends: set[int], seed: int, temperature: int, answers: int,
        priority: int, client: str | None, ruled: bool, logprobs: int | None,
    ) -> None:  # fmt: skip
        prompt = self._text(data, end)[: CONTEXT - 1]
        new, requests = min(new, CONTEXT - len(prompt)), list[Any]()
        for i in range(answers):
            chosen, events = Sampling(temperature=temperature, seed=seed + i, logprobs=logprobs), list[Any]()
            terms, last = Terms(client=client, priority=priority), sorted(ends)
            request = generation(prompt, events.append, new=new, ends=last, sampling=chosen, terms=terms, ruled=ruled)
            check = partial(check_generation, events, prompt, new, last, chosen, self.groups, ruled=ruled)
            self.checks.append((request, check))
            self.scheduler.check(request)
            requests.append(request)
        self.texts.append(requests[0].tokens)  # the list will also have its generated tokens
        self.scheduler.add(requests)

    @rule(data=st.data(), end=st.lists(tokens, min_size=1, max_size=CONTEXT))
    def score(self, data: st.DataObject, end: list[int]) -> None:
        text = self._text(data, end)[:CONTEXT]
        parts = list[Any]()
        request = scoring(text, parts)
        self.checks.append((request, partial(check_scores, parts, text, self.groups)))
        self.scheduler.check(request)
        self.scheduler.add([request])

    def _text(self, data: st.DataObject, end: list[int]) -> list[int]:
        """The beginning of an earlier text, followed by new tokens."""
        known = data.draw(st.sampled_from(self.texts))
        return [*known[: data.draw(st.integers(0, len(known)))], *end]

    @precondition(lambda self: self.scheduler.active())
    @rule(count=st.integers(1, 9))
    def steps(self, count: int) -> None:
        for _ in range(count):
            batch = self.scheduler.next()
            if batch is None:
                return
            if self.seconds is None:
                self._check_shares(batch)
            run(self.runner, self.scheduler, batch, self.seconds)
            self.blocks_have_owners()

    @precondition(lambda self: self.checks)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        request, _ = self.checks.pop(data.draw(st.integers(0, len(self.checks) - 1)))
        request.cancelled = True

    @rule()
    def fail(self) -> None:
        """A step fails halfway: its requests end, and what it wrote is never used."""
        batch = self.scheduler.next()
        if batch is not None:
            self.runner.copy(batch.copies)
            self.runner.failure = RuntimeError("the step failed")
            with pytest.raises(RuntimeError):
                self.runner.run(batch.step)
            lost = [take.sequence for take in batch.takes]
            for sequence in lost:
                sequence.fail(RuntimeError("the step failed"))
            self.checks = [(request, check) for request, check in self.checks if request not in lost]

    def _check_shares(self, batch: Batch) -> None:
        """The first request of the highest priority makes progress, unless decoding ones need the whole step."""
        served = [take.sequence for take in batch.takes]
        running = list(self.scheduler._running)
        assert len(set(served)) == len(served) <= self.limits.sequences
        first = max(running, key=lambda s: s.terms.priority)  # the first of equals
        if first not in served:
            full = (
                len(batch.step.tokens) == self.limits.tokens
                or sum(len(t.sequence.rows_wanted(t.count)) for t in batch.takes) == self.limits.rows
            )
            assert full
            assert all(take.count <= max(take.sequence.new, 1) for take in batch.takes)

    @invariant()
    def blocks_have_owners(self) -> None:
        """Each block belongs to a running request or the tree, or is free: none is leaked."""
        if not hasattr(self, "scheduler"):
            return
        memory = self.scheduler.memory
        helds = [request.held for request in self.scheduler._running if request.held is not None]
        for g, load in enumerate(memory.load()):
            assert load.free + load.held + load.kept == load.blocks
            blocks = [block for held in helds for block in held.blocks[g]]
            assert load.held == len(set(blocks))
            if not self.reuse:
                assert load.kept == 0
                assert len(blocks) == len(set(blocks))
        for request in self.scheduler.active():
            if request.held is not None:
                assert request.held.length <= len(request.tokens)

    def teardown(self) -> None:
        if hasattr(self, "scheduler"):
            while (batch := self.scheduler.next()) is not None:
                run(self.runner, self.scheduler, batch, self.seconds)
            assert self.scheduler.active() == []
            assert self.scheduler.waiting == 0
            self.scheduler.memory.clear()
            assert all(load.free == load.blocks for load in self.scheduler.memory.load())
            for _, check in self.checks:
                check()


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)


def limits(*, budget: int = 16, sequences: int = 8, rows: int = 8, context: int = 64, blocks: int = 32) -> Limits:
    return Limits(budget, sequences, rows, context, (blocks,))


@pytest.mark.parametrize("blocks", [4, 5, 7])
def test_preemption_changes_nothing_that_is_generated(blocks: int) -> None:
    """Eight requests of a full context each, with memory for little more than one."""
    small = limits(blocks=blocks)
    runner, scheduler = FakeRunner(small), Scheduler(small, FULL)
    prompts = [[i] * (5 + 3 * i) for i in range(8)]
    events: list[list[Any]] = [[] for _ in prompts]
    requests = [generation(p, e.append, new=64 - len(p)) for p, e in zip(prompts, events, strict=True)]
    scheduler.add(requests)
    batches = drain(runner, scheduler)
    for prompt, got in zip(prompts, events, strict=True):
        check_generation(got, prompt, 64 - len(prompt), (), Sampling(temperature=0))
    computed = sum(len(batch.step.tokens) for batch in batches)
    needed = sum(len(request.tokens) - 1 for request in requests)
    assert computed > needed or blocks == 4  # some were preempted
    assert computed < 3 * needed


def test_a_scored_text_that_gives_way_delivers_each_row_once() -> None:
    small = limits(budget=8, rows=4, blocks=5)
    runner, scheduler = FakeRunner(small), Scheduler(small, FULL)
    events, parts, text = list[Any](), list[Any](), [i % VOCABULARY for i in range(60)]
    scheduler.add([generation([1, 2, 3], events.append, new=61), scoring(text, parts)])
    batches = drain(runner, scheduler)
    check_scores(parts, text)
    check_generation(events, [1, 2, 3], 61, (), Sampling(temperature=0))
    assert sum(len(batch.step.tokens) for batch in batches) > 63 + 60  # it was preempted


def test_prompts_do_not_hold_up_those_that_decode() -> None:
    """Each step generates a token for the running request, whatever else is submitted meanwhile."""
    wide = limits(budget=8)
    runner, scheduler = FakeRunner(wide), Scheduler(wide, FULL)
    events = list[Any]()
    scheduler.add([generation([2] * 60, lambda _e: None, new=2)])
    scheduler.add([generation([1], events.append, new=20)])
    for step in range(20):
        scheduler.add([generation([step] * 40, lambda _e: None, new=2)])
        batch = scheduler.next()
        assert batch is not None
        run(runner, scheduler, batch)
        assert len([e for e in events if isinstance(e, TokenText)]) == step + 1
        assert len(batch.step.tokens) == 1 + 8 // 4  # and prompts get a small share
    assert isinstance(events[-1], Finished)


@pytest.mark.parametrize("blocks", [4, 6, 32])
def test_equal_requests_end_in_the_order_of_their_coming(blocks: int) -> None:
    small = limits(sequences=3, blocks=blocks)
    runner, scheduler = FakeRunner(small), Scheduler(small, FULL)
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
    """Neither for a place nor for blocks: a client with nothing running starts in the next step."""
    small = limits(budget=64, blocks=blocks)
    runner, scheduler = FakeRunner(small), Scheduler(small, FULL)
    scheduler.add([generation([1] * 20, lambda _e: None, new=40) for _ in range(3000)])
    for _ in range(3):
        step(runner, scheduler)
    for prompt in ([2], [3] * 20):
        events = list[Any]()
        request = generation(prompt, events.append, new=4)
        scheduler.add([request])
        steps = 0
        while not request.done:
            assert request in [take.sequence for take in step(runner, scheduler).takes]
            steps += 1
        check_generation(events, prompt, 4, (), Sampling(temperature=0))
        assert steps <= 4 + 1  # a prompt of 20 takes two short steps
    assert len(scheduler.active()) > 2900


def test_submissions_have_equally_many_running() -> None:
    small = limits(budget=64, context=16)
    runner, scheduler = FakeRunner(small), Scheduler(small, FULL)
    for number in range(3):
        scheduler.add([generation([number], lambda _e: None, new=4 + i % 5) for i in range(200)])
    seen = [0, 0, 0]
    for i in range(60):
        tokens = [take.sequence.tokens[0] for take in step(runner, scheduler).takes]
        if i >= 20:
            seen = [n + tokens.count(number) for number, n in enumerate(seen)]
    assert sum(seen) == 8 * 40
    assert max(seen) < 1.25 * min(seen)


def test_prompts_of_submissions_share_a_step() -> None:
    """A long prompt does not keep a short one waiting; alone, it gets the whole step."""
    wide = limits(budget=16)
    runner, scheduler = FakeRunner(wide), Scheduler(wide, FULL)
    scheduler.add([generation([1] * 60, lambda _e: None, new=2), generation([1] * 60, lambda _e: None, new=2)])
    assert [take.count for take in step(runner, scheduler).takes] == [16]
    scheduler.add([scoring([2] * 60, [])])
    assert [take.count for take in step(runner, scheduler).takes] == [8, 8]
    scheduler.add([generation([3] * 2, lambda _e: None, new=2)])
    takes = [(take.sequence.tokens[0], take.count) for take in step(runner, scheduler).takes]
    assert takes == [(1, 6), (2, 7), (3, 2)]  # the short one ends, the scored text gets the rows that are left


def test_a_crowd_of_prompts_ends_one_by_one() -> None:
    """Equal shares of a few tokens would let all wait for the last. The oldest makes progress, however long it is."""
    wide = limits(budget=80, sequences=20, context=256, blocks=320)
    runner, scheduler = FakeRunner(wide), Scheduler(wide, FULL)
    oldest, *crowd = [generation([i] * (30 if i else 200), lambda _e: None, new=1) for i in range(20)]
    for request in (oldest, *crowd):
        scheduler.add([request])
    for steps in range(1, 5):
        takes = step(runner, scheduler).takes
        assert sum(take.count for take in takes) == 80
        assert oldest.held is not None
        assert oldest.held.length >= 10 * steps
    assert sum(request.done for request in crowd) >= 7
    drain(runner, scheduler)
    assert oldest.done


def test_prompts_token_by_token_are_prompts() -> None:
    """What a step of them takes says nothing of steps that only decode."""
    narrow = limits(budget=8, sequences=8, context=64, blocks=64)
    runner, scheduler = FakeRunner(narrow), Scheduler(narrow, FULL)
    noted = list[tuple[int, int]]()
    scheduler._pace.note = lambda decoding, prompts, _seconds: noted.append((decoding, prompts))  # type: ignore[assignment]
    for number in range(8):
        scheduler.add([generation([number] * 20, lambda _e: None, new=2)])
    for _ in range(2):
        batch = scheduler.next()
        assert batch is not None
        assert {take.count for take in batch.takes} == {1}
        run(runner, scheduler, batch, 0.01)
    assert noted == [(0, 8), (0, 8)]


def test_what_waits_costs_a_step_nothing() -> None:
    class Unseen(list[Any]):
        def __iter__(self) -> Any:
            raise AssertionError("somebody looks through all that wait")

    small = limits()
    runner, scheduler = FakeRunner(small), Scheduler(small, FULL)
    scheduler.add([generation([1], lambda _e: None, new=40) for _ in range(100)])
    client = scheduler._waiting.first()
    assert client is not None
    client.queue = Unseen(client.queue)
    for _ in range(50):
        step(runner, scheduler)


def test_thousands_that_are_cancelled_while_they_wait_are_passed_over() -> None:
    small = limits()
    runner, scheduler = FakeRunner(small), Scheduler(small, FULL)
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
    """Blocks that a prompt in chunked prefill still needs are not allocated to a later request."""
    small = limits(budget=40, context=96, blocks=6)
    runner, scheduler = FakeRunner(small), Scheduler(small, FULL)
    scheduler.add([generation([i] * 60, lambda _e: None, new=20) for i in range(2)])
    batches = drain(runner, scheduler)
    assert sum(len(batch.step.tokens) for batch in batches) == 2 * 79  # no token is computed twice


def test_failed_and_cancelled_requests_give_their_blocks_back() -> None:
    wide = limits()
    scheduler, runner = Scheduler(wide, FULL), FakeRunner(wide)
    events, parts = list[Any](), list[Any]()
    first, second = generation([1] * 20, events.append), scoring([2] * 20, parts)
    scheduler.add([first, second])
    batch = scheduler.next()
    assert batch is not None
    run(runner, scheduler, batch)
    first.fail(RuntimeError("bad"))
    second.cancelled = True
    assert scheduler.next() is None
    scheduler.memory.clear()
    assert [load.free for load in scheduler.memory.load()] == list(wide.blocks)
    assert [type(e) for e in events] == [Failed]


def test_what_can_never_run_is_refused() -> None:
    scheduler = Scheduler(limits(), FULL)
    with pytest.raises(ValueError, match="there must be 1 to 64"):
        scheduler.check(scoring([], []))
    with pytest.raises(ValueError, match="65 to 65 tokens"):
        scheduler.check(scoring([1] * 65, []))
    with pytest.raises(ValueError, match="60 to 65 tokens"):
        scheduler.check(generation([1] * 60, lambda _e: None, new=5))
    with pytest.raises(ValueError, match=r"\(3,\) blocks can't hold a context of 64 tokens"):
        Scheduler(limits(blocks=3), FULL)


# ---- prefix cache


def computed(batches: Sequence[Batch]) -> int:
    return sum(len(batch.step.tokens) for batch in batches)


def test_a_prompt_that_is_known_is_not_computed_again() -> None:
    small = limits(budget=64, context=96)
    runner, scheduler = FakeRunner(small), Scheduler(small, FULL)
    text, events = [i % VOCABULARY for i in range(60)], list[Any]()
    scheduler.add([generation(text, lambda _e: None, new=10)])
    drain(runner, scheduler)
    turn = [*text, *alone(text, 10)[0], 5, 6, 7]
    scheduler.add([generation(turn, events.append, new=4)])
    batches = drain(runner, scheduler)
    check_generation(events, turn, 4, (), Sampling(temperature=0))
    assert events[-1].reused == 69  # all but the last token of an answer, which never runs
    assert computed(batches) == 4 + 3


@pytest.mark.parametrize("groups", ["full", "window", "state", "all"])
def test_answers_to_one_prompt_compute_it_once(groups: str) -> None:
    """The others wait until the first has computed the prefix, and share its blocks."""
    model = MODELS[groups]
    wide = Limits(64, 16, 16, 256, tuple(64 for _ in model))
    runner, scheduler = FakeRunner(wide, model), Scheduler(wide, model)
    prompt = [i % VOCABULARY for i in range(200)]
    events: list[list[Any]] = [[] for _ in range(8)]
    samplings = [Sampling(temperature=1, seed=i) for i in range(8)]
    requests = [generation(prompt, e.append, new=9, sampling=s) for e, s in zip(events, samplings, strict=True)]
    scheduler.add(requests)
    batches = drain(runner, scheduler)
    for got, sampling in zip(events, samplings, strict=True):
        check_generation(got, prompt, 9, (), sampling, model)
    assert computed(batches) <= 200 + 7 * 16 + 8 * 8  # each but the first runs less than a block of the prompt


def test_who_waits_for_anothers_prefix_keeps_no_other_waiting() -> None:
    wide = limits(budget=16, context=256, blocks=64)
    runner, scheduler = FakeRunner(wide), Scheduler(wide, FULL)
    scheduler.add([generation([1] * 200, lambda _e: None) for _ in range(3)])
    other = generation([2] * 4, lambda _e: None)
    scheduler.add([other])
    assert other in [take.sequence for take in step(runner, scheduler).takes]


@pytest.mark.parametrize(("client", "tokens"), [(None, 512), ("a", 1 + 128)])
def test_a_named_client_is_paced_though_it_is_alone(client: str | None, tokens: int) -> None:
    """It asks for many people, who read while another's prompt runs. The prompts of one call have one reader."""
    wide = limits(budget=512, sequences=2, context=1024, blocks=128)
    scheduler, terms = Scheduler(wide, FULL), Terms(client=client)
    scheduler.add(generation(prompt, lambda _e: None, terms=terms) for prompt in ([1], [2] * 800))
    batch = scheduler.next()
    assert batch is not None
    assert len(batch.step.tokens) == tokens


def test_who_waits_for_anothers_prefix_takes_no_place() -> None:
    """All places are taken by one client, one of whose requests computes the prefix: nobody has to go for it."""
    full = limits(budget=16, sequences=3, context=256, blocks=64)
    runner, scheduler = FakeRunner(full), Scheduler(full, FULL)
    first = [generation([1] * 200, lambda _e: None), *(generation([i], lambda _e: None, new=99) for i in (2, 3))]
    scheduler.add(first)
    step(runner, scheduler)
    scheduler.add([generation([1] * 200, lambda _e: None)])
    for _ in range(5):
        step(runner, scheduler)
        assert set(scheduler._running) == set(first)


def test_who_waits_for_anothers_prefix_runs_if_that_one_is_cancelled() -> None:
    wide = limits(budget=16, context=256, blocks=64)
    runner, scheduler = FakeRunner(wide), Scheduler(wide, FULL)
    events = list[Any]()
    first, second = generation([1] * 200, lambda _e: None), generation([1] * 200, events.append)
    scheduler.add([first, second])
    step(runner, scheduler)
    first.cancelled = True
    drain(runner, scheduler)
    check_generation(events, [1] * 200, 5, (), Sampling(temperature=0))


# ---- policy


def test_a_higher_priority_comes_first_and_takes_the_place_of_a_lower_one() -> None:
    small = limits(sequences=2)
    runner, scheduler = FakeRunner(small), Scheduler(small, FULL)
    low = [generation([i], lambda _e: None, new=30) for i in range(4)]
    scheduler.add(low)
    step(runner, scheduler)
    events = list[Any]()
    high = generation([9], events.append, new=3, terms=Terms(priority=1))
    scheduler.add([high])
    for _ in range(3):
        assert high in [take.sequence for take in step(runner, scheduler).takes]
    check_generation(events, [9], 3, (), Sampling(temperature=0))
    drain(runner, scheduler)
    assert all(request.done for request in low)


def test_of_one_client_the_earlier_deadline_starts_first() -> None:
    small = limits(sequences=1)
    runner, scheduler = FakeRunner(small), Scheduler(small, FULL)
    now = monotonic()
    late = generation([1], lambda _e: None, terms=Terms(client="a", deadline=now + 2000))
    soon = generation([2], lambda _e: None, terms=Terms(client="a", deadline=now + 1000))
    scheduler.add([late])
    scheduler.add([soon])
    assert [take.sequence for take in step(runner, scheduler).takes] == [soon]


def test_a_deadline_that_passes_ends_a_request() -> None:
    small = limits(sequences=1)
    runner, scheduler = FakeRunner(small), Scheduler(small, FULL)
    running, waiting = list[Any](), list[Any]()
    first = generation([1], running.append, new=40, terms=Terms(deadline=monotonic() + 1000))
    scheduler.add([first])
    step(runner, scheduler)
    behind = generation([2], waiting.append, terms=Terms(client="a", deadline=monotonic() - 1))
    scheduler.add([generation([3], lambda _e: None, terms=Terms(client="a", priority=1)), behind])
    first.terms = Terms(deadline=monotonic() - 1)
    step(runner, scheduler)
    for events in (running, waiting):
        assert "deadline" in str(events[-1].error)


def test_requests_of_one_client_share_its_place() -> None:
    """However many calls a client makes, another client gets an equal share."""
    small = limits(budget=64, context=16)
    runner, scheduler = FakeRunner(small), Scheduler(small, FULL)
    for i in range(100):
        scheduler.add([generation([1], lambda _e: None, new=4 + i % 5, terms=Terms(client="many"))])
    scheduler.add([generation([2], lambda _e: None, new=4 + i % 5, terms=Terms(client="few")) for i in range(60)])
    seen = [0, 0]
    for i in range(30):
        tokens = [take.sequence.tokens[0] for take in step(runner, scheduler).takes]
        if i >= 10:
            seen = [seen[0] + tokens.count(1), seen[1] + tokens.count(2)]
    assert sum(seen) == 8 * 20
    assert max(seen) < 1.25 * min(seen)
    drain(runner, scheduler)
    assert not scheduler._waiting._named  # no client is remembered


def test_those_that_give_way_return_their_part_of_a_step() -> None:
    """A decoding request is preempted for an older one in the same step; its token's place goes to another."""
    small = limits(budget=3, sequences=3, rows=3, context=64, blocks=4)
    runner, scheduler = FakeRunner(small), Scheduler(small, FULL)
    requests = [generation([i] * 14, lambda _e: None, new=40) for i in range(3)]
    scheduler.add(requests)
    while (batch := scheduler.next()) is not None:
        taken = {take.sequence: take.count for take in batch.takes}
        helds = [s.held for s in scheduler._running if s.held is not None and s not in taken]
        unused = small.tokens - sum(taken.values())
        assert not unused or all(held.room == held.length for held in helds), "tokens are left, and somebody has room"
        run(runner, scheduler, batch)


def test_load_says_what_there_is() -> None:
    small = limits(sequences=2)
    runner, scheduler = FakeRunner(small), Scheduler(small, FULL)
    scheduler.add([generation([i] * 20, lambda _e: None) for i in range(5)])
    step(runner, scheduler)
    load = scheduler.load()
    assert (load.waiting, load.running) == (3, 2)
    assert load.groups[0].held == 1  # the first prompt takes the whole step
    drain(runner, scheduler)
    assert (scheduler.load().waiting, scheduler.load().running, scheduler.load().groups[0].held) == (0, 0, 0)
