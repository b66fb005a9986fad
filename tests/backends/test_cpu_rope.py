"""Rotations of a part of the head: what a row writes stays in its row."""

import numpy as np
import pytest
from tests.support.single_op import Inputs, cpu, reference, single_step

from sotol.backends.cpu.target import Target
from sotol.program import ops
from sotol.program.program import Constant

TOKENS, WIDTH, PAIRS = 4, 32, 3


@pytest.mark.parametrize("style", ["halves", "middle", "pairs"])
def test_nothing_is_written_behind_the_last_row(target: Target, style: str) -> None:
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(TOKENS, WIDTH)).astype(np.float32) for _ in range(3)]
    inputs, step = Inputs(), single_step(TOKENS)
    first, behind, x = (inputs.rows(values, f"x{i}") for i, values in enumerate(rows))
    total = first + behind
    table = Constant("table", rng.normal(size=(TOKENS, 2, PAIRS)).astype(np.float32))
    # `first` is not needed any more, so the rotated x takes its place, right before `behind`
    rotated = ops.rope(x.reshape("T", 1, WIDTH), inputs.positions, table, style=style).reshape("T", WIDTH)
    _ = rotated + behind + total
    want = reference(inputs.program, [step])
    np.testing.assert_allclose(cpu(inputs.program, [step], target), want, rtol=1e-5, atol=1e-5)
