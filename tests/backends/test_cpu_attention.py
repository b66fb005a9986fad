"""Attention over a paged cache against its meaning: ragged steps, any block tables, windows, caps, codecs."""

from collections.abc import Mapping
from contextlib import closing

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.running import make_step, make_table
from tests.support.single_op import Inputs, cpu, ended, ids, reference, weight

from sotol.backends.cpu import CpuRunner
from sotol.backends.cpu.layout import SPAN
from sotol.backends.cpu.running import sharing
from sotol.backends.cpu.target import Target
from sotol.program import ops
from sotol.program.memory import Cache, Paged
from sotol.program.program import Program
from sotol.program.step import BLOCK_TOKENS, Limits, Step
from sotol.quant import Float32Array

VOCABULARY = 40
Tables = Mapping[str, Float32Array]


def random_tables(heads: int, kv_heads: int, width: int, seed: int) -> dict[str, Float32Array]:
    """q, k and v of each token [VOCABULARY, heads, width]."""
    rng, counts = np.random.default_rng(seed), {"q": heads, "k": kv_heads, "v": kv_heads}
    return {name: rng.normal(size=(VOCABULARY, count, width)).astype(np.float32) for name, count in counts.items()}


def program_of(tables: Tables, *, window: int = 0, cap: float = 0.0, sinks: Float32Array | None = None) -> Program:
    """Attention whose q, k and v are rows of three tables, named by the token."""
    inputs = Inputs()
    q, k, v = (inputs.rows(x.reshape(VOCABULARY, -1), name).reshape("T", *x.shape[1:]) for name, x in tables.items())
    _, kv_heads, width = tables["k"].shape
    cache = Cache("kv.0", Paged(kv_heads, width, width, window))
    ops.remember(k, v, cache, inputs.step)
    if sinks is None:
        out = ops.attention(q, cache, inputs.step, scale=width**-0.5, cap=cap)
    else:
        out = ops.attention_with_sinks(q, cache, inputs.step, weight(sinks), scale=width**-0.5, cap=cap)
    out.reshape("T", tables["q"][0].size)
    return ended(inputs.program)


def attention_program(
    heads: int, kv_heads: int, width: int, seed: int, *, window: int = 0, cap: float = 0.0
) -> Program:
    """The same of random tables."""
    return program_of(random_tables(heads, kv_heads, width, seed), window=window, cap=cap)


def ragged_steps(rng: np.random.Generator, lengths: list[int], chunk: int) -> tuple[list[Step], Limits]:
    """Sequences of these lengths, fed in chunks, side by side, over shuffled blocks."""
    needed = [-(-n // BLOCK_TOKENS) for n in lengths]
    shuffled = rng.permutation(sum(needed)).tolist()
    tables = [[shuffled.pop() for _ in range(count)] for count in needed]
    texts = [rng.integers(0, VOCABULARY, n) for n in lengths]
    steps = []
    for start in range(0, max(lengths), chunk):
        active = [s for s, n in enumerate(lengths) if n > start]
        spans = [(s, start, min(start + chunk, lengths[s])) for s in active]
        tokens = np.concatenate([texts[s][a:b] for s, a, b in spans]).astype(np.int32)
        positions = np.concatenate([np.arange(a, b) for _, a, b in spans]).astype(np.int32)
        starts = ids(np.cumsum([0, *(b - a for _, a, b in spans)]).tolist())
        table = make_table([tables[s] for s in active])
        steps.append(Step(tokens, positions, starts, (table,), ids(range(len(tokens)))))
    widest = max(len(step.tokens) for step in steps)
    return steps, Limits(widest, len(lengths), widest, max(lengths), (sum(needed),))


SHAPES = st.sampled_from(
    [
        (1, 1, 16),
        (3, 1, 32),
        (4, 2, 64),
        (6, 3, 64),
        (2, 2, 80),
        (4, 1, 256),
        (1, 1, 1),
        (3, 3, 8),
        (3, 1, 100),
        (6, 3, 120),
    ]
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**31),
    shape=SHAPES,
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=4),
    chunk=st.sampled_from([1, 7, 32, 90]),
    window=st.sampled_from([0, 1, 5, 40]),
    cap=st.sampled_from([0.0, 5.0]),
    codec=st.sampled_from(["f16", "f32"]),
)
def test_equals_its_meaning(
    target: Target, seed: int, shape: tuple[int, int, int], lengths: list[int], chunk: int, window: int, cap: float,
    codec: str,
) -> None:  # fmt: skip
    program = attention_program(*shape, seed, window=window, cap=cap)
    steps, limits = ragged_steps(np.random.default_rng(seed), lengths, chunk)
    got = [cpu(program, steps, target, threads=n, codecs=codec, limits=limits) for n in (1, 2, 5)]
    want = reference(program, steps, limits, cache={"f16": "float16", "f32": "float32"}[codec]).reshape(got[0].shape)
    np.testing.assert_allclose(got[0], want, rtol=1e-5, atol=1e-5)
    for other in got[1:]:
        np.testing.assert_array_equal(got[0].view(np.int32), other.view(np.int32))


@pytest.mark.parametrize(("window", "width"), [(0, 64), (300, 64), (0, 24), (300, 100)])
def test_long_contexts_span_several_sums(target: Target, window: int, width: int) -> None:
    """1200 keys are five spans of 256: merged in order, whatever the chunks, to the same bits."""
    program = attention_program(3, 1, width, 7, window=window)
    results = []
    for chunk in (64, 600):
        steps, limits = ragged_steps(np.random.default_rng(7), [1200], chunk)
        results.append(cpu(program, steps, target, threads=2, codecs="f16", limits=limits)[-1:])
        want = reference(program, steps, limits, cache="float16").reshape(-1, 3 * width)[-1:]
        np.testing.assert_allclose(results[-1], want, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(results[0].view(np.int32), results[1].view(np.int32))


@pytest.mark.parametrize("chunk", [100, 233])
@pytest.mark.parametrize(("window", "width"), [(0, 64), (300, 64), (0, 20)])
def test_shared_out_spans_give_the_same_bits(
    target: Target, monkeypatch: pytest.MonkeyPatch, chunk: int, window: int, width: int
) -> None:
    """Sums of spans that went through memory, by any thread, against one thread's; chunks of 233 end in one token."""
    program = attention_program(7, 1, width, 7, window=window)
    steps, limits = ragged_steps(np.random.default_rng(7), [700, 530], chunk)
    split = cpu(program, steps, target, threads=5, codecs="f16", limits=limits)
    monkeypatch.setattr(sharing, "SPAN_ROWS", 0)
    whole = cpu(program, steps, target, threads=1, codecs="f16", limits=limits)
    np.testing.assert_array_equal(split.view(np.int32), whole.view(np.int32))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**31),
    shape=SHAPES,
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=4),
    chunk=st.sampled_from([1, 7, 90]),
    window=st.sampled_from([0, 1, 40]),
    size=st.sampled_from([1.0, 30.0]),
)
def test_sinks(
    target: Target, seed: int, shape: tuple[int, int, int], lengths: list[int], chunk: int, window: int, size: float
) -> None:
    """Some larger than all scores, some smaller; of every head its own."""
    sinks = size * np.random.default_rng(seed).normal(size=shape[0]).astype(np.float32)
    program = program_of(random_tables(*shape, seed), window=window, sinks=sinks)
    steps, limits = ragged_steps(np.random.default_rng(seed), lengths, chunk)
    got = [cpu(program, steps, target, threads=n, codecs="f32", limits=limits) for n in (1, 5)]
    want = reference(program, steps, limits).reshape(got[0].shape)
    np.testing.assert_allclose(got[0], want, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(got[0].view(np.int32), got[1].view(np.int32))


def test_a_sink_counts_once_however_many_spans_there_are(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one pass, in chunks, and with sums of spans that went through memory: the same bits, and the meaning's."""
    program = program_of(random_tables(6, 2, 64, 7), sinks=np.linspace(-3, 9, 6, dtype=np.float32))
    results = []
    for chunk, rows in ((900, 0), (64, 0), (233, 2048)):
        monkeypatch.setattr(sharing, "SPAN_ROWS", rows)
        steps, limits = ragged_steps(np.random.default_rng(7), [900], chunk)
        results.append(cpu(program, steps, target, threads=3, codecs="f32", limits=limits)[-1:])
        want = reference(program, steps, limits).reshape(-1, 6 * 64)[-1:]
        np.testing.assert_allclose(results[-1], want, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(results[0].view(np.int32), results[-1].view(np.int32))


@pytest.mark.parametrize(
    ("counts", "last", "split"),
    [
        ([1], [700], [3]),
        ([1], [255], [-1]),  # one span
        ([24] * 20, [511] * 20, [-1] * 20),  # enough tiles for all threads
        ([1] * 20 + [1], [200] * 20 + [8000], [-1] * 20 + [32]),  # a long context among short ones
        ([24] * 4, [80000] * 4, [-1] * 4),  # more records than there is memory for
    ],
)
def test_shares_are_each_span_of_each_tile_once(counts: list[int], last: list[int], split: list[int]) -> None:
    """split: the number of spans that a tile is split into, -1 where it stays whole."""
    shares, sums = sharing.share_out(counts, [0] * len(counts), [position // SPAN + 1 for position in last])
    want = sorted((t, span) for t, n in enumerate(split) for span in (range(n) if n > 0 else [-1]))
    assert sorted(shares) == want
    rows = [count * max(n, 0) for count, n in zip(counts, split, strict=True)]
    assert sums == [sum(rows[:t]) for t in range(len(rows))]


def test_large_scores_do_not_overflow(target: Target) -> None:
    """Scores of several hundred: the running maximum keeps e**x in range."""
    rng = np.random.default_rng(0)
    inputs = Inputs()
    q, k, v = (
        inputs.rows((rng.normal(size=(VOCABULARY, 32)) * size).astype(np.float32), name).reshape("T", 1, 32)
        for name, size in (("q", 30.0), ("k", 30.0), ("v", 1.0))
    )
    cache = Cache("kv.0", Paged(1, 32, 32))
    ops.remember(k, v, cache, inputs.step)
    ops.attention(q, cache, inputs.step, scale=1.0).reshape("T", 32)
    steps, limits = ragged_steps(rng, [80], 80)
    got = cpu(inputs.program, steps, target, codecs="f32", limits=limits)
    want = reference(inputs.program, steps, limits).reshape(got.shape)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("window", [0, 5])
@pytest.mark.parametrize("codec", ["f16", "f32"])
@pytest.mark.parametrize("part", ["k", "v"])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_stays_with_who_sees_it(
    target: Target, value: float, part: str, codec: str, window: int
) -> None:
    """Not with tokens before it in its chunk, nor beyond a window, nor beside it, nor who has its blocks next."""
    tables, bad, at = random_tables(3, 1, 24, 3), VOCABULARY - 1, 20
    tables[part][bad, 0, 7] = value
    program = program_of(tables, window=window)
    rng = np.random.default_rng(1)
    healthy, other, later = (rng.integers(0, bad, n).tolist() for n in (39, 30, 9))
    spoilt = [*healthy[:at], bad, *healthy[at:]]
    limits = Limits(80, 2, 80, 80, (6,))

    def run(runner: CpuRunner, *texts: list[int]) -> list[Float32Array]:
        step = make_step(texts, [0] * len(texts), [[2, 0, 5], [1, 4, 3]][: len(texts)], range(sum(map(len, texts))))
        return np.split(runner.run(step)["result"].copy(), step.starts[1:-1])

    def fresh(text: list[int]) -> Float32Array:
        with closing(CpuRunner(program, limits, threads=1, codecs=codec, target=target)) as runner:
            return run(runner, text)[0]

    with closing(CpuRunner(program, limits, threads=2, codecs=codec, target=target)) as runner:
        first, second = run(runner, spoilt, other)
        third = run(runner, later)[0]
    sees = [at <= i and (not window or i < at + window) for i in range(len(spoilt))]
    np.testing.assert_array_equal(np.isnan(first), np.repeat(np.array(sees)[:, None], 72, axis=1))
    np.testing.assert_array_equal(first[:at].view(np.int32), fresh(spoilt[:at]).view(np.int32))
    np.testing.assert_array_equal(second.view(np.int32), fresh(other).view(np.int32))
    np.testing.assert_array_equal(third.view(np.int32), fresh(later).view(np.int32))
    want = reference(program, [make_step([spoilt], [0], [[2, 0, 5]], range(40))], limits)
    np.testing.assert_array_equal(np.isnan(want.reshape(first.shape)), np.isnan(first))


@pytest.mark.parametrize("codec", ["f16", "f32"])
def test_numbers_beyond_the_cache_are_its_largest(target: Target, codec: str) -> None:
    """65504 in f16. The keys' large channel meets zeros of the queries: an infinity there would give NaN."""
    tables = random_tables(3, 1, 24, 4)
    tables["q"][:, :, 3] = 0
    tables["k"][::2, :, 3], tables["v"][1::3, :, 5], tables["v"][1::4, :, 6] = 1e6, -1e30, 65510
    program = program_of(tables)
    steps, limits = ragged_steps(np.random.default_rng(5), [50, 20], 16)
    got = cpu(program, steps, target, threads=2, codecs=codec, limits=limits)
    want = reference(program, steps, limits, cache={"f16": "float16", "f32": "float32"}[codec]).reshape(got.shape)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    assert np.isfinite(got).all()
