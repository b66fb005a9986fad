"""Many answers: several of one prompt, those of long lists, what is known of a prompt, and on which terms they come."""

import asyncio
import math
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from tests.support.scripted import scripted
from tests.support.tiny_model import tiny_model

from sotol import LLM, QueueFullError, Sampling, SotolError, Terms
from sotol.engine import policy
from sotol.loading import Loaded, LoadOptions, load
from sotol.program.step import Step
from sotol.tokenizers.stream import StreamDecoder

PATIENCE = 20  # seconds, of what takes milliseconds
PROMPT = "the quick brown fox jumps over the lazy dog. " * 5
SHORT = Sampling(temperature=1, max_tokens=6, ignore_eos=True)
ENDLESS = Sampling(temperature=0, ignore_eos=True)
MESSAGES = [{"role": "user", "content": "hello"}]


class Watched:
    """A model whose steps are noted, and may be held up."""

    def __init__(self, loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[Step] = []
        self.gate, self.pause = Event(), 0.0
        self.gate.set()
        run = loaded.runner.run

        def watched(step: Step) -> Any:
            self.steps.append(step)
            assert self.gate.wait(PATIENCE)
            time.sleep(self.pause)
            return run(step)

        monkeypatch.setattr(loaded.runner, "run", watched)
        self.llm = LLM(loaded)

    def wait(self, steps: int) -> None:
        """Until so many have begun."""
        end = time.monotonic() + PATIENCE
        while len(self.steps) < steps:
            assert time.monotonic() < end, "nothing happened"
            time.sleep(0.001)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Watched]]:
    """A tiny model with a context of 1024 tokens, loaded with some options."""
    models: list[Watched] = []

    def make(**options: Any) -> Watched:
        path = tiny_model(tmp_path, {"llama.context_length": 1024})
        models.append(Watched(load(path, LoadOptions(threads=1, **options)), monkeypatch))
        return models[-1]

    yield make
    for made in models:
        made.gate.set()
        made.llm.close()


@pytest.fixture
def llm(model: Callable[..., Watched]) -> LLM:
    return model().llm


# ---- several answers of a prompt


def test_each_answer_is_what_its_seed_gives_alone(llm: LLM) -> None:
    answers = llm.generate(PROMPT, n=5, sampling=SHORT, seed=7)
    assert [a.seed for a in answers] == [7, 8, 9, 10, 11]
    assert [a.tokens for a in answers] == [llm.generate(PROMPT, sampling=SHORT, seed=s).tokens for s in range(7, 12)]
    assert len({a.tokens for a in answers}) == 5


def test_seeds_begin_anew_behind_the_last(llm: LLM) -> None:
    answers = llm.generate("hello", n=3, sampling=SHORT, seed=2**63 - 2)
    assert [a.seed for a in answers] == [2**63 - 2, 2**63 - 1, 0]
    assert answers[2].tokens == llm.generate("hello", sampling=SHORT, seed=0).tokens


def test_seeds_that_were_drawn_follow_each_other(llm: LLM) -> None:
    first, second = llm.generate(["hello", "hello"], n=2, sampling=SHORT)
    assert second[0].seed != first[0].seed
    for one, other in (first, second):
        assert other.seed == (one.seed + 1) % 2**63
        assert other.tokens == llm.generate("hello", sampling=SHORT, seed=other.seed).tokens


def test_n_gives_a_list(llm: LLM) -> None:
    assert [type(a).__name__ for a in llm.generate("hello", n=1, sampling=SHORT)] == ["Completion"]
    assert type(llm.generate("hello", sampling=SHORT)).__name__ == "Completion"
    both = llm.generate(["hello", "there"], n=3, sampling=SHORT, seed=1)
    assert [len(one) for one in both] == [3, 3]
    assert [a.tokens for a in both[1]] == [a.tokens for a in llm.generate("there", n=3, sampling=SHORT, seed=1)]
    assert llm.generate(list[str](), n=3) == []
    several: Any = llm.generate("hello", sampling=Sampling(n=2, max_tokens=2))
    assert len(several) == 2
    assert len(llm.generate("hello", n=3, sampling=Sampling(n=2, max_tokens=2))) == 3
    chats = llm.chat(MESSAGES, n=2, sampling=SHORT, seed=3)
    assert [a.tokens for a in chats] == [llm.chat(MESSAGES, sampling=SHORT, seed=seed).tokens for seed in (3, 4)]
    assert len(llm.chat(MESSAGES, n=1, sampling=SHORT)) == 1


def test_asyncio_gives_the_same_lists(llm: LLM) -> None:
    async def ask() -> None:
        answers = await llm.agenerate("hello", n=3, sampling=SHORT, seed=1)
        assert [a.tokens for a in answers] == [a.tokens for a in llm.generate("hello", n=3, sampling=SHORT, seed=1)]
        both = await llm.agenerate(["hello", "there"], n=2, sampling=SHORT, seed=1)
        assert [[a.seed for a in one] for one in both] == [[1, 2], [1, 2]]
        chats = await llm.achat(MESSAGES, n=2, sampling=SHORT, seed=3)
        assert [a.tokens for a in chats] == [a.tokens for a in llm.chat(MESSAGES, n=2, sampling=SHORT, seed=3)]

    asyncio.run(ask())


@pytest.mark.parametrize("n", [0, 129, -1, 1.5, True, "2"])
def test_numbers_of_answers_that_can_not_be(n: Any, llm: LLM) -> None:
    calls: list[Callable[[], object]] = [
        lambda: llm.generate("hello", n=n),
        lambda: llm.chat(MESSAGES, n=n),
        lambda: Sampling(n=n),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=rf"n is {n!r}; it must be a whole number from 1 to 128, or None"):
            call()


def test_streams_of_several_answers(llm: LLM) -> None:
    """As many streams as `n` says, which give what `generate` gives."""
    options: Any = {"max_tokens": 4, "seed": 5, "ignore_eos": True}
    wanted = llm.generate("hello", n=3, **options)
    streams = llm.stream("hello", n=3, **options)
    assert [stream.result().tokens for stream in reversed(streams)] == [one.tokens for one in reversed(wanted)]
    (single,) = llm.stream_chat(MESSAGES, n=1, sampling=Sampling(max_tokens=2, ignore_eos=True))
    assert single.result().tokens

    async def ask() -> list[str]:
        return [(await stream.result()).text for stream in llm.astream("hello", n=3, **options)]

    assert asyncio.run(ask()) == [one.text for one in wanted]


def test_answers_share_their_prompt(model: Callable[..., Watched]) -> None:
    """One computes it, the others wait for that."""
    watched = model()
    length = len(watched.llm.tokenize(PROMPT))
    answers = watched.llm.generate(PROMPT, n=8, sampling=SHORT)
    known = sorted(a.usage.cached_tokens for a in answers)
    assert known == [0, *[(length - 1) // 16 * 16] * 7]
    computed = sum(len(step.tokens) for step in watched.steps)
    assert computed == 8 * (length + len(answers[0].tokens) - 1) - sum(known)


# ---- what is known


def test_cached_tokens(llm: LLM) -> None:
    first, second = (llm.generate(PROMPT, sampling=SHORT) for _ in range(2))
    assert first.usage.cached_tokens == 0
    assert second.usage.cached_tokens == second.usage.prompt_tokens - 1  # the last one's logits are wanted
    for text in (PROMPT[:30] + "z", PROMPT[:60] + "y", "x" + PROMPT):
        assert llm.generate(text, sampling=SHORT).usage.cached_tokens == _common(llm, PROMPT, text)


def _common(llm: LLM, one: str, other: str) -> int:
    """Tokens that two texts begin with."""
    pairs = list(zip(llm.tokenize(one), llm.tokenize(other), strict=False))
    return next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))


def test_nothing_is_known_without_a_prefix_cache(model: Callable[..., Watched]) -> None:
    llm = model(prefix_cache=False).llm
    assert [llm.generate(PROMPT, sampling=SHORT).usage.cached_tokens for _ in range(2)] == [0, 0]


# ---- long lists


def test_a_long_list_runs_at_full_batch(model: Callable[..., Watched]) -> None:
    watched = model()
    prompts = [[5 + i % 40, 7] for i in range(1000)]
    answers = watched.llm.generate(prompts, sampling=Sampling(temperature=0, max_tokens=8, ignore_eos=True))
    assert [a.usage.completion_tokens for a in answers] == [8] * 1000
    sequences = [len(step.starts) - 1 for step in watched.steps]
    assert max(sequences) == 64
    assert sum(sequences) / len(sequences) > 60
    expected = watched.llm.generate(prompts[7], sampling=Sampling(temperature=0, max_tokens=8, ignore_eos=True))
    assert answers[7].tokens == expected.tokens


@pytest.mark.parametrize("n", [None, 2])
def test_progress_counts_prompts(n: int | None, llm: LLM) -> None:
    said: list[tuple[str, int, int]] = []
    prompts = ["a", "b" * 90, "c"]
    llm.generate(prompts, n=n, sampling=SHORT, progress=lambda *told: said.append(told))
    expected = [("answering prompts", done, 3) for done in range(4)]
    assert said == expected
    said.clear()
    asyncio.run(llm.agenerate(prompts, n=n, sampling=SHORT, progress=lambda *told: said.append(told)))
    assert said == expected
    said.clear()
    llm.generate("a", sampling=SHORT, progress=lambda *told: said.append(told))
    assert said == [("answering prompts", 0, 1), ("answering prompts", 1, 1)]
    said.clear()
    assert llm.generate(list[str](), progress=lambda *told: said.append(told)) == []
    assert said == []


def test_progress_is_shown(llm: LLM, capsys: pytest.CaptureFixture[str]) -> None:
    llm.generate(["a", "b"], sampling=SHORT, progress=True)
    assert capsys.readouterr().err == "sotol: answering prompts, 0 of 2\nsotol: answering prompts, 2 of 2\n"
    llm.generate(["a", "b"], sampling=SHORT)
    assert capsys.readouterr().err == ""


def test_a_progress_that_fails_ends_all(model: Callable[..., Watched]) -> None:
    watched = model()

    def fail(_what: str, done: int, _total: int) -> None:
        if done:
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        watched.llm.generate([[5] * 1023, [6]], sampling=ENDLESS, progress=fail)
    assert watched.llm.generate("hello", sampling=SHORT).tokens
    assert watched.llm.load().running == watched.llm.load().waiting == 0


def test_one_that_fails_ends_all(model: Callable[..., Watched], monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and not when those before it are done."""
    watched = model()
    made: list[StreamDecoder] = []

    class Decoder(StreamDecoder):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            made.append(self)

        def push(self, token: int) -> str:
            if made.index(self) == 1:
                raise RuntimeError("no text")
            return super().push(token)

    with monkeypatch.context() as patch:
        patch.setattr("sotol.requests.StreamDecoder", Decoder)
        with pytest.raises(RuntimeError, match="no text"):
            watched.llm.generate(["hello", "there"], sampling=ENDLESS)
    steps = len(watched.steps)
    assert watched.llm.generate("hello", sampling=SHORT).tokens
    assert len(watched.steps) < steps + 100 < 500  # the first would have run to the end of the context


# ---- terms


def test_a_deadline_that_passes(model: Callable[..., Watched]) -> None:
    watched = model()
    watched.pause = 0.02
    with pytest.raises(SotolError, match="the request was not done at its deadline"):
        watched.llm.generate(["hello", "there"], sampling=ENDLESS, terms=Terms(deadline=0.05))
    assert len(watched.steps) < 500
    assert watched.llm.generate("hello", sampling=SHORT, terms=Terms(deadline=1000)).tokens

    async def ask() -> None:
        with pytest.raises(SotolError, match="deadline"):
            await watched.llm.achat(MESSAGES, sampling=ENDLESS, terms=Terms(deadline=0.05))
        with pytest.raises(SotolError, match="deadline"):
            await watched.llm.astream("hello", sampling=ENDLESS, terms=Terms(deadline=0.05)).result()

    asyncio.run(ask())


def test_a_higher_priority_starts_first(model: Callable[..., Watched]) -> None:
    watched = model(sequences=1)
    watched.gate.clear()
    first = watched.llm.stream("hello", sampling=SHORT, terms=Terms(priority=9))
    watched.wait(1)
    low = watched.llm.stream("low", sampling=SHORT, terms=Terms("somebody"))
    high = watched.llm.stream("high", sampling=SHORT, terms=Terms("somebody", priority=5))
    watched.gate.set()
    queued = [stream.result().timings.queued for stream in (first, high, low)]
    assert queued[0] < queued[1] < queued[2]  # the low one came before the high one, and had to wait longer


def test_more_than_may_wait(model: Callable[..., Watched]) -> None:
    watched = model(sequences=1, queue=1)
    watched.gate.clear()
    running = watched.llm.stream("hello", sampling=SHORT)
    watched.wait(1)
    waiting = watched.llm.stream("hello", sampling=SHORT)
    with pytest.raises(QueueFullError, match="1 requests wait already, of at most 1: try again later"):
        watched.llm.generate("hello", sampling=SHORT)
    watched.gate.set()
    assert [stream.result().finish_reason for stream in (running, waiting)] == ["length"] * 2


def test_terms_reach_the_engine() -> None:
    assert Terms().at(5.0) == policy.Terms()
    assert Terms("me", 3, 2.5).at(10.0) == policy.Terms("me", 3, 12.5)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (Terms(priority=1.5), "priority is 1.5; it must be a whole number"),  # type: ignore[arg-type]
        (Terms(priority=None), "priority is None; it must be a whole number"),  # type: ignore[arg-type]
        (Terms(priority=2**40), "priority is 1099511627776; it must be"),
        (Terms(deadline=0), "deadline is 0; it must be a number of seconds above 0, or None"),
        (Terms(deadline=-1), "deadline is -1"),
        (Terms(deadline=math.nan), "deadline is nan"),
        (Terms(deadline=math.inf), "deadline is inf"),
        (Terms(deadline="1"), "deadline is '1'"),  # type: ignore[arg-type]
        (Terms(client=[]), "client is []; it must be hashable"),  # type: ignore[arg-type]
        ({"priority": 1}, "terms is {'priority': 1}; it must be a sotol.Terms, or None"),
        ((None, 1), "terms is (None, 1); it must be a sotol.Terms"),
    ],
)
def test_terms_that_can_not_be(terms: Any, message: str, llm: LLM) -> None:
    for call in (llm.generate, llm.stream):
        with pytest.raises(ValueError, match=re.escape(message)):
            call("hello", terms=terms)


@pytest.mark.parametrize(
    ("stop", "text", "found"),
    [
        ("never", "one two", None),
        (["never", "two"], "one ", "two"),
        (["e two", "two"], "on", "e two"),
        ("<|end|>", "one two", "<|end|>"),
        (["o<|end|>", "never"], "one tw", "o<|end|>"),
    ],
)
def test_which_stop_string_ended_it(stop: str | list[str], text: str, found: str | None) -> None:
    with scripted("one two") as llm:
        answer = llm.chat([{"role": "user", "content": "count"}], stop=stop)
        assert (answer.text, answer.finish_reason, answer.stopped_by) == (text, "stop", found)
        assert llm.chat([{"role": "user", "content": "count"}], stop=stop, max_tokens=2).stopped_by is None
