"""What kernels would take for something else is refused, in a sentence; models of any width are not."""

from collections.abc import Callable

import numpy as np
import pytest
from tests.support.checkpoints import is_matrix, kinds_of_layers, random_checkpoint
from tests.support.running import limits_for, make_step, run_text
from tests.support.single_op import Inputs, cpu, ended, reference, single_step, weight

from sotol.backends.cpu import CpuRunner
from sotol.backends.cpu.layout import WIDEST_HEAD
from sotol.backends.cpu.running.backend import missing
from sotol.backends.cpu.target import host_target
from sotol.backends.reference import ReferenceRunner
from sotol.errors import ModelError
from sotol.formats.weights import Weight
from sotol.models import ARCHITECTURES, trace_model
from sotol.program import fuse, ops
from sotol.program.memory import Cache, Paged, State
from sotol.program.program import Constant, Program, Tensor
from sotol.program.step import Limits


def ones(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.ones(shape, np.float32)


def numbers(seed: int, *shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def rows(inputs: Inputs, width: int = 32, name: str = "x") -> Tensor:
    return inputs.rows(ones(4, width), name)


def table(inputs: Inputs, positions: int, pairs: int) -> None:
    x = rows(inputs).reshape("T", 4, 8)
    ops.rope(x, inputs.positions, Constant("table", ones(positions, 2, pairs)), style="halves").reshape("T", 32)


def attention(inputs: Inputs, heads: int, width: int, cache: Cache) -> None:
    q = rows(inputs, heads * width).reshape("T", heads, width)
    ops.attention(q, cache, inputs.step, scale=1.0).reshape("T", heads * width)


def int8_into_floats(inputs: Inputs) -> None:
    ops.linear(ops.quantize(rows(inputs)), weight(ones(16, 32)))


def pages(heads: int, key: int, value: int, *, latent: bool = False) -> Cache:
    return Cache("kv.0", Paged(heads, key, value, latent=latent))


def remember_whole(inputs: Inputs) -> None:
    k, v = rows(inputs).reshape("T", 2, 16), rows(inputs, 16).reshape("T", 2, 8)
    ops.remember(k, v, pages(2, 16, 8, latent=True), inputs.step)


def remember_part(inputs: Inputs) -> None:
    ops.remember_latent(rows(inputs).reshape("T", 2, 16), pages(2, 16, 8), inputs.step)


def average_of_pages(inputs: Inputs) -> None:
    """No rule lets this be recorded: a layout of pages has three letters."""
    x = rows(inputs)
    y = ops.moving_average(x, weight(ones(32)), Cache("state.0", State((32,))), inputs.step)
    node = inputs.program.nodes[y.index]
    wrong = tuple(pages(1, 16, 16) if isinstance(operand, Cache) else operand for operand in node.inputs)
    inputs.program.nodes[y.index] = node._replace(inputs=wrong)


REFUSED: dict[str, tuple[Callable[[Inputs], object], str]] = {
    "a reshape that gains numbers": (lambda i: rows(i).reshape("T", 48), r"reshape can't make \['T', 48\] of"),
    "int8 into float weights": (int8_into_floats, "linear can't read int8"),
    "int8 at the end": (lambda i: ops.quantize(rows(i)), "can't end in quantize"),
    "int8 of odd rows": (lambda i: ops.quantize(rows(i, 40)), "quantize needs rows of a multiple of 32"),
    "too few learned positions": (
        lambda i: ops.embed(weight(ones(15, 32)), i.positions), "embed of positions needs a matrix of 16 rows",
    ),
    "another index": (lambda i: ops.embed(weight(ones(99, 32)), i.logit_rows), "looks up tokens or positions: not"),
    "a short table": (lambda i: table(i, 15, 4), "rope needs a table of 16 positions"),
    "a wide table": (lambda i: table(i, 16, 5), "at most half of 8 pairs"),
    "a cache of other heads": (lambda i: attention(i, 3, 16, pages(2, 16, 16)), "needs a cache of such heads"),
    "too wide keys": (
        lambda i: attention(i, 1, WIDEST_HEAD + 1, pages(1, WIDEST_HEAD + 1, 8)), "up to 576 channels: not 577",
    ),
    "too wide values": (lambda i: attention(i, 1, 8, pages(1, 8, WIDEST_HEAD + 1)), "up to 576 channels: not 577"),
    "whole values of a latent cache": (remember_whole, r"remember can't write Cache\(name='kv\.0'"),
    "latent values of a whole cache": (remember_part, r"remember_latent can't write Cache\(name='kv\.0'"),
    "a state of pages": (average_of_pages, "moving_average needs a state: not"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_kernels_can_not_do_is_named(name: str) -> None:
    build, message = REFUSED[name]
    inputs = Inputs()
    build(inputs)
    with pytest.raises(ModelError, match=message):
        CpuRunner(ended(inputs.program), Limits(4, 1, 4, 16, (1,)), threads=1)


RECORDED: dict[str, tuple[Callable[[Inputs], object], str]] = {
    "int8 into a sum": (lambda i: ops.add(ops.quantize(rows(i)), rows(i)), "add can't read int8"),
    "a cache of other widths": (
        lambda i: attention(i, 2, 16, pages(2, 32, 32)), r"attention: cache kv\.0 has shape \[2, 32, 32\]",
    ),
    "another program's tensor": (lambda i: ops.add(rows(i), rows(Inputs())), "add reads a result of another program"),
    "another program's step": (
        lambda i: ops.rows(rows(i), Inputs().logit_rows), "rows reads a result of another program",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDED)
def test_what_is_refused_before_any_backend_sees_it(name: str) -> None:
    build, message = RECORDED[name]
    with pytest.raises(ModelError, match=message):
        build(Inputs())


def test_embedding_another_array_of_the_step() -> None:
    """Learned positions, for example, of which there are fewer than tokens."""
    inputs = Inputs()
    ops.embed(weight(numbers(1, 9, 16)), inputs.positions) + inputs.rows(numbers(2, 40, 16), "x")
    step = make_step([[3, 1, 33]], [5], [[0]], range(3))
    want = numbers(1, 9, 16)[[5, 6, 7]] + numbers(2, 40, 16)[[3, 1, 33]]
    np.testing.assert_array_equal(cpu(inputs.program, [step], host_target()), want)
    np.testing.assert_allclose(reference(inputs.program, [step]), want, rtol=1e-6, atol=1e-6)
    wrong = step._replace(tokens=step.tokens + 7)
    with pytest.raises(ValueError, match=r"token ids must be in 0\.\.39"):
        cpu(inputs.program, [wrong], host_target())
    with pytest.raises(ValueError, match=r"token ids must be in 0\.\.39"):
        reference(inputs.program, [wrong])


def test_two_matrices_of_one_name_are_two() -> None:
    inputs = Inputs()
    x, first, second = numbers(1, 4, 32), numbers(2, 32, 32), numbers(3, 16, 32)
    ops.linear(ops.linear(inputs.rows(x, "w"), weight(first)), weight(second))
    step = single_step(4)
    want = reference(inputs.program, [step])
    np.testing.assert_allclose(want, x.astype(np.float64) @ first.T @ second.T.astype(np.float64), atol=1e-4)
    np.testing.assert_allclose(cpu(inputs.program, [step], host_target()), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("encoding", ["F32", "Q8_0"])
def test_weights_of_one_name_are_two(encoding: str) -> None:
    """A product by ones, then one by zeros: nothing is left, on both backends."""
    inputs = Inputs()
    by_ones = ops.linear(rows(inputs), weight(ones(32, 32), encoding, name="w"))
    ops.linear(by_ones, weight(np.zeros((16, 32), np.float32), encoding, name="w"))
    step = single_step(4)
    assert not reference(inputs.program, [step]).any()
    assert not cpu(inputs.program, [step], host_target()).any()


def test_quantised_programs_are_fine() -> None:
    inputs = Inputs()
    ops.linear(rows(inputs), weight(ones(16, 32), "Q8_0"))
    assert missing(fuse.quantize_inputs(ended(inputs.program))) == []
    assert missing(Program()) == []


ODD = {"embedding_length": 60, "feed_forward_length": 92, "attention.head_count": 5, "attention.head_count_kv": 5}


@pytest.mark.parametrize("encoding", ["F32", "BF16"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_models_of_odd_widths(architecture: str, encoding: str) -> None:
    """Heads of 12, 60 channels, 92 of the feed-forward network; biases, where an architecture has them."""
    fields = {**ODD, "final_logit_softcapping": 20.0, **kinds_of_layers(architecture)}
    checkpoint = random_checkpoint(architecture, fields, optional=True)
    weights = {
        name: Weight.from_values(name, w.decode(), encoding) if is_matrix(w) else w
        for name, w in checkpoint.weights.items()
    }
    program = trace_model(checkpoint._replace(weights=weights), 64)
    ids = np.random.default_rng(2).integers(0, 48, 40).tolist()
    limits = limits_for(program, 64)
    want = run_text(ReferenceRunner(program, limits, np.float64), ids, [40])
    results = []
    for chunks in ([40], [21, 1, 1, 17]):
        runner = CpuRunner(program, limits, threads=2, codecs="f32")
        results.append(run_text(runner, ids, chunks))
        runner.close()
    np.testing.assert_allclose(results[0], want, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(results[0].view(np.int32), results[1].view(np.int32))
