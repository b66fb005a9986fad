"""Rewrites of programs: both forms on the reference backend."""

import numpy as np
import pytest
from tests.support.checkpoints import random_checkpoint
from tests.support.running import limits_for, run_text
from tests.support.single_op import Inputs, reference, single_step

from sotol.backends.reference import ReferenceRunner
from sotol.formats.weights import Checkpoint, Weight
from sotol.models import trace_model
from sotol.program import ops
from sotol.program.fuse import join_pairs, quantize_inputs
from sotol.program.program import Program, Tensor
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
    assert 0 < np.abs(by_hand - exact).max() < 0.05 * np.abs(exact).max()  # another arithmetic, a close one


@pytest.mark.parametrize("encoding", ["F32", "F16", "BF16"])
def test_a_linear_with_float_weights_stays(encoding: str) -> None:
    start = Inputs()
    ops.linear(start.rows(values(5, 64), "x"), matrix("w", encoding, 1))
    fused = quantize_inputs(start.program)
    assert [node.op.name for node in fused.nodes] == ["embed", "linear"]
    np.testing.assert_array_equal(reference(fused, [single_step(5)]), reference(start.program, [single_step(5)]))


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
    """The rewritten model is close to the model, and equals it where weights are floats."""
    floats = random_checkpoint(architecture)
    text = np.random.default_rng(0).integers(0, 48, 20).tolist()

    def logits(program: Program) -> Float32Array:
        return run_text(ReferenceRunner(program, limits_for(64)), text, [20])

    program = trace_model(floats, 64)
    np.testing.assert_array_equal(logits(program), logits(quantize_inputs(program)))
    integers = Checkpoint(
        floats.path,
        floats.metadata,
        {
            name: Weight.from_values(name, w.decode(), "Q8_0") if len(w.shape) == 2 else w
            for name, w in floats.weights.items()
        },
    )
    program = trace_model(integers, 64)
    before = str(program)
    exact, quantized = logits(program), logits(quantize_inputs(program))
    assert str(program) == before  # the rewrite makes a new one
    assert 0 < np.abs(exact - quantized).max() < 0.1 * np.abs(exact).max()


def test_pairs_are_joined_where_nothing_else_reads_between() -> None:
    start = Inputs()
    x = start.rows(values(5, 64), "x")
    h = ops.rms_norm(x, Weight.from_values("norm", values(64, seed=1), "F32"), eps=1e-6)
    x = x + ops.linear(ops.quantize(h), matrix("w", "Q8_0", 2))
    gate, up = ops.linear(ops.quantize(x), matrix("gate", "Q8_0", 3)), ops.linear(x, matrix("up", "F32", 4))
    down = ops.linear(ops.quantize(ops.glu(gate, up, act="silu")), matrix("down", "Q8_0", 5))
    x + ops.rms_norm(down, Weight.from_values("post", values(64, seed=6), "F32"), eps=1e-6)
    joined = join_pairs(start.program)
    assert [node.op.name for node in joined.nodes] == [
        "embed", "rms_norm_quantize", "linear_add", "quantize", "linear", "linear", "glu_quantize", "linear",
        "rms_norm_add",
    ]  # fmt: skip
    np.testing.assert_array_equal(reference(joined, [single_step(5)]), reference(start.program, [single_step(5)]))


def test_a_result_with_two_readers_stays() -> None:
    start = Inputs()
    x = start.rows(values(5, 64), "x")
    h = ops.rms_norm(x, Weight.from_values("norm", values(64, seed=1), "F32"), eps=1e-6)
    y = ops.linear(ops.quantize(h), matrix("w", "Q8_0", 2))
    (h + y) + y
    joined = join_pairs(start.program)
    assert [node.op.name for node in joined.nodes] == ["embed", "rms_norm", "quantize", "linear", "add", "add"]


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma3"])
def test_a_joined_model_is_the_model(architecture: str) -> None:
    program = quantize_inputs(trace_model(random_checkpoint(architecture), 64))
    text = np.random.default_rng(0).integers(0, 48, 20).tolist()
    joined = join_pairs(program)
    assert len(joined.nodes) < len(program.nodes)
    got, want = (run_text(ReferenceRunner(p, limits_for(64)), text, [7, 13]) for p in (joined, program))
    np.testing.assert_array_equal(got, want)
