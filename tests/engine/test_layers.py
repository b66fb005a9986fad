"""The engine over a program with a layer of each kind, on the CPU: every token as of the request alone.

Full, windowed and chunked attention, a layer that reads another's rows, a latent whose value is part of its key, states
of every kind of recurrent layer. A token depends on all that came before it, so one wrong row, block, position, copy or
snapshot changes an answer.
"""

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.fake_runner import Numbers
from tests.support.single_op import weight

from sotol.backends.cpu import CpuRunner
from sotol.engine.options import Sampling
from sotol.engine.policy import Terms
from sotol.engine.sampling import Sampler, pick
from sotol.engine.scheduler import Scheduler
from sotol.engine.sequence import Finished, Generation, TokenText
from sotol.engine.stops import StopMatcher
from sotol.formats.weights import Weight
from sotol.kv.sizing import pool_sizes
from sotol.program import ops
from sotol.program.memory import Cache, Paged, State, group_caches
from sotol.program.program import Program, StepInput, Tensor
from sotol.program.runner import Runner
from sotol.program.step import Limits

VOCABULARY, WIDTH, CONTEXT = 48, 32, 96


def program() -> Program:
    made, rng = Program(), np.random.default_rng(5)
    step, tokens = StepInput(made, "step"), StepInput(made, "tokens", ("T",))

    def matrix(name: str, rows: int, columns: int = WIDTH) -> Weight:
        return weight(rng.normal(size=(rows, columns)).astype(np.float32) / columns**0.5, name=name)

    def vector(name: str, size: int) -> Weight:
        return weight(rng.normal(size=size).astype(np.float32), name=name)

    def heads(x: Tensor, name: str, count: int, width: int) -> Tensor:
        return ops.linear(x, matrix(name, count * width)).reshape("T", count, width)

    def attend(x: Tensor, cache: Cache, name: str) -> Tensor:
        layout = cache.layout
        assert isinstance(layout, Paged)
        out = ops.attention(heads(x, f"{name}.q", 2, layout.key), cache, step, scale=layout.key**-0.5)
        return ops.linear(out.reshape("T", 2 * layout.value), matrix(f"{name}.o", WIDTH, 2 * layout.value))

    def norm(x: Tensor) -> Tensor:
        return ops.rms_norm(x, weight(np.ones(WIDTH, np.float32), name="norm"), eps=1e-6)

    def time_steps(x: Tensor, name: str) -> tuple[Tensor, Tensor]:
        rates = weight(-np.array([0.05, 0.1, 0.2, 0.4], np.float32), name=f"{name}.rates")
        return cast("tuple[Tensor, Tensor]", ops.time_steps(x, vector(name, 4), rates))

    full, window = Cache("kv.0", Paged(1, 16, 16)), Cache("kv.1", Paged(2, 16, 24, 20))
    chunks = Cache("kv.2", Paged(1, 16, 16, 20, chunked=True))
    latent = Cache("kv.3", Paged(1, 24, 16, latent=True))
    x = ops.embed(matrix("embed", VOCABULARY), tokens)
    for cache, name in ((full, "full"), (window, "window"), (chunks, "chunks")):
        h, layout = norm(x), cache.layout
        assert isinstance(layout, Paged)
        k, v = heads(h, f"{name}.k", layout.heads, layout.key), heads(h, f"{name}.v", layout.heads, layout.value)
        ops.remember(k, v, cache, step)
        x = x + attend(h, cache, name)
    x = x + attend(norm(x), full, "shared")
    h = norm(x)
    ops.remember_latent(heads(h, "latent.k", 1, 24), latent, step)
    x = x + attend(h, latent, "latent")
    decay = weight(rng.uniform(0.5, 1, WIDTH).astype(np.float32), name="decay")
    x = x + ops.moving_average(norm(x), decay, Cache("state.4", State((WIDTH,))), step)
    h = norm(x)  # gated DeltaNet, of 4 heads of 8 channels for 2 of keys of 8, after a convolution over 3 tokens
    mixed = ops.convolve(
        ops.linear(h, matrix("delta.in", 64)), matrix("delta.conv", 64, 3), vector("delta.bias", 64),
        Cache("convolved.5", State((2, 64))), step, act="silu",
    )  # fmt: skip
    _, left = time_steps(ops.linear(h, matrix("delta.a", 4)), "delta.dt")
    gain = ops.activate(ops.linear(h, matrix("delta.b", 4)), act="sigmoid")
    out = ops.delta_rule(mixed, left, gain, Cache("state.5", State((4, 8, 8))), step, tiled=True)
    x = x + ops.linear(out.reshape("T", 32), matrix("delta.out", WIDTH, 32))
    h = norm(x)  # Mamba-2, of 4 heads of 8 channels, in 2 groups, with 16 numbers of a state for each channel
    steps, left = time_steps(ops.linear(h, matrix("scan.dt", 4)), "scan.bias")
    mixed, state = ops.linear(h, matrix("scan.in", 96)), Cache("state.6", State((4, 16, 8)))
    out = ops.selective_scan(mixed, steps, left, vector("scan.d", 4), state, step)
    x = x + ops.linear(out.reshape("T", 32), matrix("scan.out", WIDTH, 32))
    x = norm(ops.rows(x, StepInput(made, "logit_rows", ("R",))))
    made.results = {"logits": ops.linear(x, matrix("output", VOCABULARY))}
    return made


def runner_of(tokens: int, sequences: int, step_tokens: int, states: int | None = None) -> CpuRunner:
    """With memory for so many tokens of the past, at least one context, and for so many states."""
    made = program()
    groups = group_caches(made.caches())
    blocks = pool_sizes(groups, tokens, context=CONTEXT, step_tokens=step_tokens, sequences=sequences, states=states)
    return CpuRunner(made, Limits(step_tokens, sequences, min(sequences, step_tokens), CONTEXT, blocks), threads=2)


@pytest.fixture(scope="module")
def judge() -> Iterator[CpuRunner]:
    runner = runner_of(CONTEXT, 1, CONTEXT)
    yield runner
    runner.close()


def request(prompt: list[int], new: int, seed: int, events: list[Any], priority: int = 0) -> Generation:
    sampler = Sampler(Sampling(temperature=1, seed=seed), VOCABULARY, prompt)
    terms = Terms(priority=priority)
    return Generation(
        list(prompt), sampler, Numbers(), StopMatcher(()), frozenset(), len(prompt) + new, events.append, terms
    )


def run(runner: Runner, scheduler: Scheduler) -> int:
    """One step as the engine runs it; the tokens that it computed."""
    batch = scheduler.next()
    if batch is None:
        return 0
    runner.copy(batch.copies)
    logits = runner.run(batch.step)["logits"]
    scheduler.advance(batch)
    for take in batch.takes:
        rows = logits[take.rows]
        if len(rows):
            assert take.sequence.sampler is not None
            take.sequence.accept(pick(rows, [take.sequence.sampler])[0])
    return len(batch.step.tokens)


def alone(runner: CpuRunner, prompt: list[int], new: int, seed: int) -> list[int]:
    """The answer of a request that runs by itself, in one step for its prompt, with nothing from before."""
    events: list[Any] = []
    scheduler = Scheduler(runner.limits, runner.groups, reuse=False)
    scheduler.add([request(prompt, new, seed, events)])
    while run(runner, scheduler):
        pass
    return [event.picked.token for event in events if isinstance(event, TokenText)]


ASKED = st.tuples(
    st.integers(0, 9),  # which earlier text it begins with
    st.integers(0, CONTEXT),  # and how far
    st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=40),
    st.integers(1, 20),  # new tokens
    st.integers(1, 3),  # answers
    st.integers(0, 12),  # steps before the next is asked
    st.sampled_from([None, None, None, 1, 4]),  # steps until it is cancelled
    st.sampled_from([0, 0, 1]),  # priority
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    asked=st.lists(ASKED, min_size=1, max_size=10),
    memory=st.sampled_from([CONTEXT, 2 * CONTEXT, 8 * CONTEXT]),
    sequences=st.integers(1, 5),
    step_tokens=st.sampled_from([1, 7, 16, 40]),
    reuse=st.booleans(),
    states=st.sampled_from([None, 2, 3]),
)
def test_every_token_is_that_of_the_request_alone(
    judge: CpuRunner, asked: list[Any], memory: int, sequences: int, step_tokens: int, reuse: bool,
    states: int | None,
) -> None:  # fmt: skip
    runner = runner_of(memory, sequences, step_tokens, states)
    try:
        scheduler = Scheduler(runner.limits, runner.groups, reuse=reuse)
        texts: list[list[int]] = [[]]
        made: list[tuple[list[int], int, int, list[Any], Generation]] = []
        for seed, (begin, length, end, new, answers, steps, cancel, priority) in enumerate(asked):
            prompt = [*texts[begin % len(texts)][:length], *end][: CONTEXT - 1]
            several = []
            for i in range(answers):
                events: list[Any] = []
                generation = request(prompt, min(new, CONTEXT - len(prompt)), 10 * seed + i, events, priority)
                made.append((prompt, min(new, CONTEXT - len(prompt)), 10 * seed + i, events, generation))
                several.append(generation)
            texts.append(several[0].tokens)  # a later prompt goes on where this answer is by then
            scheduler.add(several)
            for n in range(steps):
                run(runner, scheduler)
                if n == cancel:
                    several[-1].cancelled = True
        while run(runner, scheduler):
            pass
        for prompt, new, seed, events, generation in made:
            want = alone(judge, prompt, new, seed)
            got = [event.picked.token for event in events if isinstance(event, TokenText)]
            if not generation.cancelled:
                assert isinstance(events[-1], Finished)
                assert got == want
            assert got == want[: len(got)]
        scheduler.memory.clear()
        assert all(load.free == load.blocks for load in scheduler.memory.load())
    finally:
        runner.close()


def test_a_second_turn_computes_only_what_is_new() -> None:
    """But for what lies behind the last snapshot of the state: less than a block of the answer's end."""
    runner = runner_of(8 * CONTEXT, 4, 40)
    try:
        scheduler, events = Scheduler(runner.limits, runner.groups), list[Any]()
        first = request([7, *range(30)], 20, 1, events)
        scheduler.add([first])
        while run(runner, scheduler):
            pass
        again: list[Any] = []
        scheduler.add([request([*first.tokens, 3, 4, 5], 4, 2, again)])
        computed = 0
        while tokens := run(runner, scheduler):
            computed += tokens
        assert again[-1].reused == 48
        assert computed == len(first.tokens) + 3 - 48 + 3
    finally:
        runner.close()
