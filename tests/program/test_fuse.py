"""Rewrites of programs: the original and the rewritten form give the same results on the reference backend."""

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.checkpoints import is_matrix, random_checkpoint
from tests.support.running import limits_for, make_step, run_text
from tests.support.single_op import Inputs, ended, reference, single_step

from sotol.arrays import Array
from sotol.backends.reference import ReferenceRunner
from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint, Weight
from sotol.models import trace_model
from sotol.program import ops
from sotol.program.fuse import RULES, Rule, Uses, chain, fuse, quantize_inputs, reorder_inputs
from sotol.program.memory import Cache, State
from sotol.program.program import INNER, Constant, Op, Program, Tensor, op
from sotol.quant import Float32Array


def values(*shape: int, seed: int = 0) -> Float32Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def matrix(name: str, encoding: str, seed: int) -> Weight:
    return Weight.from_values(name, values(64, 64, seed=seed), encoding)


@pytest.mark.parametrize("encoding", ["Q8_0", "Q4_1"])
def test_a_linear_with_integer_weights_gets_quantized_inputs(encoding: str) -> None:
    start = Inputs()
    weight = matrix("w", encoding, 1)
    ops.linear(start.rows(values(5, 64), "x"), weight)
    fused = quantize_inputs(start.program)
    assert [node.op.name for node in fused.nodes] == ["embed", "quantize", "linear"]
    by_hand = ops.linear(ops.quantize(values(5, 64).astype(np.float64)), weight.decode().astype(np.float64))
    np.testing.assert_array_equal(reference(fused, [single_step(5)]), by_hand)
    exact = reference(start.program, [single_step(5)])
    assert 0 < np.abs(by_hand - exact).max() < 0.05 * np.abs(exact).max()  # another arithmetic, but close


@pytest.mark.parametrize("encoding", ["F32", "F16", "BF16"])
def test_a_linear_with_float_weights_stays(encoding: str) -> None:
    start = Inputs()
    ops.linear(start.rows(values(5, 64), "x"), matrix("w", encoding, 1))
    fused = quantize_inputs(start.program)
    assert [node.op.name for node in fused.nodes] == ["embed", "linear"]
    np.testing.assert_array_equal(reference(fused, [single_step(5)]), reference(start.program, [single_step(5)]))


def ordered(name: str, seed: int, order: int) -> Weight:
    """A weight whose inputs lie in an order of their own."""
    return replace(matrix(name, "Q8_0", seed), order=np.random.default_rng(order).permutation(64).astype(np.int32))


def test_inputs_go_into_the_order_of_their_weights() -> None:
    """Weights of one order share what does it; the others' inputs stay as they are."""
    start = Inputs()
    weights = [ordered("q", 1, 7), ordered("k", 2, 7), ordered("v", 3, 8), matrix("o", "Q8_0", 4)]
    x = start.rows(values(5, 64), "x")
    total = ops.linear(x, weights[0])
    for weight in weights[1:]:
        total = total + ops.linear(x, weight)
    start.program.results["result"] = total
    found = reorder_inputs(start.program)
    assert [node.op.name for node in found.nodes].count("reorder") == 2
    assert all(weight.order is None for weight in found.weights())
    want = sum(values(5, 64).astype(np.float64) @ weight.decode().astype(np.float64).T for weight in weights)
    np.testing.assert_allclose(reference(found, [single_step(5)]), want, rtol=1e-12)
    names = [node.op.name for node in quantize_inputs(found).nodes]
    assert names.count("quantize") == 3
    assert not start.program.nodes


@pytest.mark.parametrize("each", [False, True])
def test_inputs_go_into_the_order_of_every_expert(each: bool) -> None:
    """Or all of them have the same: what is shared is by input, choice and orders."""
    start, rng = Inputs(), np.random.default_rng(9)
    one = rng.permutation(64).astype(np.int32)
    order = np.stack([rng.permutation(64).astype(np.int32) for _ in range(3)]) if each else one
    gate, up = (replace(Weight.from_values(name, values(3, 8, 64, seed=seed), "Q8_0"), order=order)
                for name, seed in (("gate", 1), ("up", 2)))  # fmt: skip
    x, scores = start.rows(values(5, 64), "x"), np.argsort(values(5, 3, seed=3), axis=1).astype(np.float32)
    none = Constant("none", np.zeros(3, np.float32))
    chosen = ops.choose_experts(start.rows(scores, "scores"), none, k=2, scores="softmax")
    choice, _ = cast("tuple[Tensor, Tensor]", chosen)
    total = ops.expert_linear(x, choice, gate) + ops.expert_linear(x, choice, up)
    start.program.results["result"] = total.reshape("T", 16)
    found = reorder_inputs(start.program)
    assert [node.op.name for node in found.nodes].count("reorder_choices") == 1
    assert all(weight.order is None for weight in found.weights())
    taken = np.argsort(-scores, axis=1)[:, :2]
    summed = gate.decode().astype(np.float64) + up.decode()
    want = np.einsum("tk,tcnk->tcn", values(5, 64).astype(np.float64), summed[taken]).reshape(5, 16)
    np.testing.assert_allclose(reference(found, [single_step(5)]), want, rtol=1e-12)


def test_a_program_without_such_weights_stays() -> None:
    start = Inputs()
    ops.linear(start.rows(values(5, 64), "x"), matrix("w", "Q8_0", 1))
    assert reorder_inputs(start.program) is start.program


def test_only_products_take_weights_of_another_order() -> None:
    start = Inputs()
    ops.embed(ordered("table", 1, 2), start._tokens)
    with pytest.raises(ModelError, match="table has its inputs in an order of their own: embed can't read it"):
        reorder_inputs(start.program)


def test_linears_that_share_an_input_share_its_quantization() -> None:
    start = Inputs()
    x = start.rows(values(5, 64), "x")
    q, k = ops.linear(x, matrix("q", "Q8_0", 1)), ops.linear(x, matrix("k", "Q4_0", 2))
    ops.linear(q + k, matrix("out", "Q8_0", 3))
    fused = quantize_inputs(start.program)
    names = [node.op.name for node in fused.nodes]
    assert names == ["embed", "quantize", "linear", "linear", "add", "quantize", "linear"]
    first, second, third = (node for node in fused.nodes if node.op is ops.linear)
    assert source(first.inputs[0]) == source(second.inputs[0]) == 1
    assert source(third.inputs[0]) == 5


def source(x: object) -> int:
    assert isinstance(x, Tensor)
    return x.index


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_a_whole_model(architecture: str) -> None:
    """The rewritten model is close to the original, and equal to it if all weights are floats."""
    floats = random_checkpoint(architecture)
    text = np.random.default_rng(0).integers(0, 48, 20).tolist()

    def logits(program: Program) -> Float32Array:
        return run_text(ReferenceRunner(program, limits_for(program, 64)), text, [20])

    program = trace_model(floats, 64)
    np.testing.assert_array_equal(logits(program), logits(quantize_inputs(program)))
    integers = Checkpoint(
        floats.path,
        floats.metadata,
        {
            name: Weight.from_values(name, w.decode(), "Q8_0") if is_matrix(w) else w
            for name, w in floats.weights.items()
        },
    )
    program = trace_model(integers, 64)
    before = str(program)
    exact, quantized = logits(program), logits(quantize_inputs(program))
    assert str(program) == before  # rewriting makes a new program
    assert 0 < np.abs(exact - quantized).max() < 0.1 * np.abs(exact).max()


def test_pairs_are_joined_where_nothing_else_reads_between() -> None:
    start = Inputs()
    x = start.rows(values(5, 64), "x")
    h = ops.rms_norm(x, Weight.from_values("norm", values(64, seed=1), "F32"), eps=1e-6)
    x = x + ops.linear(ops.quantize(h), matrix("w", "Q8_0", 2))
    gate, up = ops.linear(ops.quantize(x), matrix("gate", "Q8_0", 3)), ops.linear(x, matrix("up", "F32", 4))
    down = ops.linear(ops.quantize(ops.glu(gate, up, act="silu")), matrix("down", "Q8_0", 5))
    x + ops.rms_norm(down, Weight.from_values("post", values(64, seed=6), "F32"), eps=1e-6)
    joined = fuse(start.program)
    assert [node.op.name for node in joined.nodes] == [
        "embed", "rms_norm_quantize", "linear_add", "quantize", "linear", "linear", "glu_quantize", "linear",
        "rms_norm_add",
    ]  # fmt: skip
    np.testing.assert_array_equal(reference(joined, [single_step(5)]), reference(start.program, [single_step(5)]))
    assert [[part.op.name for part in node.parts] for node in joined.nodes if node.parts] == [
        ["rms_norm", "quantize"], ["linear", "add"], ["glu", "quantize"], ["rms_norm", "add"],
    ]  # fmt: skip


def test_a_result_with_two_readers_stays() -> None:
    start = Inputs()
    x = start.rows(values(5, 64), "x")
    h = ops.rms_norm(x, Weight.from_values("norm", values(64, seed=1), "F32"), eps=1e-6)
    y = ops.linear(ops.quantize(h), matrix("w", "Q8_0", 2))
    (h + y) + y
    joined = fuse(start.program)
    assert [node.op.name for node in joined.nodes] == ["embed", "rms_norm", "quantize", "linear", "add", "add"]


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma3", "qwen2moe"])
def test_a_joined_model_is_the_model(architecture: str) -> None:
    program = quantize_inputs(trace_model(random_checkpoint(architecture), 64))
    text = np.random.default_rng(0).integers(0, 48, 20).tolist()
    joined = fuse(program)
    assert len(joined.nodes) < len(program.nodes)
    assert [node.layer for node in joined.nodes if node.op is ops.attention] == [0, 1]
    for node in joined.nodes:
        assert {part.layer for part in node.parts} <= {node.layer}
    got, want = (run_text(ReferenceRunner(p, limits_for(p, 64)), text, [7, 13]) for p in (joined, program))
    np.testing.assert_array_equal(got, want)


def test_products_with_experts_share_an_input_and_their_sum_takes_in_the_residual() -> None:
    start = Inputs()
    x = start.rows(values(5, 64), "x")
    none = Constant("none", np.zeros(4, np.float32))
    chosen = ops.choose_experts(start.rows(values(5, 4, seed=1), "logits"), none, k=2, scores="softmax")
    choice, weights = cast("tuple[Tensor, Tensor]", chosen)
    gate, up = (ops.expert_linear(x, choice, experts(name, i)) for i, name in enumerate(("gate", "up")))
    down = ops.expert_linear(ops.glu(gate, up, act="silu"), choice, experts("down", 5))
    x + ops.combine(down, weights)
    joined = fuse(quantize_inputs(ended(start.program)))
    assert [node.op.name for node in joined.nodes] == [
        "embed", "embed", "choose_experts", "quantize", "expert_linear", "expert_linear", "glu_quantize",
        "expert_linear", "combine_add",
    ]  # fmt: skip
    assert [part.op.name for part in joined.nodes[-1].parts] == ["combine", "add"]


def experts(name: str, seed: int) -> Weight:
    """Four matrices [64, 64]."""
    return Weight.from_values(name, values(4, 64, 64, seed=seed), "Q8_0")


# ---- rules of other sizes


def vector(seed: int) -> Weight:
    return Weight.from_values("norm", values(64, seed=seed), "F32")


def of_op(uses: Uses, x: object, *wanted: Op) -> int | None:
    """The index of the node that computes x, if its op is one of these."""
    return x.index if isinstance(x, Tensor) and uses.nodes[x.index].op in wanted else None


def sum_norm_quantize(uses: Uses, last: int) -> tuple[int, ...] | None:
    """A sum and its norm in int8. The sum is also the residual of a later node, so others may read it."""
    if uses.nodes[last].op is not ops.quantize:
        return None
    norm = of_op(uses, uses.nodes[last].inputs[0], ops.rms_norm)
    if norm is None or uses.only(norm) != last:
        return None
    total = of_op(uses, uses.nodes[norm].inputs[0], ops.add)
    return None if total is None else (total, norm, last)


THREE = Rule("sum_norm_quantize", sum_norm_quantize)


def residual(reader: str = "behind") -> tuple[Inputs, Tensor]:
    """x + y, its norm in int8 times a matrix, plus 3 (x + y); another node reads it "between", "behind" or "last"."""
    start = Inputs()
    x, y = start.rows(values(5, 64), "x"), start.rows(values(5, 64, seed=1), "y")
    total = x + y
    norm = ops.rms_norm(total, vector(2), eps=1e-6)
    if reader == "between":
        other = ops.scale(total, factor=3.0)
    int8 = ops.quantize(norm)
    if reader == "behind":
        other = ops.scale(total, factor=3.0)
    product = ops.linear(int8, matrix("w", "Q8_0", 3))
    if reader == "last":
        other = ops.scale(total, factor=3.0)
    return start, product + other


def test_a_fused_node_may_have_several_results() -> None:
    start, _ = residual()
    fused = fuse(ended(start.program), [THREE])
    assert [node.op.name for node in fused.nodes] == [
        "embed", "embed", "sum_norm_quantize", "scale", "linear", "add",
    ]  # fmt: skip
    node = fused.nodes[2]
    assert [(result.shape, result.kind) for result in node.results] == [(("T", 64), "f32"), (("T", 64), "int8")]
    assert [part.op.name for part in node.parts] == ["add", "rms_norm", "quantize"]
    assert node.results_from == ((0, 0), (2, 0))
    assert [(x.index, x.output) for x in fused.nodes[3].inputs if isinstance(x, Tensor)] == [(2, 0)]
    assert [(x.index, x.output, x.kind) for x in fused.nodes[4].inputs if isinstance(x, Tensor)] == [(2, 1, "int8")]
    np.testing.assert_array_equal(reference(fused, [single_step(5)]), reference(start.program, [single_step(5)]))


def test_a_result_that_the_program_gives_is_the_fused_node_s() -> None:
    start, last = residual()
    total = start.program.nodes[3].inputs[0]
    assert isinstance(total, Tensor)
    start.program.results = {"logits": last, "hidden": total}
    fused = fuse(start.program, [THREE])
    assert (fused.results["hidden"].index, fused.results["hidden"].output) == (2, 0)
    step, limits = single_step(5), limits_for(start.program, 5)._replace(blocks=())
    got, want = (ReferenceRunner(p, limits, np.float64).run(step._replace(tables=())) for p in (fused, start.program))
    for name in ("logits", "hidden"):
        np.testing.assert_array_equal(got[name], want[name])


def test_a_reader_between_forbids_it() -> None:
    start, _ = residual("between")
    fused = fuse(ended(start.program), [THREE])
    assert [node.op.name for node in fused.nodes] == [node.op.name for node in start.program.nodes]


@pytest.mark.parametrize("between", [True, False])
def test_what_a_cache_holds_meanwhile_forbids_it(between: bool) -> None:
    """Delaying a moving average past another one of the same state would change where it begins."""
    start = Inputs()
    x, state = start.rows(values(5, 64), "x"), Cache("state.0", State((64,)))
    first = ops.moving_average(x, vector(1), state, start.step)
    if between:
        second = ops.moving_average(x, vector(2), state, start.step)
        total = first + x
    else:
        total = first + x
        second = ops.moving_average(x, vector(2), state, start.step)
    start.program.results = {"sum": total, "second": second}
    fused = fuse(start.program, [chain("average_add", ops.moving_average, ops.add)])
    names = ["moving_average", "moving_average", "add"] if between else ["average_add", "moving_average"]
    assert [node.op.name for node in fused.nodes[1:]] == names
    runners = [ReferenceRunner(p, limits_for(p, 5)) for p in (fused, start.program)]
    for step in (make_step([[0, 1, 2]], [0], [[0]], range(3)), make_step([[3, 4]], [3], [[0]], range(2))):
        got, want = (runner.run(step) for runner in runners)
        for name in ("sum", "second"):
            np.testing.assert_array_equal(got[name], want[name])


def test_a_rule_may_find_what_others_fused() -> None:
    start, _ = residual("last")
    exact = ended(start.program)

    def whole(uses: Uses, last: int) -> tuple[int, ...] | None:
        if uses.nodes[last].op.name != "rms_norm_quantize":
            return None
        total = of_op(uses, uses.nodes[last].inputs[0], ops.add)
        return None if total is None else (total, last)

    def end(uses: Uses, last: int) -> tuple[int, ...] | None:
        node = uses.nodes[last]
        before = node.inputs[0]
        if node.op is not ops.linear or not isinstance(before, Tensor):
            return None
        return (before.index, last) if uses.nodes[before.index].op.name == "whole" else None

    fused = fuse(exact, [*RULES[:1], Rule("whole", whole), Rule("to_the_matrix", end)])
    assert [node.op.name for node in fused.nodes] == ["embed", "embed", "to_the_matrix", "scale", "add"]
    parts = fused.nodes[2].parts
    assert [part.op.name for part in parts] == ["add", "rms_norm", "quantize", "linear"]
    inner = [[x.index for x in part.inputs if isinstance(x, Tensor) and x.program is INNER] for part in parts]
    assert inner == [[], [0], [1], [2]]
    assert fused.nodes[2].results_from == ((0, 0), (3, 0))
    np.testing.assert_array_equal(reference(fused, [single_step(5)]), reference(exact, [single_step(5)]))


def test_the_program_that_is_fused_stays() -> None:
    """Even if nothing is fused: backends remove the weights from the program that they get."""
    start = Inputs()
    x = start.rows(values(5, 64), "x")
    exact, before = ended(start.program), str(start.program)
    again = fuse(exact)
    assert again is not exact
    assert again.nodes is not exact.nodes
    again.nodes.clear()
    ops.scale(x, factor=2.0)
    assert str(start.program) == before + "\n%1 = scale(%0, factor=2.0) ['T', 64]"


@op("T N -> T N, T N", register=False)
def signs(x: Array) -> tuple[Array, Array]:
    return np.maximum(x, 0), np.minimum(x, 0)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Random programs with fusible ops, ops of two results, and states that are read and written."""
    start = Inputs()
    floats = [start.rows(values(5, 64, seed=seed), f"x{seed}") for seed in range(2)]
    states = [Cache(f"state.{i}", State((64,))) for i in range(2)]
    for seed in range(draw(st.integers(1, 20))):
        x: Any = draw(st.sampled_from(floats[-4:]))
        match draw(st.sampled_from(["norm", "int8", "linear", "add", "glu", "average", "signs"])):
            case "norm":
                floats.append(ops.rms_norm(x, vector(seed), eps=1e-6))
            case "int8":
                floats.append(ops.linear(ops.quantize(x), matrix("w", "Q8_0", seed)))
            case "linear":
                floats.append(ops.linear(x, matrix("w", "F32", seed)))
            case "add":
                floats.append(x + draw(st.sampled_from(floats)))
            case "glu":
                floats.append(ops.glu(x, draw(st.sampled_from(floats)), act="silu"))
            case "average":
                decay = Weight.from_values("decay", np.full(64, 0.5, np.float32), "F32")
                floats.append(ops.moving_average(x, decay, draw(st.sampled_from(states)), start.step))
            case _:
                floats.extend(signs(x))
    named = draw(st.lists(st.sampled_from(floats), max_size=3))
    start.program.results = {f"x{i}": x for i, x in enumerate([floats[-1], *named])}
    return start.program


MANY = [
    *RULES,
    THREE,
    chain("average_add", ops.moving_average, ops.add),
    chain("signs_add", signs, ops.add),
    chain("linear_norm_quantize", ops.linear, ops.rms_norm, ops.quantize),
]


@given(programs())
def test_a_fused_program_is_the_program_and_there_is_no_more_to_fuse(program: Program) -> None:
    fused = fuse(program, MANY)
    assert str(fuse(fused, MANY)) == str(fused)
    kept = [part for node in fused.nodes for part in node.parts or (node,)]
    assert sorted(node.op.name for node in kept) == sorted(node.op.name for node in program.nodes)
    limits = limits_for(program, 5)
    runners = [ReferenceRunner(p, limits) for p in (fused, program)]
    for step in (make_step([[0, 1, 2]], [0], [[0]], range(3)), make_step([[3, 4]], [3], [[0]], range(2))):
        got, want = (runner.run(step._replace(tables=step.tables * len(runner.groups))) for runner in runners)
        assert got.keys() == want.keys()
        for name in got:
            np.testing.assert_array_equal(got[name], want[name])
