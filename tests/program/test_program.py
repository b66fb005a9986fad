"""Recording: what does not fit is named, and a program can be read."""

import re
from typing import Any

import numpy as np
import pytest

from sotol.errors import ModelError
from sotol.formats.weights import Weight
from sotol.program import ops
from sotol.program.program import Cache, Constant, Program, Shape, StepInput, Tensor


def weight(name: str, *shape: int) -> Weight:
    return Weight.from_values(name, np.ones(shape, np.float32), "F32")


def start(width: int = 32) -> tuple[Program, Tensor]:
    """A program that has embedded tokens: [T, width]."""
    program = Program()
    return program, ops.embed(weight("token_embd", 8, width), StepInput(program, "tokens", ("T",)))


def test_a_program_prints_an_op_a_line() -> None:
    program, x = start()
    h = ops.rms_norm(x, weight("norm", 32), eps=0.5)
    q = ops.linear(h, weight("q", 64, 32)).reshape("T", 4, 16)
    cache, step = Cache(3, 4, 16), StepInput(program, "step")
    ops.attention(q, q, q, cache, step, scale=0.25, window=7)
    assert str(program).splitlines() == [
        "%0 = embed(token_embd, tokens) ['T', 32]",
        "%1 = rms_norm(%0, norm, eps=0.5) ['T', 32]",
        "%2 = linear(%1, q) ['T', 64]",
        "%3 = reshape(%2, shape=('T', 4, 16)) ['T', 4, 16]",
        "%4 = attention(%3, %3, %3, cache 3, step, scale=0.25, window=7) ['T', 4, 16]",
    ]


def test_caches_are_listed_once_and_in_order() -> None:
    program, x = start()
    step, heads = StepInput(program, "step"), x.reshape("T", 2, 16)
    for layer in (1, 0, 1):
        ops.attention(heads, heads, heads, Cache(layer, 2, 16), step, scale=1.0)
    assert program.caches() == [Cache(1, 2, 16), Cache(0, 2, 16)]


def test_ops_on_arrays_compute_and_record_nothing() -> None:
    np.testing.assert_array_equal(ops.add(np.ones(3), np.ones(3)), np.full(3, 2.0))


def test_plus_is_add() -> None:
    program, x = start()
    assert (x + x).shape == ("T", 32)
    assert program.nodes[-1].op is ops.add


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda _, x: ops.linear(x, weight("blk.0.up", 16, 48)),
            "linear: blk.0.up has shape [16, 48], which is not [M, N] with T = T, N = 32",
        ),
        (
            lambda _, x: ops.linear(x.reshape("T", 4, 8), weight("w", 8, 8)),
            "linear: the result of reshape has shape ['T', 4, 8], which is not [T, N]",
        ),
        (lambda _, x: ops.rms_norm(x, weight("norm", 16), eps=1.0), "rms_norm: norm has shape [16]"),
        (lambda _, x: ops.add(x, ops.linear(x, weight("w", 8, 32))), "add: the result of linear has shape ['T', 8]"),
        (lambda _, x: ops.add_bias(x, weight("bias", 8)), "add_bias: bias has shape [8]"),
        (lambda _, x: ops.soft_cap(x, cup=5.0), "soft_cap has no attribute 'cup'; it has ['cap']"),
        (lambda _, x: ops.glu(x, x.reshape("T", 8, 4), act="silu"), "glu: the result of reshape has shape"),
        (
            lambda p, _: ops.embed(weight("vector", 8), StepInput(p, "tokens", ("T",))),
            "embed: vector has shape [8], which is not [V, N]",
        ),
        (
            lambda p, x: ops.rows(x.reshape(), StepInput(p, "logit_rows", ("R",))),
            "rows: the result of reshape has shape []",
        ),
        (
            lambda p, x: ops.rope(
                x.reshape("T", 2, 16),
                StepInput(p, "positions", ("T",)),
                Constant("table", np.zeros((9, 3, 8))),
                style="halves",
            ),
            "rope: table has shape [9, 3, 8], which is not [C, 2, r]",
        ),
        (
            lambda p, x: ops.attention(
                x.reshape("T", 2, 16),
                x.reshape("T", 1, 32),
                x.reshape("T", 1, 32),
                Cache(0, 1, 32),
                StepInput(p, "step"),
                scale=1.0,
            ),
            "attention: the result of reshape has shape ['T', 1, 32], which is not [T, K, d] with",
        ),
        (lambda _, x: ops.linear(x), "linear takes 2 inputs, not 1"),
        (lambda _, x: ops.add(x, x, x), "add takes 2 inputs, not 3"),
    ],
)
def test_what_does_not_fit_is_named(build: Any, message: str) -> None:
    program, x = start()
    with pytest.raises(ModelError, match=re.escape(message)):
        build(program, x)


@pytest.mark.parametrize("shape", [(32,), ("T", 32), ("T", 4, 32)])
def test_leading_dimensions_pass_through(shape: Shape) -> None:
    program, _ = start()
    x = StepInput(program, "x", shape)
    assert ops.rms_norm(x, weight("norm", 32), eps=1.0).shape == shape
    assert ops.soft_cap(x, cap=2.0).shape == shape


def test_names_of_steps_dimensions_do_not_mix() -> None:
    program, x = start()
    picked = ops.rows(x, StepInput(program, "logit_rows", ("R",)))
    assert picked.shape == ("R", 32)
    with pytest.raises(ModelError, match="add: the result of embed has shape"):
        ops.add(picked, x)
