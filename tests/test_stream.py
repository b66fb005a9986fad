"""Streams: pieces as they come, and every way to stop one stops the work; many threads and tasks share one LLM."""

import asyncio
import gc
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.support.child import QUIET
from tests.support.tiny_model import tiny_model

from sotol import LLM, Sampling, SotolError
from sotol.engine.outbox import Outbox
from sotol.loading import Loaded, LoadOptions, load
from sotol.program.runner import Runner
from sotol.program.step import Step

PATIENCE = 20  # seconds, of what takes milliseconds
PROMPT = "Once upon a time"
ENDLESS = Sampling(temperature=0, ignore_eos=True)  # to the end of the context


class Steps:
    """Watches a runner: how many steps it ran, and each may be held up."""

    def __init__(self, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.gate = 0, threading.Event()
        self.gate.set()
        run = runner.run

        def watched(step: Step) -> Any:
            self.count += 1
            assert self.gate.wait(PATIENCE)
            time.sleep(0.002)  # so that few steps run while a test looks away
            return run(step)

        monkeypatch.setattr(runner, "run", watched)

    def assert_over(self) -> None:
        """The work has stopped, long before its end."""
        time.sleep(0.02)
        count = self.count
        time.sleep(0.1)
        assert self.count == count < 100


@pytest.fixture
def loaded(tmp_path: Path) -> Iterator[Loaded]:
    """A tiny model with a context of 4096 tokens."""
    with load(tiny_model(tmp_path, {"llama.context_length": 4096}), LoadOptions(threads=2)) as loaded:
        yield loaded


@pytest.fixture
def llm(loaded: Loaded) -> Iterator[LLM]:
    with LLM(loaded) as llm:
        yield llm


@pytest.fixture
def steps(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(loaded.runner, monkeypatch)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.001)


# ---- streams


def test_pieces_are_the_text(smollm2: LLM) -> None:
    stream = smollm2.stream("🎉 means", max_tokens=24, temperature=1.5, seed=4, top_k=0, logprobs=1)
    assert iter(stream) is stream
    assert stream.completion is None
    pieces = list(stream)
    assert all(pieces)
    done = stream.completion
    assert done is not None
    assert done.text == "".join(pieces)
    assert stream.result() is done
    assert next(stream, None) is None
    assert smollm2.generate("🎉 means", max_tokens=24, temperature=1.5, seed=4, top_k=0).tokens == done.tokens


def test_leaving_the_loop_stops_the_work(llm: LLM, steps: Steps) -> None:
    for i, _ in enumerate(llm.stream("hello", sampling=ENDLESS)):
        if i == 3:
            break
    steps.assert_over()


def test_closing_stops_the_work(llm: LLM, steps: Steps) -> None:
    with llm.stream("hello", sampling=ENDLESS) as stream:
        next(stream)
    steps.assert_over()
    assert list(stream) == []
    assert stream.completion is None
    with pytest.raises(ValueError, match="closed before its end"):
        stream.result()
    stream.close()


def test_closing_from_another_thread_wakes_who_waits(llm: LLM, steps: Steps) -> None:
    steps.gate.clear()
    stream, caught = llm.stream("hello", sampling=ENDLESS), list[Any]()
    waiting = threading.Thread(target=lambda: caught.extend(stream))
    waiting.start()
    until(lambda: steps.count)
    stream.close()
    waiting.join(PATIENCE)
    assert not waiting.is_alive()
    assert caught == []
    steps.gate.set()
    steps.assert_over()


@pytest.mark.parametrize("kind", ["generate", "batch", "stream", "logits"])
def test_ctrl_c_stops_the_work(llm: LLM, steps: Steps, kind: str) -> None:
    calls: dict[str, Callable[[], object]] = {
        "generate": lambda: llm.generate("hello", sampling=ENDLESS),
        "batch": lambda: llm.generate(["hello", "there"], sampling=ENDLESS),
        "stream": lambda: list(llm.stream("hello", sampling=ENDLESS)),
        "logits": lambda: llm.logits([[5] * 4000, [6] * 4000]),
    }
    steps.gate.clear()
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        until(lambda: steps.count)
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        calls[kind]()
    steps.gate.set()
    steps.assert_over()
    thread.join()
    assert llm.generate("hello", max_tokens=2, ignore_eos=True).usage.completion_tokens == 2


def test_a_failing_step_raises_in_its_callers(llm: LLM, loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_step: Step) -> Any:
        raise RuntimeError("the step failed")

    with monkeypatch.context() as patch:
        patch.setattr(loaded.runner, "run", broken)
        for call in (lambda: llm.generate("hello"), lambda: llm.generate(["a", "b"]), lambda: llm.logits([[5], [6]])):
            with pytest.raises(RuntimeError, match="the step failed"):
                call()
    assert len(llm.generate(["a", "b"], max_tokens=2)) == 2


# ---- closing and losing


def test_closing_while_a_stream_runs(llm: LLM, steps: Steps) -> None:
    stream = llm.stream("hello", sampling=ENDLESS)
    next(stream)
    llm.close()
    with pytest.raises(SotolError, match="the model is closed"):
        list(stream)
    steps.assert_over()
    for call in (lambda: llm.generate("hello"), lambda: llm.stream("hello"), lambda: llm.logits([[1]])):
        with pytest.raises(SotolError, match="the model is closed"):
            call()
    llm.close()
    assert llm.tokenize("hi")


def test_a_forgotten_model_ends_its_threads(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    loaded = load(tiny_model(tmp_path), LoadOptions(threads=2))
    llm = LLM(loaded)
    assert {t.name for t in set(threading.enumerate()) - before} >= {"sotol-engine-1"}
    llm.generate(["hello", "there"], max_tokens=3)
    llm.logits([[5]])
    asyncio.run(llm.agenerate("hello", max_tokens=3))
    seen = weakref.ref(llm), weakref.ref(loaded.runner)
    del llm, loaded
    gc.collect()
    until(lambda: set(threading.enumerate()) <= before)
    gc.collect()
    assert [ref() for ref in seen] == [None, None]


def test_a_stream_keeps_what_it_needs(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    assert len("".join(LLM(tiny_model(tmp_path), threads=2).stream("hello", max_tokens=9, ignore_eos=True))) > 0
    gc.collect()
    until(lambda: set(threading.enumerate()) <= before)


def test_a_program_ends_with_a_model_open(tmp_path: Path) -> None:
    program = (
        f"{QUIET}import sys\nfrom sotol import LLM\nllm = LLM(sys.argv[1], threads=2)\n"
        "stream = llm.stream('hello', ignore_eos=True)\nprint(repr(next(stream)))"
    )
    path = tiny_model(tmp_path, {"llama.context_length": 100_000})
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, timeout=60, check=True)
    assert done.stdout
    assert done.stderr == b""


# ---- many at once


def test_threads_share_a_model(smollm2: LLM) -> None:
    """Each gets what it gets alone, whatever the others do."""
    prompts = [PROMPT, "The sky is", "x", "def f(x):\n    return", "Roses are red", "1, 2, 3,"]
    samplings = [Sampling(temperature=i % 2, seed=i, max_tokens=6 + i) for i in range(6)]
    expected = [smollm2.generate(p, sampling=s).tokens for p, s in zip(prompts, samplings, strict=True)]
    scores = smollm2.logits([[5, 6, 7]])[0]
    found: dict[tuple[int, int], Any] = {}

    def work(worker: int) -> None:
        for i in range(worker, worker + 3):
            i %= 6
            if worker % 3 == 2 and i == 0:
                next(smollm2.stream(PROMPT))  # and is gone
            found[worker, i] = smollm2.generate(prompts[i], sampling=samplings[i]).tokens
        found[worker, -1] = (smollm2.logits([[5, 6, 7]])[0] == scores).all()

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 24
    assert all(found[key] == (expected[key[1]] if key[1] >= 0 else True) for key in found)


# ---- asyncio


def test_async_forms_give_the_same(smollm2: LLM) -> None:
    sampling = Sampling(temperature=0, max_tokens=6)
    messages = [{"role": "user", "content": "Hi"}]

    async def ask() -> None:
        one, many, chat = await asyncio.gather(
            smollm2.agenerate(PROMPT, sampling=sampling),
            smollm2.agenerate([PROMPT, "The sky is"], sampling=sampling),
            smollm2.achat(messages, sampling=sampling),
        )
        stream = smollm2.astream(PROMPT, sampling=sampling)
        assert "".join([piece async for piece in stream]) == one.text
        assert stream.completion is not None
        assert one.tokens == smollm2.generate(PROMPT, sampling=sampling).tokens == many[0].tokens
        assert [c.text for c in many] == [c.text for c in smollm2.generate([PROMPT, "The sky is"], sampling=sampling)]
        assert chat.text == smollm2.chat(messages, sampling=sampling).text
        assert await smollm2.agenerate(list[str]()) == []
        with pytest.raises(ValueError, match="unknown sampling option 'x'"):
            await smollm2.agenerate(PROMPT, x=1)  # type: ignore[call-overload]
        with pytest.raises(ValueError, match="the prompt is empty"):
            await smollm2.agenerate("")

    asyncio.run(ask())


def test_the_event_loop_runs_while_the_model_works(llm: LLM, steps: Steps) -> None:
    async def ask() -> int:
        ticks = 0
        work = asyncio.create_task(llm.agenerate("hello", max_tokens=30, ignore_eos=True))
        while not work.done():
            ticks += 1
            await asyncio.sleep(0.001)
        return ticks

    assert asyncio.run(ask()) > 10
    assert steps.count >= 30


@pytest.mark.parametrize("prompt", ["hello", ["hello", "there"]])
def test_cancelling_a_task_stops_the_work(llm: LLM, steps: Steps, prompt: Any) -> None:
    async def ask() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(llm.agenerate(prompt, sampling=ENDLESS), 0.05)
        await asyncio.to_thread(steps.assert_over)

    asyncio.run(ask())


def test_leaving_an_async_loop_stops_the_work(llm: LLM, steps: Steps) -> None:
    async def ask() -> None:
        async for _ in llm.astream("hello", sampling=ENDLESS):
            break
        await asyncio.to_thread(steps.assert_over)

    asyncio.run(ask())


def test_closing_an_async_stream_ends_its_loop(llm: LLM, steps: Steps) -> None:
    """From another task and from another thread."""

    async def ask(*, thread: bool) -> None:
        stream = llm.astream("hello", sampling=ENDLESS)
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.02)
        if thread:
            await asyncio.to_thread(stream.close)
        else:
            stream.close()
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(reading, PATIENCE)
        with pytest.raises(ValueError, match="closed before its end"):
            await stream.result()

    for thread in (False, True):
        steps.gate.clear()
        asyncio.run(ask(thread=thread))
        steps.gate.set()
    steps.assert_over()


def test_an_event_loop_that_is_closed_early_stops_the_work(llm: LLM, steps: Steps) -> None:
    kept: list[Any] = []

    async def ask() -> None:
        kept.append(llm.astream("hello", sampling=ENDLESS))
        await anext(kept[0])

    asyncio.run(ask())
    steps.assert_over()
    kept[0].close()
    assert len(llm.generate("hello", max_tokens=2, ignore_eos=True).tokens) == 2


def test_an_async_stream_needs_an_event_loop(llm: LLM) -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        llm.astream("hello")
    gc.collect()


# ---- one delivery a step


def test_a_step_reaches_an_event_loop_in_one_call(llm: LLM, steps: Steps) -> None:
    """However many of its streams the step has a token for."""
    calls: list[tuple[int, int]] = []  # the step, and what the call hands over

    async def ask() -> None:
        loop = asyncio.get_running_loop()
        call_soon = loop.call_soon_threadsafe

        def counted(callback: Any, *args: Any) -> Any:
            if args and isinstance(args[0], list):  # and not what asyncio's own threads say
                calls.append((steps.count, len(args[0])))
            return call_soon(callback, *args)

        loop.call_soon_threadsafe = counted  # type: ignore[method-assign, assignment]
        steps.gate.clear()
        streams = [llm.astream([5 + i % 40, 6], max_tokens=20, temperature=0, ignore_eos=True) for i in range(64)]
        steps.gate.set()
        heard = await asyncio.gather(*(stream.result() for stream in streams))
        for i, answer in enumerate(heard[:3]):
            alone = await asyncio.to_thread(
                llm.generate, [5 + i % 40, 6], max_tokens=20, temperature=0, ignore_eos=True
            )
            assert alone.tokens == answer.tokens
        del loop.call_soon_threadsafe

    asyncio.run(ask())
    assert sum(events for _, events in calls) == 64 * 21  # each token, and the end
    assert len({step for step, _ in calls}) == len(calls)
    assert max(events for _, events in calls) >= 64


class FakeLoop:
    """Notes what it is called for."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []
        self.closed = False

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> None:
        if self.closed:
            raise RuntimeError("Event loop is closed")
        self.calls.append(partial(callback, *args))

    def is_closed(self) -> bool:
        return self.closed


def test_an_outbox_keeps_the_order_and_tells_loops_apart() -> None:
    outbox, one, other = Outbox(), FakeLoop(), FakeLoop()
    heard: list[object] = []
    for event in range(6):
        outbox.put(one if event % 3 else other, heard.append, event)
    assert (one.calls, other.calls) == ([], [])
    outbox.flush()
    outbox.flush()
    assert (len(one.calls), len(other.calls), heard) == (1, 1, [])
    one.calls[0]()
    assert heard == [1, 2, 4, 5]
    other.calls[0]()
    assert heard == [1, 2, 4, 5, 0, 3]


def test_an_outbox_for_a_loop_that_is_closed() -> None:
    outbox, loop, other = Outbox(), FakeLoop(), FakeLoop()
    heard: list[object] = []
    outbox.put(loop, heard.append, 1)
    outbox.put(other, heard.append, 2)
    loop.closed = True
    outbox.flush()
    assert len(other.calls) == 1
    with pytest.raises(RuntimeError, match="the event loop is closed"):
        outbox.put(loop, heard.append, 3)


def test_streams_of_a_model_that_is_closed_hear_it(llm: LLM, steps: Steps) -> None:
    async def ask() -> None:
        streams = [llm.astream("hello", sampling=ENDLESS) for _ in range(5)]
        await anext(streams[0])
        await asyncio.to_thread(llm.close)
        for stream in streams:
            with pytest.raises(SotolError, match="the model is closed"):
                await asyncio.wait_for(stream.result(), PATIENCE)

    asyncio.run(ask())
    steps.assert_over()
