"""Attention over every layout of caches, and recurrent states: their meaning, and the same bits however they lie."""

from collections.abc import Mapping, Sequence
from contextlib import closing

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.layers import Layer, Mixer, Plan, chunked, mixers_of, plan_of, program_of, step_of

from sotol.backends.cpu import CpuRunner
from sotol.backends.cpu.running import sharing
from sotol.backends.cpu.running.memory import Codecs
from sotol.backends.cpu.target import Target
from sotol.backends.reference import ReferenceRunner
from sotol.program.memory import Copy, Paged
from sotol.program.program import Program
from sotol.program.step import Step
from sotol.quant import Float32Array

Outputs = dict[str, Float32Array]
DTYPES = {"f16": np.float16, "f32": np.float32}

quickly = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def outputs(
    runner: CpuRunner | ReferenceRunner, plan: Plan, chunk: int, *, slack: int | None = None, spoil: bool = False
) -> list[Outputs]:
    """Of each sequence, all its rows. spoil: what a window has left behind is overwritten with NaN before each step."""
    parts: list[dict[str, list[Float32Array]]] = [{} for _ in plan.texts]
    for spans in chunked(plan, chunk):
        step = step_of(plan, spans, slack)
        if spoil:
            spoil_behind(runner, plan, step, spans)
        results, cuts = runner.run(step), step.starts[1:-1]
        for name, rows in results.items():
            for (s, _, _), part in zip(spans, np.split(rows.reshape(len(rows), -1).copy(), cuts), strict=True):
                parts[s].setdefault(name, []).append(part)
    return [{name: np.concatenate(rows) for name, rows in part.items()} for part in parts]


def spoil_behind(
    runner: CpuRunner | ReferenceRunner, plan: Plan, step: Step, spans: Sequence[tuple[int, int, int]]
) -> None:
    """Bytes of ones are NaN in every codec."""
    for number, table in enumerate(step.tables):
        for (s, _, _), first in zip(spans, table.first.tolist(), strict=True):
            for block in plan.blocks[number][s][:first]:
                runner.write(number, block, b"\xff" * len(runner.read(number, block)))


def cpu_outputs(
    program: Program,
    plan: Plan,
    target: Target,
    *,
    chunk: int,
    threads: int = 2,
    codecs: Codecs | str = "f32",
    slack: int | None = None,
    spoil: bool = False,
) -> list[Outputs]:
    with closing(CpuRunner(program, plan.limits, threads=threads, codecs=codecs, target=target)) as runner:
        return outputs(runner, plan, chunk, slack=slack, spoil=spoil)


def check_meaning(
    got: Sequence[Outputs], program: Program, plan: Plan, *, cache: tuple[str, str] = ("f32", "f32")
) -> None:
    exact = ReferenceRunner(program, plan.limits, np.float64, (DTYPES[cache[0]], DTYPES[cache[1]]))
    for mine, want in zip(got, outputs(exact, plan, max(map(len, plan.texts))), strict=True):
        assert mine.keys() == want.keys()
        for name in mine:
            np.testing.assert_allclose(mine[name], want[name], rtol=1e-5, atol=1e-5, err_msg=name)


def same_bits(some: Sequence[Outputs], others: Sequence[Outputs]) -> None:
    for a, b in zip(some, others, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name].view(np.int32), b[name].view(np.int32), err_msg=name)


# Of shapes whose kernels other tests have compiled: 1 or 3 query heads for each of keys, 2 or 4 of values in 64s.
LAYOUTS: Mapping[str, list[Layer]] = {
    "wide keys": [Layer(3, Paged(1, 96, 32))],
    "wide values": [Layer(4, Paged(2, 16, 120))],
    "odd widths": [Layer(2, Paged(2, 20, 9, window=9), cap=5.0)],
    "values of whole tiles": [Layer(4, Paged(1, 48, 128))],
    "latent": [Layer(3, Paged(1, 48, 32, latent=True))],
    "latent, windowed": [Layer(2, Paged(2, 40, 24, window=21, latent=True))],
    "all of a latent key": [Layer(4, Paged(2, 64, 64, latent=True))],
    "chunks": [Layer(3, Paged(1, 16, 16, window=20, chunked=True)), Layer(1, Paged(1, 16, 16, window=20))],
    "the widest latent key": [Layer(3, Paged(1, 576, 512, latent=True))],
    "a shared cache": [Layer(1, Paged(1, 16, 32)), Layer(3, Paged(1, 16, 32), reads=0, cap=3.0)],
    "groups": [
        Layer(1, Paged(1, 16, 16)),
        Layer(4, Paged(2, 32, 64, window=20)),
        Layer(3, Paged(1, 16, 16, window=70)),
        Layer(1, Paged(1, 24, 16, window=20)),
    ],
}


@pytest.mark.parametrize("name", LAYOUTS)
@quickly
@given(
    seed=st.integers(0, 2**31),
    lengths=st.lists(st.integers(1, 120), min_size=1, max_size=3),
    chunk=st.sampled_from([1, 7, 32, 120]),
    slack=st.sampled_from([None, 0, 1, 3]),
    codec=st.sampled_from(["f16", "f32"]),
)
def test_every_layout_is_its_meaning_with_the_same_bits(
    target: Target, name: str, seed: int, lengths: list[int], chunk: int, slack: int | None, codec: str
) -> None:
    """Whatever the chunks, threads, blocks and the numbers of blocks that a window has left behind."""
    program = program_of(LAYOUTS[name], seed)
    rng = np.random.default_rng(seed)
    plan = plan_of(program, rng, lengths)
    whole = cpu_outputs(program, plan, target, chunk=max(lengths), threads=1, codecs=codec)
    check_meaning(whole, program, plan, cache=(codec, codec))
    elsewhere = plan_of(program, rng, lengths)._replace(texts=plan.texts)
    same_bits(
        whole,
        cpu_outputs(program, elsewhere, target, chunk=chunk, threads=5, codecs=codec, slack=slack, spoil=True),
    )


BEHIND = [
    *((window, chunk, False) for window in (1, 16, 17, 33, 64, 100) for chunk in (1, 5, 16, 24, 40)),
    *((window, chunk, True) for window, chunk in ((1, 5), (17, 1), (33, 24), (100, 40))),
]


@pytest.mark.parametrize(("window", "chunk", "chunked"), BEHIND)
def test_what_a_window_has_left_behind_is_not_read(target: Target, window: int, chunk: int, chunked: bool) -> None:
    """Its blocks are somebody else's, and hold NaN: beside a layer that sees everything, whose blocks stay."""
    layers = [Layer(3, Paged(1, 16, 24, window=window, chunked=chunked)), Layer(1, Paged(1, 16, 16))]
    program = program_of(layers, 3)
    plan = plan_of(program, np.random.default_rng(4), [170, 50])
    kept = cpu_outputs(program, plan, target, chunk=170)
    same_bits(kept, cpu_outputs(program, plan, target, chunk=chunk, slack=0, spoil=True))
    exact = ReferenceRunner(program, plan.limits)
    for mine, theirs in zip(kept, outputs(exact, plan, chunk, slack=0, spoil=True), strict=True):
        for name in mine:
            np.testing.assert_allclose(mine[name], theirs[name], rtol=1e-4, atol=1e-5)


def test_the_spoilt_blocks_would_be_seen(target: Target) -> None:
    """The proof that the tests above can fail: a block that is still seen, overwritten."""
    program = program_of([Layer(1, Paged(1, 16, 16, window=40))])
    plan = plan_of(program, np.random.default_rng(4), [60])
    with closing(CpuRunner(program, plan.limits, threads=1, codecs="f32", target=target)) as runner:
        runner.run(step_of(plan, [(0, 0, 50)]))
        runner.write(0, plan.blocks[0][0][1], b"\xff" * len(runner.read(0, 0)))  # positions 16 to 31
        after = runner.run(step_of(plan, [(0, 50, 60)], 0))["out0"]
        assert np.isnan(after[:5]).all()  # the last of them sees from 15 on


@pytest.mark.parametrize("codecs", [("f16", "f32"), ("f32", "f16")])
def test_keys_and_values_have_codecs_of_their_own(target: Target, codecs: tuple[str, str]) -> None:
    """Of all caches, or of one: then the others are as they are without it."""
    program = program_of([Layer(1, Paged(1, 16, 40)), Layer(3, Paged(1, 32, 16, window=30))], 6)
    plan = plan_of(program, np.random.default_rng(6), [90])
    plain, whole, one = (
        cpu_outputs(program, plan, target, chunk=40, codecs=c)[0]
        for c in (Codecs("f16", "f16"), Codecs(*codecs), Codecs("f16", "f16", {"kv.1": codecs}))
    )
    check_meaning([whole], program, plan, cache=codecs)
    same_bits([{"out0": one["out0"]}], [{"out0": plain["out0"]}])
    same_bits([{"out1": one["out1"]}], [{"out1": whole["out1"]}])
    for name in ("out0", "out1"):
        assert np.abs(plain[name] - whole[name]).max() > 1e-6  # the codec shows


@pytest.mark.parametrize(
    "layers",
    [
        [Layer(7, Paged(1, 16, 64)), Layer(1, Paged(1, 64, 16)), Layer(4, Paged(4, 16, 16))],
        [Layer(3, Paged(1, 16, 32)), Layer(3, Paged(1, 16, 32), reads=0), Layer(1, Paged(1, 16, 32), reads=0)],
        [Layer(3, Paged(1, 16, 16, window=300)), Layer(3, Paged(1, 16, 16)), Layer(3, Paged(1, 16, 16, window=600))],
        [Layer(3, Paged(1, 16, 16, window=300, chunked=True)), Layer(3, Paged(1, 16, 16, window=300))],
    ],
    ids=["caches of their own", "one cache", "windows", "a window and chunks of its size"],
)
def test_attentions_of_one_phase_share_out_their_spans(
    target: Target, monkeypatch: pytest.MonkeyPatch, layers: list[Layer]
) -> None:
    """Long contexts, few tokens: each layer's sums go through memory of its own, at once."""
    program = program_of(layers, 5)
    plan = plan_of(program, np.random.default_rng(5), [900, 700])
    split = cpu_outputs(program, plan, target, chunk=233, threads=5)
    check_meaning(split, program, plan)
    monkeypatch.setattr(sharing, "SPAN_ROWS", 0)
    same_bits(split, cpu_outputs(program, plan, target, chunk=233, threads=1))


def test_a_window_that_begins_where_a_span_does(target: Target) -> None:
    """Token by token past such a place: key 256 is the first that the token at 555 sees of its 300."""
    program = program_of([Layer(3, Paged(1, 16, 16, window=300))], 5)
    plan = plan_of(program, np.random.default_rng(5), [560])
    whole = cpu_outputs(program, plan, target, chunk=560)[0]["out0"]
    with closing(CpuRunner(program, plan.limits, threads=5, codecs="f32", target=target)) as runner:
        runner.run(step_of(plan, [(0, 0, 550)]))
        rows = [runner.run(step_of(plan, [(0, at, at + 1)], 0))["out0"].copy() for at in range(550, 560)]
    np.testing.assert_array_equal(np.concatenate(rows).view(np.int32), whole[550:].view(np.int32))


# ---- recurrent states


@quickly
@given(
    seed=st.integers(0, 2**31),
    width=st.sampled_from([1, 16, 40, 64, 200]),
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=4),
    chunk=st.sampled_from([1, 3, 16, 50]),
)
def test_a_moving_average_is_its_meaning_with_the_same_bits(
    target: Target, seed: int, width: int, lengths: list[int], chunk: int
) -> None:
    """Whatever the chunks, threads, company and places."""
    program, rng = program_of([], seed, state=width), np.random.default_rng(seed)
    plan = plan_of(program, rng, lengths)
    whole = cpu_outputs(program, plan, target, chunk=max(lengths), threads=1)
    check_meaning(whole, program, plan)
    elsewhere = plan_of(program, rng, lengths)._replace(texts=plan.texts)
    same_bits(whole, cpu_outputs(program, elsewhere, target, chunk=chunk, threads=5))
    alone = plan_of(program, rng, lengths[:1])._replace(texts=plan.texts[:1])
    same_bits(whole[:1], cpu_outputs(program, alone, target, chunk=chunk))


def test_position_0_begins_anew(target: Target) -> None:
    """Whatever its place held: numbers that are not finite, too."""
    program = program_of([], 1, state=40)
    plan = plan_of(program, np.random.default_rng(1), [20, 30])
    with closing(CpuRunner(program, plan.limits, threads=2, target=target)) as runner:
        fresh = outputs(runner, plan, 30)
        for block in range(plan.limits.blocks[0]):
            runner.write(0, block, b"\xff" * len(runner.read(0, block)))
        same_bits(fresh, outputs(runner, plan, 7))


def test_a_copied_state_goes_on_to_the_same_bits(target: Target) -> None:
    """In another place; and the first one is not touched by it."""
    program = program_of([], 2, state=100)
    plan = plan_of(program, np.random.default_rng(2), [33])
    with closing(CpuRunner(program, plan.limits, threads=2, target=target)) as runner:
        whole = outputs(runner, plan, 33)[0]["average"]
        runner.run(step_of(plan, [(0, 0, 12)]))
        here, there = plan.blocks[0][0][0], next(n for n in range(2) if n != plan.blocks[0][0][0])
        runner.copy([Copy(0, here, there)])
        moved = plan._replace(blocks=[[[there]]])
        for places in (moved, plan):
            rest = runner.run(step_of(places, [(0, 12, 33)]))["average"]
            np.testing.assert_array_equal(rest.view(np.int32), whole[12:].view(np.int32))


MIXERS: Mapping[str, Mixer] = {
    "a convolution": Mixer("none", 40, taps=2),
    "of one channel": Mixer("none", 1, taps=3),
    "of many channels, with SiLU": Mixer("silu", 200, taps=4),
    "of most taps": Mixer("silu", 17, taps=8),
    "a delta rule": Mixer("delta", 32, 32, 1, 1),
    "of odd widths": Mixer("delta", 20, 9, 2, 3),
    "of tiled heads": Mixer("tiled", 16, 24, 3, 2),
    "of one number": Mixer("tiled", 1, 1, 1, 1),
    "of tiled heads of odd widths": Mixer("tiled", 33, 5, 2, 2),
    "a scan": Mixer("scan", 32, 16, 1, 4),
    "of groups of odd widths": Mixer("scan", 12, 7, 3, 2),
    "of a head for each group": Mixer("scan", 5, 1, 2, 1),
}


@pytest.mark.parametrize("name", MIXERS)
@quickly
@given(
    seed=st.integers(0, 2**31),
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    chunk=st.sampled_from([1, 2, 3, 7, 16]),
)
def test_a_recurrent_layer_is_its_meaning_with_the_same_bits(
    target: Target, name: str, seed: int, lengths: list[int], chunk: int
) -> None:
    """Whatever the chunks, threads, company and places."""
    program, rng = mixers_of([MIXERS[name]], seed), np.random.default_rng(seed)
    plan = plan_of(program, rng, lengths)
    whole = cpu_outputs(program, plan, target, chunk=max(lengths), threads=1)
    check_meaning(whole, program, plan)
    elsewhere = plan_of(program, rng, lengths)._replace(texts=plan.texts)
    same_bits(whole, cpu_outputs(program, elsewhere, target, chunk=chunk, threads=5))
    alone = plan_of(program, rng, lengths[:1])._replace(texts=plan.texts[:1])
    same_bits(whole[:1], cpu_outputs(program, alone, target, chunk=chunk))


def test_recurrent_layers_begin_anew_at_position_0_and_go_on_from_copies(target: Target) -> None:
    """Whatever a place held: numbers that are not finite, too. A copied state goes on to the same bits."""
    program = mixers_of(list(MIXERS.values()), 3)
    plan = plan_of(program, np.random.default_rng(3), [33])
    with closing(CpuRunner(program, plan.limits, threads=2, target=target)) as runner:
        whole = outputs(runner, plan, 33)
        for block in range(plan.limits.blocks[0]):
            runner.write(0, block, b"\xff" * len(runner.read(0, block)))
        same_bits(whole, outputs(runner, plan, 5))
        runner.run(step_of(plan, [(0, 0, 12)]))
        here = plan.blocks[0][0][0]
        runner.copy([Copy(0, here, 1 - here)])
        for places in (plan._replace(blocks=[[[1 - here]]]), plan):
            rest = runner.run(step_of(places, [(0, 12, 33)]))
            for name, rows in rest.items():
                np.testing.assert_array_equal(rows.view(np.int32), whole[0][name][12:].view(np.int32), err_msg=name)


def test_a_state_restored_from_bytes_goes_on_to_the_same_bits(target: Target) -> None:
    program = mixers_of([MIXERS["of odd widths"], MIXERS["a scan"], MIXERS["of many channels, with SiLU"]], 4)
    plan = plan_of(program, np.random.default_rng(4), [20])
    kept = None
    for _ in range(2):
        with closing(CpuRunner(program, plan.limits, threads=1, target=target)) as runner:
            if kept is None:
                whole = outputs(runner, plan, 20)[0]
                runner.run(step_of(plan, [(0, 0, 8)]))
                kept = runner.read(0, plan.blocks[0][0][0])
            else:
                runner.write(0, plan.blocks[0][0][0], kept)
                rest = runner.run(step_of(plan, [(0, 8, 20)]))
                for name, rows in rest.items():
                    np.testing.assert_array_equal(rows.view(np.int32), whole[name][8:].view(np.int32))
