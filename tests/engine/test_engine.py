"""The engine: failures affect only the requests concerned, cancelling stops work, and nobody waits for ever."""

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from tests.support.fake_runner import FakeRunner, alone, generation, scores

from sotol.engine.engine import Engine
from sotol.engine.options import Sampling
from sotol.engine.scheduler import Scheduler
from sotol.engine.sequence import Failed, Finished, Generation, Scoring, TokenText
from sotol.errors import ModelError, QueueFullError, SotolError
from sotol.program.step import Limits, Step

PATIENCE = 20  # seconds, of what takes milliseconds
LIMITS = Limits(tokens=16, sequences=8, rows=8, context=64, blocks=(16,))
ENDLESS = Limits(tokens=16, sequences=8, rows=8, context=2**20, blocks=(2**16,))


class Listener:
    """Collects the events of a request."""

    def __init__(self) -> None:
        self.events: SimpleQueue[Any] = SimpleQueue()
        self.deliver = self.events.put

    def wait(self) -> list[Any]:
        """All events, up to the last."""
        heard = [self.events.get(timeout=PATIENCE)]
        while not isinstance(heard[-1], Finished | Failed | None):
            heard.append(self.events.get(timeout=PATIENCE))
        return heard

    def tokens(self) -> list[int]:
        *chunks, end = self.wait()
        assert isinstance(end, Finished)
        return [chunk.picked.token for chunk in chunks]

    def error(self) -> Exception:
        end = self.wait()[-1]
        assert isinstance(end, Failed)
        return end.error


others: set[threading.Thread] = set()  # threads of models that tests share


@pytest.fixture(autouse=True)
def note_other_threads() -> None:
    others.clear()
    others.update(threading.enumerate())


@pytest.fixture
def runner() -> FakeRunner:
    return FakeRunner(LIMITS)


@pytest.fixture
def engine(runner: FakeRunner) -> Iterator[Engine]:
    engine = Engine(runner)
    yield engine
    engine.close()


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.001)


def engine_threads() -> list[threading.Thread]:
    """The threads of this test's engines."""
    return [t for t in threading.enumerate() if t.name.startswith("sotol-engine") and t not in others]


def each_its_own(fault: Exception, heard: list[Exception]) -> None:
    """Callers raise the error in their own threads: each gets its own object, all with the same message."""
    assert {(type(error), str(error)) for error in heard} == {(type(fault), str(fault))}
    assert all(error.__cause__ is fault for error in heard)
    assert len({id(error) for error in [*heard, fault]}) == len(heard) + 1


def endless(listener: Listener) -> Generation:
    return generation([1], listener.deliver, new=2**20 - 1)


def test_a_batch_gives_each_what_it_gets_alone(engine: Engine) -> None:
    prompts = [[i, i + 1, i + 2] * (1 + i % 4) for i in range(12)]
    samplings = [Sampling(temperature=i % 3, seed=i) for i in range(12)]
    listeners = [Listener() for _ in prompts]
    requests = [
        generation(p, listener.deliver, new=9, sampling=s)
        for p, listener, s in zip(prompts, listeners, samplings, strict=True)
    ]
    text = Listener()
    engine.submit([*requests, Scoring(list(range(30)), text.deliver)])
    for prompt, listener, sampling in zip(prompts, listeners, samplings, strict=True):
        assert listener.tokens() == alone(prompt, 9, sampling=sampling)[0]
    *rows, _ = text.wait()
    np.testing.assert_array_equal(np.concatenate(rows), scores(range(30)))


def test_times_add_up(engine: Engine) -> None:
    listener = Listener()
    begin = time.perf_counter()
    engine.submit([generation([1, 2], listener.deliver)])
    *_, end = listener.wait()
    t = end.timings
    assert min(t.queued, t.prefill, t.decode) >= 0
    assert t.queued + t.prefill + t.decode <= time.perf_counter() - begin + 0.1


def test_cancelling_stops_the_work() -> None:
    runner = FakeRunner(ENDLESS)
    engine, listener = Engine(runner), Listener()
    request = endless(listener)
    engine.submit([request])
    listener.events.get(timeout=PATIENCE)
    engine.cancel(request)
    until(lambda: not request.held)
    steps = runner.steps
    time.sleep(0.05)
    assert runner.steps == steps
    other = Listener()
    engine.submit([generation([1, 2], other.deliver)])
    assert other.tokens() == alone([1, 2], 5)[0]
    engine.close()


def test_cancelling_what_waits_or_is_done(engine: Engine) -> None:
    listeners = [Listener() for _ in range(30)]
    requests = [generation([i], listener.deliver) for i, listener in enumerate(listeners)]
    for request in requests[10:]:
        engine.cancel(request)
    engine.submit(requests)
    for i in range(10):
        assert listeners[i].tokens() == alone([i], 5)[0]
        engine.cancel(requests[i])
    assert all(listener.events.empty() for listener in listeners)


def test_what_is_cancelled_during_a_step_hears_no_more(runner: FakeRunner, engine: Engine) -> None:
    listeners = [Listener() for _ in range(3)]
    requests: list[Generation | Scoring] = [
        generation([1], listeners[0].deliver), Scoring([1, 2], listeners[1].deliver),
        generation([3], listeners[2].deliver),
    ]  # fmt: skip

    def cancel(_step: Step) -> None:
        for request in requests[:2]:
            engine.cancel(request)

    runner.before = cancel
    engine.submit(requests)
    assert listeners[2].tokens() == alone([3], 5)[0]
    assert all(listener.events.empty() for listener in listeners[:2])


def test_a_failing_step_fails_its_requests_alone(runner: FakeRunner, engine: Engine) -> None:
    listeners = [Listener() for _ in range(10)]  # two more than run at once
    runner.failure = failure = RuntimeError("the step failed")
    engine.submit([generation([i], listener.deliver) for i, listener in enumerate(listeners)])
    each_its_own(failure, [listener.error() for listener in listeners[:8]])
    for i in (8, 9):
        assert listeners[i].tokens() == alone([i], 5)[0]


def test_unusable_logits_fail_their_request_alone(engine: Engine) -> None:
    """Bad logits are found before any token is drawn, so the random streams of the others do not advance."""
    sampling = Sampling(temperature=1, seed=3)
    forbidding = Sampling(logit_bias=dict.fromkeys(range(32), -np.inf))
    listeners = [Listener() for _ in range(4)]
    choices = [sampling, forbidding, sampling, Sampling(temperature=0)]
    engine.submit(
        [generation([i], x.deliver, sampling=s) for i, (x, s) in enumerate(zip(listeners, choices, strict=True))]
    )
    assert isinstance(listeners[1].error(), ModelError)
    for i in (0, 2, 3):
        assert listeners[i].tokens() == alone([i], 5, sampling=choices[i])[0]


def test_a_fault_in_choosing_leaves_the_engine_running(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, listener = ZeroDivisionError("in pick"), Listener()

    def pick(*_: Any) -> Any:
        raise fault

    monkeypatch.setattr("sotol.engine.engine.pick", pick)
    engine.submit([generation([1], listener.deliver)])
    each_its_own(fault, [listener.error()])
    monkeypatch.undo()
    engine.submit([generation([1], listener.deliver)])
    assert listener.tokens() == alone([1], 5)[0]


def test_a_listener_that_is_gone_ends_its_request_alone(runner: FakeRunner, engine: Engine) -> None:
    def broken(_event: Any) -> None:
        raise RuntimeError("nobody here")

    listener = Listener()
    gone, lost = generation([1], broken, new=60), Scoring([1, 2, 3], broken)
    engine.submit([gone, lost, generation([2], listener.deliver)])
    assert listener.tokens() == alone([2], 5)[0]
    until(lambda: not gone.held)
    assert gone.done
    assert lost.done
    assert runner.steps < 10


def test_a_token_without_text_fails_its_request_alone(engine: Engine) -> None:
    class Mute:
        def push(self, token: int) -> str:
            raise ValueError(f"token id {token} is not in the vocabulary")

        def finish(self) -> str:
            return ""

    mute, listener = Listener(), Listener()
    request = generation([1], mute.deliver)
    request.decoder = Mute()
    engine.submit([request, generation([2], listener.deliver)])
    assert "is not in the vocabulary" in str(mute.error())
    assert listener.tokens() == alone([2], 5)[0]


def test_a_fault_of_the_scheduler_fails_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    fault = ZeroDivisionError("a fault")
    engine, listeners = Engine(FakeRunner(ENDLESS)), [Listener() for _ in range(12)]
    engine.submit([endless(listener) for listener in listeners])
    listeners[0].events.get(timeout=PATIENCE)

    def broken(_self: Scheduler) -> None:
        raise fault

    monkeypatch.setattr(Scheduler, "next", broken)
    each_its_own(fault, [listener.error() for listener in listeners])
    with pytest.raises(SotolError, match="no more requests: a fault"):
        engine.submit([endless(listeners[0])])
    engine.close()
    assert not engine_threads()


def test_closing_while_requests_run_and_wait() -> None:
    engine, listeners = Engine(FakeRunner(ENDLESS)), [Listener() for _ in range(12)]
    engine.submit([endless(listener) for listener in listeners])
    listeners[0].events.get(timeout=PATIENCE)
    engine.close()
    assert not engine_threads()
    for listener in listeners:
        assert str(listener.error()) == "the model is closed"
    with pytest.raises(SotolError, match="the model is closed"):
        engine.submit([endless(listeners[0])])
    engine.close()
    engine.cancel(endless(listeners[0]))


def test_what_has_ended_hears_nothing_of_the_close() -> None:
    """Not those that have finished or were cancelled, even if the scheduler has not noticed yet."""
    runner, entered, leave = FakeRunner(LIMITS), threading.Event(), threading.Event()
    listeners = [Listener() for _ in range(3)]

    def hold(_step: Step) -> None:
        entered.set()
        leave.wait(PATIENCE)

    runner.before = hold
    engine = Engine(runner)
    requests = [
        generation([1], listeners[0].deliver, new=1), generation([2], listeners[1].deliver, new=1),
        generation([3], listeners[2].deliver, new=60),
    ]  # fmt: skip
    engine.submit(requests)
    assert entered.wait(PATIENCE)
    engine.cancel(requests[1])
    closer = threading.Thread(target=engine.close)
    closer.start()
    until(lambda: engine._inbox.closed)
    leave.set()
    closer.join(PATIENCE)
    assert [type(event) for event in listeners[0].wait()] == [TokenText, Finished]
    assert str(listeners[2].error()) == "the model is closed"
    assert listeners[0].events.empty()
    assert listeners[1].events.empty()


def test_closing_by_many_threads_at_once() -> None:
    """Several threads close it while steps run: each call returns, and only once the engine's thread has ended."""
    for _ in range(20):
        engine, listener, seen = Engine(FakeRunner(ENDLESS)), Listener(), list[int]()
        engine.submit([endless(listener)])

        def close(engine: Engine = engine, seen: list[int] = seen) -> None:
            engine.close()
            seen.append(len(engine_threads()))

        closers = [threading.Thread(target=close) for _ in range(6)]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join(PATIENCE)
        assert seen == [0] * 6
        assert str(listener.error()) == "the model is closed"


def test_an_engine_is_closed_by_its_own_listener() -> None:
    """Closing on the engine's own thread does not wait for itself."""
    engine, heard = Engine(FakeRunner(ENDLESS)), SimpleQueue[Any]()

    def deliver(event: Any) -> None:
        engine.close()
        heard.put(event)

    engine.submit([generation([1], deliver, new=60)])
    assert isinstance(heard.get(timeout=PATIENCE), TokenText)
    assert isinstance(heard.get(timeout=PATIENCE), Failed)
    until(lambda: not engine_threads())


def test_requests_submitted_while_it_closes_fail_or_are_refused() -> None:
    """Whenever it happens, every request gets an answer."""
    for _ in range(20):
        engine = Engine(FakeRunner(LIMITS))
        listeners: list[Listener] = []
        ready = threading.Barrier(2, timeout=PATIENCE)

        def submit(engine: Engine = engine, heard: list[Listener] = listeners, ready: Any = ready) -> None:
            ready.wait()
            while True:
                listener = Listener()
                try:
                    engine.submit([generation([1], listener.deliver)])
                except SotolError:
                    return
                heard.append(listener)

        thread = threading.Thread(target=submit)
        thread.start()
        ready.wait()
        engine.close()
        thread.join(PATIENCE)
        assert not thread.is_alive()
        for listener in listeners:
            assert isinstance(listener.wait()[-1], Finished | Failed)


def test_closing_waits_for_the_step_that_runs() -> None:
    """After close, the caller may free the runner's memory."""
    runner, entered, leave = FakeRunner(LIMITS), threading.Event(), threading.Event()

    def hold(_step: Step) -> None:
        entered.set()
        leave.wait(PATIENCE)

    runner.before = hold
    engine, listener = Engine(runner), Listener()
    engine.submit([generation([1], listener.deliver)])
    assert entered.wait(PATIENCE)
    closer = threading.Thread(target=engine.close)
    closer.start()
    closer.join(0.05)
    assert closer.is_alive()
    leave.set()
    closer.join(PATIENCE)
    assert not closer.is_alive()
    assert not engine_threads()


@pytest.mark.parametrize("busy", [False, True])
def test_losing_an_engine_ends_its_thread_and_frees_the_runner(busy: bool) -> None:
    runner = FakeRunner(ENDLESS)
    engine, listener = Engine(runner), Listener()
    engine.submit([endless(listener) if busy else generation([1], listener.deliver)])
    listener.events.get(timeout=PATIENCE) if busy else listener.wait()
    seen = weakref.ref(runner)
    del engine, runner
    gc.collect()
    until(lambda: not engine_threads())
    assert not busy or str(listener.error()) == "the model is closed"
    gc.collect()
    assert seen() is None


def test_an_engine_lost_on_its_own_thread_ends() -> None:
    """The garbage collector may run on that thread: it must not wait for itself."""
    runner = FakeRunner(LIMITS)
    held: list[Any] = [Engine(runner)]
    engine = weakref.ref(held[0])
    runner.before = lambda _step: held.clear()
    listener = Listener()
    held[0].submit([generation([1], listener.deliver)])
    assert str(listener.error()) == "the model is closed"
    until(lambda: not engine_threads())
    assert engine() is None


def test_an_idle_engine_keeps_no_request(engine: Engine) -> None:
    """The engine must not keep a finished request alive, since its listener may reference much more."""
    listener = Listener()
    request = generation([1], listener.deliver)
    seen: list[weakref.ref[Any]] = [weakref.ref(request.sampler), weakref.ref(listener)]
    engine.submit([request])
    listener.wait()
    cancelled = generation([1], listener.deliver)
    seen.append(weakref.ref(cancelled.sampler))
    engine.cancel(cancelled)
    engine.submit([cancelled])
    del request, listener, cancelled
    until(lambda: gc.collect() >= 0 and not any(ref() for ref in seen))


def test_an_idle_engine_uses_no_cpu(engine: Engine) -> None:
    listener = Listener()
    engine.submit([generation([1], listener.deliver)])
    listener.wait()
    before = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - before < 0.1


def test_what_can_never_run_is_refused_at_once(engine: Engine) -> None:
    listener = Listener()
    good = generation([1], listener.deliver)
    with pytest.raises(ValueError, match="there must be 1 to 64"):
        engine.submit([good, generation([1] * 64, listener.deliver)])
    assert listener.events.empty()  # none of them runs
    with pytest.raises(ValueError, match="can't hold a context"):
        Engine(FakeRunner(Limits(16, 8, 8, 64, (1,))))
    assert len(engine_threads()) == 1


def test_events_come_in_order(engine: Engine) -> None:
    listener = Listener()
    engine.submit([generation([3], listener.deliver, sampling=Sampling(temperature=0, stop="7,"), new=60)])
    *chunks, end = listener.wait()
    assert all(isinstance(event, TokenText) for event in chunks)
    text = "".join(event.text for event in chunks) + end.text
    whole = "".join(f"{token}," for token in alone([3], 60)[0])
    assert text == whole.partition("7,")[0]
    assert end.reason == ("stop" if "7," in whole else "length")


def test_more_requests_than_may_wait_are_refused() -> None:
    runner, entered, leave = FakeRunner(LIMITS), threading.Event(), threading.Event()

    def hold(_step: Step) -> None:
        entered.set()
        assert leave.wait(PATIENCE)

    runner.before = hold
    engine = Engine(runner, queue=3)
    try:
        listener = Listener()
        engine.submit([generation([1], listener.deliver)])
        assert entered.wait(PATIENCE)
        waiting = Listener()
        engine.submit([generation([2], waiting.deliver), generation([3], lambda _e: None)])
        engine.submit([generation([3], lambda _e: None), generation([3], lambda _e: None)])
        with pytest.raises(QueueFullError, match="requests wait already, of at most 3"):
            engine.submit([generation([4], lambda _e: None), generation([4], lambda _e: None)])
        runner.before = lambda _step: None
        leave.set()
        assert listener.tokens() == alone([1], 5)[0]
        assert waiting.tokens() == alone([2], 5)[0]
        until(lambda: engine.load().running == engine.load().waiting == 0)
        engine.submit([generation([4], lambda _e: None)] * 1)
    finally:
        leave.set()
        engine.close()
