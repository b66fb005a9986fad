"""`bench/roofline.py` and its parts: what ops cost, against numbers by hand, and what is made of their times."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import pytest
from bench.costs import EXP, RULES, TANH, Cost, Setting, cost_of
from bench.limits import F32, INT8, READS, Arithmetic, Reading
from bench.roofline import Phase, Rates, label, lines_of, used
from tests.support.running import make_table
from tests.support.single_op import Inputs, ended, ids, weight

from sotol.backends.cpu.layout import QUANT_RECORD
from sotol.backends.cpu.running.lowerings import LOWERINGS
from sotol.backends.cpu.running.runner import OpTime
from sotol.formats.weights import Weight
from sotol.program import ops
from sotol.program.fuse import RULES as FUSED
from sotol.program.fuse import fuse, quantize_inputs
from sotol.program.memory import Cache, Paged, State
from sotol.program.program import Constant, Node, Op, Result, Tensor
from sotol.program.step import Step


def matrix(rows: int, columns: int, encoding: str = "F32", name: str = "w") -> Weight:
    return weight(np.ones((rows, columns), np.float32), encoding, name)


def step_of(*spans: tuple[int, int], rows: int = 1) -> Step:
    """Sequences of tokens from a position on: (first position, tokens)."""
    positions = [p for first, count in spans for p in range(first, first + count)]
    starts = np.cumsum([0, *(count for _, count in spans)])
    zeros = [0] * len(positions)
    return Step(ids(zeros), ids(positions), ids(list(starts)), (make_table([[0]] * len(spans)),), ids([0] * rows))


def node_of(x: Tensor) -> Node:
    return x.program.nodes[x.index]


STEP = step_of((0, 5))


@pytest.mark.parametrize(
    ("encoding", "size", "kind"),
    [
        ("F32", 96 * 64 * 4, "f32"),
        ("F16", 96 * 64 * 2, "f32"),
        ("Q4_1", 96 * 64 * 20 // 32, "int8"),
        ("Q8_0", 96 * 64 * 34 // 32, "int8"),
    ],
)
def test_a_linear_reads_its_weights_once(encoding: str, size: int, kind: str) -> None:
    start = Inputs()
    x = start.rows(np.ones((5, 64), np.float32), "x")
    node = node_of(ops.linear(x, matrix(96, 64, encoding)))
    activations = 5 * 64 * 4 + 5 * 96 * 4
    products = {kind: 5 * 96 * 64}
    assert cost_of(node, Setting(STEP)) == Cost(memory=size, cached=activations, **products)
    assert cost_of(node, Setting(STEP, int8=False)) == Cost(memory=size, cached=activations, f32=5 * 96 * 64)


def test_quantized_activations_are_smaller() -> None:
    start = Inputs()
    ops.linear(start.rows(np.ones((5, 64), np.float32), "x"), matrix(96, 64, "Q8_0"))
    _, quantize, linear = quantize_inputs(start.program).nodes
    records = 5 * 64 // 32 * QUANT_RECORD
    assert cost_of(quantize, Setting(STEP)).cached == 5 * 64 * 4 + 5 * 64 + records
    assert cost_of(linear, Setting(STEP)).cached == 5 * 64 + records + 5 * 96 * 4


def test_rows_with_logits_are_all_that_the_head_computes() -> None:
    start = Inputs()
    x = ops.rows(start.rows(np.ones((5, 64), np.float32), "x"), start.logit_rows)
    setting = Setting(step_of((0, 5), rows=2))
    assert cost_of(node_of(ops.linear(x, matrix(96, 64))), setting).f32 == 2 * 96 * 64
    assert cost_of(node_of(x), setting) == Cost(cached=5 * 64 * 4 + 2 * 64 * 4)


@pytest.mark.parametrize(("tokens", "read"), [(1, 2.0), (2, 8 * (1 - 0.75**2))])
def test_tokens_read_their_experts_alone(tokens: int, read: float) -> None:
    """One reads 2 of 8; two may share some. Each computes with its own."""
    start, setting = Inputs(), Setting(step_of((0, tokens)))
    none = Constant("none", np.zeros(8, np.float32))
    chosen = ops.choose_experts(start.rows(np.ones((5, 8), np.float32), "x"), none, k=2, scores="softmax")
    choice, weights = cast("tuple[Tensor, Tensor]", chosen)
    experts = weight(np.ones((8, 96, 64), np.float32), "Q8_0", "w")
    rows = ops.expert_linear(start.rows(np.ones((5, 64), np.float32), "y"), choice, experts)
    cost = cost_of(node_of(rows), setting)
    assert (cost.memory, cost.int8) == (round(read * 96 * 64 * 34 / 32), tokens * 2 * 96 * 64)
    assert cost_of(node_of(ops.combine(rows, weights)), setting).f32 == tokens * 2 * 96


def test_an_embedding_reads_the_rows_of_the_tokens() -> None:
    start = Inputs()
    node = node_of(start.rows(np.ones((7, 64), np.float32), "x"))
    assert cost_of(node, Setting(STEP)) == Cost(memory=5 * 64 * 4, cached=5 * 64 * 4, f32=2 * 5 * 64)


@pytest.mark.parametrize(
    ("spans", "window", "seen", "keys"),
    [
        ([(0, 1)], 0, 1, 1),
        ([(9, 1)], 0, 10, 10),
        ([(0, 4)], 0, 1 + 2 + 3 + 4, 4),
        ([(6, 3)], 0, 7 + 8 + 9, 9),
        ([(6, 3)], 4, 4 + 4 + 4, 6),  # keys 3 to 8
        ([(0, 6)], 4, 1 + 2 + 3 + 4 + 4 + 4, 6),
        ([(9, 1), (0, 2)], 0, 10 + 1 + 2, 10 + 2),
        ([(9, 1), (0, 2)], 3, 3 + 1 + 2, 3 + 2),
    ],
)
def test_attention_depends_on_positions(spans: Sequence[tuple[int, int]], window: int, seen: int, keys: int) -> None:
    start, step = Inputs(), step_of(*spans)
    tokens = len(step.tokens)

    def heads(count: int) -> Tensor:
        return start.rows(np.ones((1, count * 16), np.float32), f"x{count}").reshape("T", count, 16)

    k, cache = heads(2), Cache("kv.0", Paged(2, 16, 16, window))
    ops.remember(k, k, cache, start.step)
    stored = cost_of(start.program.nodes[-1], Setting(step))
    assert stored == Cost(memory=2 * 2 * 16 * 2 * tokens, cached=tokens * 16 * 4 * 2)  # f16, written
    out = ops.attention(heads(6), cache, start.step, scale=1.0)
    expected = Cost(
        memory=2 * 2 * 16 * 2 * keys,  # K and V of two heads of 16 in f16, read
        cached=tokens * 16 * 4 * (6 + 6),
        f32=6 * seen * (2 * 16 + EXP + 3),
    )
    assert cost_of(node_of(out), Setting(step)) == expected
    wide = cost_of(node_of(out), Setting(step, cache_bytes=4))
    assert wide.memory == 2 * expected.memory


@pytest.mark.parametrize(("latent", "row"), [(False, 24 + 8), (True, 24)])
def test_attention_depends_on_the_layout(latent: bool, row: int) -> None:
    """Keys of 24 channels, values of 8; a latent cache has the values in its keys."""
    start, cache = Inputs(), Cache("kv.0", Paged(2, 24, 8, latent=latent))
    q = start.rows(np.ones((1, 4 * 24), np.float32), "q").reshape("T", 4, 24)
    out = ops.attention(q, cache, start.step, scale=1.0)
    expected = Cost(memory=2 * row * 2 * 5, cached=5 * 4 * 4 * (24 + 8), f32=4 * 15 * (24 + 8 + EXP + 3))
    assert cost_of(node_of(out), Setting(STEP)) == expected
    k = start.rows(np.ones((1, 2 * 24), np.float32), "k").reshape("T", 2, 24)
    v = start.rows(np.ones((1, 2 * 8), np.float32), "v").reshape("T", 2, 8)
    if latent:
        ops.remember_latent(k, cache, start.step)
    else:
        ops.remember(k, v, cache, start.step)
    assert cost_of(start.program.nodes[-1], Setting(STEP)).memory == 2 * row * 2 * 5


def test_a_moving_average_reads_and_writes_the_state_of_each_sequence() -> None:
    start = Inputs()
    x = start.rows(np.ones((1, 64), np.float32), "x")
    decay = weight(np.ones(64, np.float32), name="decay")
    out = ops.moving_average(x, decay, Cache("state.0", State((64,))), start.step)
    step = step_of((9, 1), (0, 4), (3, 2))
    expected = Cost(memory=3 * 2 * 64 * 4, cached=2 * 7 * 64 * 4, f32=2 * 7 * 64)
    assert cost_of(node_of(out), Setting(step)) == expected


def test_a_fused_node_costs_what_its_parts_do_but_for_what_passes_between_them() -> None:
    start = Inputs()
    x, y = (start.rows(np.ones((5, 64), np.float32), name) for name in "xy")
    norm = ops.rms_norm(x, weight(np.ones(64, np.float32)), eps=1e-5)
    out = ops.linear(ops.quantize(norm), matrix(96, 64, "Q8_0"))
    residual = ops.linear(y, matrix(96, 64, "F32", "up"))
    sum_ = residual + out
    *_, first, _, last = fuse(ended(start.program)).nodes
    assert (first.op.name, last.op.name) == ("rms_norm_quantize", "linear_add")
    assert label(last) == "linear_add up F32"
    read_and_written = 5 * 64 * 4 + 5 * 64 + 5 * 64 // 32 * QUANT_RECORD
    assert cost_of(first, Setting(STEP)) == Cost(cached=read_and_written, f32=(3 + 8) * 5 * 64)
    parts = cost_of(node_of(residual), Setting(STEP)) + cost_of(node_of(sum_), Setting(STEP))
    between = 2 * 5 * 96 * 4  # written and read
    assert cost_of(last, Setting(STEP)) + Cost(cached=between) == parts


def test_capped_scores_cost_a_tanh_each() -> None:
    start = Inputs()
    q = start.rows(np.ones((1, 32), np.float32), "x").reshape("T", 2, 16)
    cache = Cache("kv.0", Paged(2, 16, 16))
    plain, capped = (
        cost_of(node_of(ops.attention(q, cache, start.step, scale=1.0, cap=cap)), Setting(STEP)) for cap in (0.0, 5.0)
    )
    assert capped.f32 - plain.f32 == 2 * (1 + 2 + 3 + 4 + 5) * (TANH + 2)


def test_elementwise_ops_count_their_numbers() -> None:
    start = Inputs()
    x = start.rows(np.ones((5, 64), np.float32), "x")
    assert cost_of(node_of(x + x), Setting(STEP)) == Cost(cached=2 * 5 * 64 * 4, f32=5 * 64)  # one input, one result
    y = start.rows(np.ones((5, 64), np.float32), "y")
    assert cost_of(node_of(x + y), Setting(STEP)) == Cost(cached=3 * 5 * 64 * 4, f32=5 * 64)
    assert cost_of(node_of(ops.glu(x, y, act="silu")), Setting(STEP)).f32 == 5 * 64 * (EXP + 4)


def test_every_op_of_the_backend_has_a_cost() -> None:
    """Fused ones that of their parts."""
    assert RULES.keys() | {rule.name for rule in FUSED} >= LOWERINGS.keys()


def test_an_op_without_a_cost_is_an_error() -> None:
    start = Inputs()
    x = start.rows(np.ones((5, 64), np.float32), "x")
    node = Node(Op("fourier", (), (), lambda: None), (x,), {}, (Result(x.shape),))
    with pytest.raises(LookupError, match=r"no cost is known for the op fourier: add a row to RULES in .*costs\.py"):
        cost_of(node, Setting(STEP))


# ---- what is made of times

RATES = Rates(memory=1e9, int8=1e6, f32=1e6)


@pytest.fixture
def phase() -> Phase:
    """Two layers of one linear, then an addition, in one run of a step."""
    start = Inputs()
    x = start.rows(np.ones((1, 64), np.float32), "x")
    for layer in range(2):
        x = ops.linear(x, matrix(64, 64, "Q8_0", f"blk.{layer}.ffn_up.weight"))
    nodes = node_of(x).inputs, (x + x).program.nodes
    made = Phase("decode", [step_of((3, 1))])
    made.runs = [[[OpTime(node, "kernel", seconds) for node in nodes[1][1:]]] for seconds in [0.5] + [2.0] * 9]
    return made


def test_lines_are_kinds_of_op_the_one_that_loses_most_first(phase: Phase) -> None:
    linear, add = lines_of(phase, RATES, int8=True)
    assert (linear.name, linear.calls, linear.bound) == ("linear ffn_up Q8_0", 2, "int8")
    assert linear.cost.int8 == 2 * 64 * 64
    assert linear.limit == pytest.approx(2 * 64 * 64 / 1e6)
    assert linear.seconds == pytest.approx(2 * 0.5)  # the fastest of ten runs
    assert linear.lost == pytest.approx(1.0 - linear.limit)
    assert (add.name, add.calls, add.bound, add.limit) == ("add", 1, "f32", 64 / 1e6)


def test_ops_count_by_the_fastest_whole_run(phase: Phase) -> None:
    nodes = [op.node for op in phase.runs[0][0]]
    times = (1.0, 2.0, 4.0), (3.0, 0.0, 5.0)  # in the slower run, an op that seems to take no time
    phase.runs = [[[OpTime(node, "kernel", x) for node, x in zip(nodes, run, strict=True)]] for run in times]
    linear, add = lines_of(phase, RATES, int8=True)
    assert sorted([linear.seconds, add.seconds]) == [1 + 2, 4]


def test_kernels_of_one_op_are_one_call(phase: Phase) -> None:
    node = phase.runs[0][0][-1].node
    phase.runs = [[[OpTime(node, "store", 0.25), OpTime(node, "attend", 0.5)]]]
    (line,) = lines_of(phase, RATES, int8=True)
    assert (line.calls, line.seconds) == (1, 0.75)


def test_memory_limits_where_it_takes_longer(phase: Phase) -> None:
    linear, _ = lines_of(phase, Rates(memory=1e5, int8=1e12, f32=1e12), int8=True)
    assert linear.bound == "memory"
    assert linear.limit == pytest.approx(2 * 64 * 64 * 34 / 32 / 1e5)


def test_a_label_names_all_matrices() -> None:
    start = Inputs()
    x = start.rows(np.ones((1, 64), np.float32), "x")
    q, k = matrix(64, 64, "Q8_0", "blk.1.attn_q.weight"), matrix(64, 64, "Q4_1", "blk.1.attn_k.weight")
    node = Node(ops.linear, (x, q, k), {}, (Result(("T", 128)),))
    assert label(node) == "linear attn_q+attn_k Q8_0 Q4_1"
    assert cost_of(node, Setting(STEP)).int8 == 2 * 5 * 64 * 64
    assert label(node_of(x + x)) == "add"


def test_the_best_way_to_read_counts() -> None:
    reads = {name: {2: float(i)} for i, name in enumerate(READS, 1)}
    assert used({**reads, F32: {2: 50.0}, INT8: {2: 300.0}}, 2) == Rates(memory=4, int8=300, f32=50)


def test_limits_of_this_machine() -> None:
    found = Reading(0).rates(2) | Arithmetic().rates(1)
    assert found.keys() >= {*READS, F32, INT8}
    assert min(found.values()) > 0
