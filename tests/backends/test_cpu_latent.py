"""Attention over a latent cache, which holds keys alone: the bits of a cache that holds their first channels, too."""

from contextlib import closing

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.backends.test_cpu_attention import VOCABULARY, ragged_steps
from tests.support.running import make_step
from tests.support.single_op import Inputs, cpu, ended, reference

from sotol.backends.cpu import CpuRunner
from sotol.backends.cpu.running import sharing
from sotol.backends.cpu.running.memory import Codecs, block_bytes
from sotol.backends.cpu.target import Target
from sotol.errors import ModelError
from sotol.program import ops
from sotol.program.memory import Cache, Paged
from sotol.program.program import Program
from sotol.quant import Float32Array

# Query heads, key-value heads, channels of keys and of values. 7 heads are two register tiles of 4 rows.
SHAPES = [(3, 1, 40, 24), (7, 1, 96, 64), (6, 2, 20, 9)]
Shape = tuple[int, int, int, int]


def keys_and_queries(shape: Shape, seed: int) -> dict[str, Float32Array]:
    """Of each token, [VOCABULARY, heads, channels]."""
    rng = np.random.default_rng(seed)
    heads, kv_heads, key, _ = shape
    sizes = {"q": heads, "k": kv_heads}
    return {name: rng.normal(size=(VOCABULARY, n, key)).astype(np.float32) for name, n in sizes.items()}


def program_of(tables: dict[str, Float32Array], shape: Shape, *, latent: bool, window: int = 0) -> Program:
    """Attention to keys whose first channels are the values: of a latent cache, or given apart."""
    inputs, (heads, kv_heads, key, value) = Inputs(), shape
    values = {**tables, "v": np.ascontiguousarray(tables["k"][..., :value])}
    q, k, v = (inputs.rows(x.reshape(VOCABULARY, -1), name).reshape("T", *x.shape[1:]) for name, x in values.items())
    cache = Cache("kv.0", Paged(kv_heads, key, value, window, latent=latent))
    if latent:
        ops.remember_latent(k, cache, inputs.step)
    else:
        ops.remember(k, v, cache, inputs.step)
    ops.attention(q, cache, inputs.step, scale=key**-0.5).reshape("T", heads * value)
    return ended(inputs.program)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**31),
    shape=st.sampled_from(SHAPES),
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=4),
    chunk=st.sampled_from([1, 7, 90]),
    window=st.sampled_from([0, 5, 40]),
    codec=st.sampled_from(["f16", "f32"]),
)
def test_the_bits_are_those_of_values_that_are_stored(
    target: Target, seed: int, shape: Shape, lengths: list[int], chunk: int, window: int, codec: str
) -> None:
    tables = keys_and_queries(shape, seed)
    steps, limits = ragged_steps(np.random.default_rng(seed), lengths, chunk)
    latent, apart = (program_of(tables, shape, latent=latent, window=window) for latent in (True, False))
    got, same = (cpu(program, steps, target, threads=2, codecs=codec, limits=limits) for program in (latent, apart))
    np.testing.assert_array_equal(got.view(np.int32), same.view(np.int32))
    want = reference(latent, steps, limits, cache={"f16": "float16", "f32": "float32"}[codec]).reshape(got.shape)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_one_token_at_a_time_or_many(target: Target, monkeypatch: pytest.MonkeyPatch, shape: Shape) -> None:
    """The same bits of the last token, whose spans are one share each or all in one."""
    program, results = program_of(keys_and_queries(shape, 5), shape, latent=True), []
    for chunk, rows in ((600, 2048), (599, 2048), (599, 0), (24, 2048)):
        monkeypatch.setattr(sharing, "SPAN_ROWS", rows)
        steps, limits = ragged_steps(np.random.default_rng(7), [600], chunk)
        results.append(cpu(program, steps, target, threads=3, codecs="f16", limits=limits)[-1:])
        np.testing.assert_array_equal(results[0].view(np.int32), results[-1].view(np.int32))


@pytest.mark.parametrize("codec", ["f16", "f32"])
@pytest.mark.parametrize("channel", [0, 30])
@pytest.mark.parametrize("chunk", [1, 40])
@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_what_is_not_finite_stays_with_who_sees_it(
    target: Target, value: float, chunk: int, channel: int, codec: str
) -> None:
    """Not with tokens before it, nor with the sequence that has its blocks next. Channel 30 is none of the values'."""
    shape, bad, at = SHAPES[0], VOCABULARY - 1, 20
    tables = keys_and_queries(shape, 3)
    tables["k"][bad, 0, channel] = value
    program = program_of(tables, shape, latent=True)
    rng = np.random.default_rng(1)
    healthy, later = (rng.integers(0, bad, n).tolist() for n in (39, 9))
    spoilt, width = [*healthy[:at], bad, *healthy[at:]], shape[0] * shape[3]

    def run(runner: CpuRunner, text: list[int]) -> Float32Array:
        parts = [text[begin : begin + chunk] for begin in range(0, len(text), chunk)]
        steps = [make_step([part], [i * chunk], [[2, 0, 1]], range(len(part))) for i, part in enumerate(parts)]
        return np.concatenate([runner.run(step)["result"].reshape(-1, width).copy() for step in steps])

    def runner() -> CpuRunner:
        limits = ragged_steps(rng, [48], 48)[1]
        return CpuRunner(program, limits, threads=2, codecs=codec, target=target)

    with closing(runner()) as used, closing(runner()) as fresh:
        got, after = run(used, spoilt), run(used, later)
        before, alone = run(fresh, spoilt[:at]), run(fresh, later)
    assert np.isnan(got[at:]).all()
    np.testing.assert_array_equal(got[:at].view(np.int32), before.view(np.int32))
    np.testing.assert_array_equal(after.view(np.int32), alone.view(np.int32))


def test_a_block_holds_keys_alone() -> None:
    latent, apart = (Cache("kv.0", Paged(1, 576, 512, latent=latent)) for latent in (True, False))
    assert block_bytes(latent, Codecs()) == 16 * 576 * 2
    assert block_bytes(apart, Codecs()) == 16 * (576 + 512) * 2
    assert block_bytes(latent, Codecs("f32", "f16")) == 16 * 576 * 4


def test_values_wider_than_keys_are_named() -> None:
    shape = (1, 1, 16, 20)
    program = program_of(keys_and_queries(shape, 0), shape, latent=True)
    _, limits = ragged_steps(np.random.default_rng(0), [1], 1)
    with pytest.raises(ModelError, match="a latent cache has values of up to 16 channels: not 20"):
        CpuRunner(program, limits)
