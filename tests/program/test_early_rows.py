"""`early_rows`: the same numbers from fewer rows, and nothing moved that other tokens need."""

import numpy as np
import pytest
from tests.support.checkpoints import random_checkpoint
from tests.support.running import RUNNERS, limits_for, make_step, make_table

from sotol.backends.reference import ReferenceRunner
from sotol.formats.weights import Weight
from sotol.models import ARCHITECTURES, trace_model
from sotol.program import ops
from sotol.program.early_rows import early_rows
from sotol.program.memory import Cache, Paged
from sotol.program.program import Program, StepInput, Tensor


def weight(name: str, *shape: int) -> Weight:
    values = np.random.default_rng(len(name) + sum(shape)).standard_normal(shape) / shape[-1] ** 0.5
    return Weight.from_values(name, values.astype(np.float32), "F32")


def layer(program: Program, x: Tensor, cache: Cache) -> Tensor:
    step = StepInput(program, "step")
    heads = ops.linear(x, weight("q", 8, 8)).reshape("T", 2, 4)
    ops.remember(heads, heads, cache, step)
    x = x + ops.linear(ops.attention(heads, cache, step, scale=0.5).reshape("T", 8), weight("o", 8, 8))
    gated = ops.glu(ops.linear(x, weight("gate", 16, 8)), ops.linear(x, weight("up", 16, 8)), act="silu")
    return x + ops.linear(gated, weight("down", 8, 16))


def recorded(*, twice: bool = False) -> Program:
    """Two layers and a head; twice: a second result of all that the last layer made, so that none is left out."""
    program = Program()
    x = ops.embed(weight("table", 32, 8), StepInput(program, "tokens", ("T",)))
    for i in range(2):
        x = layer(program, x, Cache(f"kv.{i}", Paged(2, 4, 4)))
    index = StepInput(program, "logit_rows", ("R",))
    program.results["logits"] = ops.linear(ops.rows(x, index), weight("head", 32, 8))
    if twice:
        program.results["again"] = ops.rows(x, index)
    return program


def names(program: Program, size: str) -> list[str]:
    return [node.op.name for node in program.nodes if node.results and node.shape[0] == size]


def test_behind_the_last_attention_there_are_only_the_wanted_rows() -> None:
    early = early_rows(recorded())
    assert names(early, "R") == ["rows", "linear", "rows", "add", "linear", "linear", "glu", "linear", "add", "linear"]
    assert [node.op.name for node in early.nodes].count("attention") == 2
    assert len(names(early, "T")) == len(names(recorded(), "T")) - 7
    assert {node.layer for node in early.nodes} == {None}


@pytest.mark.parametrize("backend", RUNNERS)
def test_results_are_the_same(backend: str) -> None:
    """To the last bit but for NumPy's matrix products, which depend on how many rows there are."""
    tokens, rng = np.random.default_rng(0).integers(0, 32, 40).tolist(), np.random.default_rng(1)
    steps, begin = [], 0
    for size in (7, 1, 1, 20, 11):  # of each some rows, in another order
        chosen = rng.permutation(size)[: rng.integers(1, size + 1)].tolist()
        steps.append(make_step([tokens[begin : begin + size]], [begin], [[0, 1, 2]], chosen))
        begin += size
    found = []
    for program in (recorded(), early_rows(recorded())):
        with RUNNERS[backend](program, limits_for(program, 48)) as runner:
            found.append([runner.run(step)["logits"].copy() for step in steps])
    for whole, early in zip(*found, strict=True):
        np.testing.assert_allclose(early, whole, rtol=0, atol=0 if backend == "cpu" else 1e-5)


def test_what_something_else_reads_stays_whole() -> None:
    program = recorded(twice=True)  # two nodes `rows`
    assert early_rows(program) is program
    nothing = Program()
    nothing.results["x"] = ops.embed(weight("table", 32, 8), StepInput(nothing, "tokens", ("T",)))
    assert early_rows(nothing) is nothing


def test_numbers_that_rows_can_not_cut_are_made_of_all_tokens() -> None:
    program = Program()
    step, index = StepInput(program, "step"), StepInput(program, "logit_rows", ("R",))
    x = ops.embed(weight("table", 32, 8), StepInput(program, "tokens", ("T",)))
    cache = Cache("kv.0", Paged(2, 4, 4))
    heads = x.reshape("T", 2, 4)
    ops.remember(heads, heads, cache, step)
    scaled = ops.scale(ops.attention(heads, cache, step, scale=1.0), factor=2.0)  # [T, 2, 4]
    program.results["x"] = ops.scale(ops.rows(scaled.reshape("T", 8), index), factor=3.0)
    early = early_rows(program)
    assert early is program


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_gives_the_same(architecture: str) -> None:
    """The wanted rows of a prompt, and of the tokens behind it."""
    rng = np.random.default_rng(2)
    tokens = [rng.integers(0, 48, size).tolist() for size in (20, 1, 6)]
    found = []
    for change in (lambda program: program, early_rows):
        program = change(trace_model(random_checkpoint(architecture), 64))
        runner = ReferenceRunner(program, limits_for(program, 64))
        begin, logits = 0, []
        for ids in tokens:
            step = make_step([ids], [begin], [[0, 1, 2, 3]], [len(ids) - 1], groups=len(runner.groups))
            tables = tuple(make_table([[0]] if group.state else [[0, 1, 2, 3]]) for group in runner.groups)
            logits.append(runner.run(step._replace(tables=tables))["logits"].copy())
            begin += len(ids)
        found.append(np.concatenate(logits))
    np.testing.assert_allclose(found[1], found[0], rtol=0, atol=1e-4 * np.abs(found[0]).max())
