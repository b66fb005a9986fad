"""What kernels would take for something else is refused, in a sentence; models of any width are not."""

from collections.abc import Callable

import numpy as np
import pytest
from tests.support.checkpoints import random_checkpoint
from tests.support.running import limits_for, run_text
from tests.support.single_op import Inputs, weight

from sotol.backends.cpu import CpuRunner
from sotol.backends.cpu.layout import WIDEST_HEAD
from sotol.backends.cpu.running.lower import missing
from sotol.backends.reference import ReferenceRunner
from sotol.errors import ModelError
from sotol.formats.weights import Weight
from sotol.models import ARCHITECTURES, trace_model
from sotol.program import fuse, ops
from sotol.program.program import Cache, Constant, Program, StepInput, Tensor
from sotol.program.step import Limits


def ones(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.ones(shape, np.float32)


def rows(inputs: Inputs, width: int = 32, name: str = "x") -> Tensor:
    return inputs.rows(ones(4, width), name)


def table(inputs: Inputs, positions: int, pairs: int) -> None:
    x = rows(inputs).reshape("T", 4, 8)
    ops.rope(x, inputs.positions, Constant("table", ones(positions, 2, pairs)), style="halves").reshape("T", 32)


def attention(inputs: Inputs, heads: int, width: int, cache: Cache) -> None:
    q = rows(inputs, heads * width).reshape("T", heads, width)
    ops.attention(q, q, q, cache, inputs.step, scale=1.0).reshape("T", heads * width)


def another_program(inputs: Inputs) -> None:
    ops.add(rows(inputs), rows(Inputs()))


def other_step_input(inputs: Inputs) -> None:
    ops.embed(weight(ones(4, 16)), StepInput(inputs.program, "positions", ("T",)))


def one_name_twice(inputs: Inputs) -> None:
    ops.linear(ops.linear(rows(inputs), weight(ones(32, 32))), weight(ones(16, 32)))


def int8_into_floats(inputs: Inputs) -> None:
    ops.linear(ops.quantize(rows(inputs)), weight(ones(16, 32)))


def int8_into_a_sum(inputs: Inputs) -> None:
    x = rows(inputs)
    ops.add(ops.quantize(x), x)


REFUSED: dict[str, tuple[Callable[[Inputs], object], str]] = {
    "a reshape that gains numbers": (lambda i: rows(i).reshape("T", 48), r"reshape can't make \['T', 48\] of"),
    "int8 into float weights": (int8_into_floats, "linear can't read int8"),
    "int8 into a sum": (int8_into_a_sum, "add can't read int8"),
    "int8 at the end": (lambda i: ops.quantize(rows(i)), "can't end in quantize"),
    "int8 of odd rows": (lambda i: ops.quantize(rows(i, 40)), "quantize needs rows of a multiple of 32"),
    "a short table": (lambda i: table(i, 15, 4), "rope needs a table of 16 positions"),
    "a wide table": (lambda i: table(i, 16, 5), "at most half of 8 pairs"),
    "a cache of other heads": (lambda i: attention(i, 2, 16, Cache(0, 1, 16)), "needs a cache of such heads"),
    "a cache of other widths": (lambda i: attention(i, 2, 16, Cache(0, 2, 32)), "needs a cache of such heads"),
    "too wide heads": (
        lambda i: attention(i, 1, WIDEST_HEAD + 1, Cache(0, 1, WIDEST_HEAD + 1)), "up to 512 channels: not 513",
    ),
    "another step input": (other_step_input, "embed reads the step's tokens: not positions"),
    "another program's tensor": (another_program, "add reads a result of another program"),
    "two matrices of one name": (one_name_twice, "two matrices are named w"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_kernels_can_not_do_is_named(name: str) -> None:
    build, message = REFUSED[name]
    inputs = Inputs()
    build(inputs)
    with pytest.raises(ModelError, match=message):
        CpuRunner(inputs.program, Limits(4, 1, 4, 16, 1), threads=1)


def test_quantised_programs_are_fine() -> None:
    inputs = Inputs()
    ops.linear(rows(inputs), weight(ones(16, 32), "Q8_0"))
    assert missing(fuse.quantize_inputs(inputs.program)) == []
    assert missing(Program()) == []


ODD = {"embedding_length": 60, "feed_forward_length": 92, "attention.head_count": 5, "attention.head_count_kv": 5}


@pytest.mark.parametrize("encoding", ["F32", "BF16"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_models_of_odd_widths(architecture: str, encoding: str) -> None:
    """Heads of 12, 60 channels, 92 of the feed-forward network; biases, where an architecture has them."""
    checkpoint = random_checkpoint(architecture, {**ODD, "final_logit_softcapping": 20.0}, optional=True)
    weights = {
        name: Weight.from_values(name, w.decode(), encoding) if len(w.shape) == 2 else w
        for name, w in checkpoint.weights.items()
    }
    program = trace_model(checkpoint._replace(weights=weights), 64)
    ids = np.random.default_rng(2).integers(0, 48, 40).tolist()
    want = run_text(ReferenceRunner(program, limits_for(64), np.float64), ids, [40])
    results = []
    for chunks in ([40], [21, 1, 1, 17]):
        runner = CpuRunner(program, limits_for(64), threads=2, precision="f32", codec="f32")
        results.append(run_text(runner, ids, chunks))
        runner.close()
    np.testing.assert_allclose(results[0], want, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(results[0].view(np.int32), results[1].view(np.int32))
