"""`sotol profile`: all of a step's time is told, under the right names."""

import json
from collections.abc import Iterator
from time import perf_counter
from typing import cast

import pytest
from tests.cli.conftest import Sotol

from sotol import LLM
from sotol.backends.cpu.running.runner import CpuRunner, OpTime
from sotol.cli.profile import flame, summarise
from sotol.cli.workload import decode_steps
from sotol.loading import LoadOptions, load
from sotol.program.step import Step

LAYERS = 30


@pytest.fixture(scope="module")
def runner(llm: LLM) -> Iterator[CpuRunner]:
    with load(llm.path, LoadOptions(ctx=256)) as loaded:
        yield cast(CpuRunner, loaded.runner)


@pytest.fixture(scope="module")
def step(runner: CpuRunner) -> Step:
    return decode_steps([500], 3, runner)[0]


@pytest.fixture(scope="module")
def run(runner: CpuRunner, step: Step) -> list[OpTime]:
    return runner.profile(step, perf_counter)


def timed(run: list[OpTime], seconds: list[float]) -> list[OpTime]:
    return [OpTime(op.node, op.kernel, s) for op, s in zip(run, seconds, strict=True)]


def test_every_op_is_counted_once(run: list[OpTime], step: Step) -> None:
    seconds = [float(i + 1) for i in range(len(run))]
    phase = summarise("decode", step, [timed(run, seconds)])
    for shares in (phase.ops, phase.layers):
        assert sum(share.calls for share in shares) == len(run)
        assert sum(share.seconds for share in shares) == pytest.approx(sum(seconds))
    assert sum(sum(kernels.values()) for kernels in phase.tree.values()) == pytest.approx(sum(seconds))
    assert phase.seconds == pytest.approx(sum(seconds))


def test_several_runs_are_averaged(run: list[OpTime], step: Step) -> None:
    runs = [timed(run, [x] * len(run)) for x in (1.0, 2.0, 6.0)]
    assert summarise("decode", step, runs).seconds == pytest.approx(3 * len(run))


def test_names(run: list[OpTime], step: Step) -> None:
    phase = summarise("decode", step, [run])
    calls = {share.name: share.calls for share in phase.ops}
    assert calls["linear ffn_down Q4_1"] == calls["attend"] == LAYERS
    assert calls["embed token_embd Q8_0"] == calls["linear token_embd Q8_0"] == 1
    assert [share.name for share in phase.layers] == ["embedding", *(f"layer {i}" for i in range(LAYERS)), "head"]
    assert len({share.calls for share in phase.layers[1:-2]}) == 1  # but the last, which has the choice of rows, too
    assert list(phase.tree) == ["embedding", "layers", "head"]


@pytest.mark.parametrize("width", [20, 80, 101])
def test_a_flame_is_as_wide_as_asked(width: int, run: list[OpTime], step: Step) -> None:
    lines = [line.plain for line in flame(summarise("decode", step, [run]), width)]
    assert [len(line) for line in lines] == [width] * 3
    assert lines[0].startswith("│decode ")


def test_json(sotol: Sotol) -> None:
    record = json.loads(sotol("profile", "-p", "20", "-r", "2", "--threads", "2", "--json").stdout)
    assert (record["threads"], record["repeats"]) == (2, 2)
    phases = [(phase["name"], phase["tokens"], phase["position"]) for phase in record["phases"]]
    assert phases == [("prefill", 20, 0), ("decode", 1, 20)]
    for phase in record["phases"]:
        assert sum(op["seconds"] for op in phase["ops"]) == pytest.approx(phase["seconds"])


def test_table(sotol: Sotol) -> None:
    lines = sotol("profile", "-p", "20", "-r", "1").stdout.splitlines()
    assert sum(line.startswith("linear ffn_down Q4_1") for line in lines) == 2
    assert sum(line.startswith("layer 29 ") for line in lines) == 2
    assert any(line.startswith("│prefill ") for line in lines)
