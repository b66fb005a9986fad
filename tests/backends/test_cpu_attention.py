"""Attention over a paged cache against its meaning: ragged steps, any block tables, windows, caps, codecs."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.single_op import Inputs, cpu, ids, reference

from sotol.backends.cpu import runner
from sotol.backends.cpu.target import Target
from sotol.program import ops
from sotol.program.step import BLOCK_TOKENS, Limits, Step
from sotol.program.trace import Cache, Program

VOCABULARY = 40


def attention_program(heads: int, kv_heads: int, width: int, seed: int, **options: float) -> Program:
    """Attention whose q, k and v are rows of three random tables, named by the token."""
    rng = np.random.default_rng(seed)
    inputs = Inputs()

    def part(name: str, count: int) -> object:
        values = rng.normal(size=(VOCABULARY, count * width)).astype(np.float32)
        return inputs.rows(values, name).reshape("T", count, width)

    q, k, v = part("q", heads), part("k", kv_heads), part("v", kv_heads)
    ops.attention(q, k, v, Cache(0, kv_heads, width), inputs.step, scale=width**-0.5, **options).reshape(
        "T", heads * width
    )
    return inputs.program


def ragged_steps(rng: np.random.Generator, lengths: list[int], chunk: int) -> tuple[list[Step], Limits]:
    """Sequences of these lengths, fed in chunks, side by side, over shuffled blocks."""
    needed = [-(-n // BLOCK_TOKENS) for n in lengths]
    shuffled = rng.permutation(sum(needed)).tolist()
    tables = np.zeros((len(lengths), max(needed)), np.int32)
    for s, count in enumerate(needed):
        tables[s, :count] = [shuffled.pop() for _ in range(count)]
    texts = [rng.integers(0, VOCABULARY, n) for n in lengths]
    steps = []
    for start in range(0, max(lengths), chunk):
        active = [s for s, n in enumerate(lengths) if n > start]
        spans = [(s, start, min(start + chunk, lengths[s])) for s in active]
        tokens = np.concatenate([texts[s][a:b] for s, a, b in spans]).astype(np.int32)
        positions = np.concatenate([np.arange(a, b) for _, a, b in spans]).astype(np.int32)
        starts = ids(np.cumsum([0, *(b - a for _, a, b in spans)]).tolist())
        steps.append(Step(tokens, positions, starts, tables[active], ids(range(len(tokens)))))
    widest = max(len(step.tokens) for step in steps)
    return steps, Limits(widest, len(lengths), widest, max(lengths), sum(needed))


SHAPES = st.sampled_from([(1, 1, 16), (3, 1, 32), (4, 2, 64), (6, 3, 64), (2, 2, 80), (4, 1, 256)])


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
    got = [cpu(program, steps, target, threads=n, codec=codec, limits=limits) for n in (1, 2, 5)]
    want = reference(program, steps, limits, cache={"f16": "float16", "f32": "float32"}[codec]).reshape(got[0].shape)
    np.testing.assert_allclose(got[0], want, rtol=1e-5, atol=1e-5)
    for other in got[1:]:
        np.testing.assert_array_equal(got[0].view(np.int32), other.view(np.int32))


@pytest.mark.parametrize("window", [0, 300])
def test_long_contexts_span_several_sums(target: Target, window: int) -> None:
    """1200 keys are five spans of 256: merged in order, whatever the chunks, to the same bits."""
    program = attention_program(3, 1, 64, 7, window=window)
    results = []
    for chunk in (64, 600):
        steps, limits = ragged_steps(np.random.default_rng(7), [1200], chunk)
        results.append(cpu(program, steps, target, threads=2, codec="f16", limits=limits)[-1:])
        want = reference(program, steps, limits, cache="float16").reshape(-1, 192)[-1:]
        np.testing.assert_allclose(results[-1], want, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(results[0].view(np.int32), results[1].view(np.int32))


@pytest.mark.parametrize("chunk", [100, 233])
@pytest.mark.parametrize("window", [0, 300])
def test_shared_out_spans_give_the_same_bits(
    target: Target, monkeypatch: pytest.MonkeyPatch, chunk: int, window: int
) -> None:
    """Sums of spans that went through memory, by any thread, against one thread's; chunks of 233 end in one token."""
    program = attention_program(7, 1, 64, 7, window=window)
    steps, limits = ragged_steps(np.random.default_rng(7), [700, 530], chunk)
    split = cpu(program, steps, target, threads=5, codec="f16", limits=limits)
    monkeypatch.setattr(runner, "SPAN_ROWS", 0)
    whole = cpu(program, steps, target, threads=1, codec="f16", limits=limits)
    np.testing.assert_array_equal(split.view(np.int32), whole.view(np.int32))


@pytest.mark.parametrize(
    ("counts", "last", "split"),
    [
        ([1], [700], [3]),
        ([1], [255], [-1]),  # one span
        ([24] * 20, [511] * 20, [-1] * 20),  # enough tiles for all threads
        ([1] * 20 + [1], [200] * 20 + [8000], [-1] * 20 + [32]),  # a long context among short ones
        ([24] * 4, [80000] * 4, [-1] * 4),  # more sums than there is memory for
    ],
)
def test_parts_are_each_span_of_each_tile_once(counts: list[int], last: list[int], split: list[int]) -> None:
    """split: spans that a tile is shared out by, -1 where it stays whole."""
    parts, sums = runner._attention_parts(counts, last)
    want = sorted((t, span) for t, n in enumerate(split) for span in (range(n) if n > 0 else [-1]))
    assert sorted(parts) == want
    rows = [count * max(n, 0) for count, n in zip(counts, split, strict=True)]
    assert sums == [sum(rows[:t]) for t in range(len(rows))]


def test_large_scores_do_not_overflow(target: Target) -> None:
    """Scores of several hundred: the running maximum keeps e**x in range."""
    rng = np.random.default_rng(0)
    inputs = Inputs()
    parts = [
        inputs.rows((rng.normal(size=(VOCABULARY, 32)) * size).astype(np.float32), name).reshape("T", 1, 32)
        for name, size in (("q", 30.0), ("k", 30.0), ("v", 1.0))
    ]
    ops.attention(*parts, Cache(0, 1, 32), inputs.step, scale=1.0).reshape("T", 32)
    steps, limits = ragged_steps(rng, [80], 80)
    got = cpu(inputs.program, steps, target, codec="f32", limits=limits)
    want = reference(inputs.program, steps, limits).reshape(got.shape)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)
