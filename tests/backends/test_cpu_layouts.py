"""The CPU's kernels on layouts that no file of GGUF has: what they mean, on every CPU level to the bit.

Nothing registers these layouts: whoever compiles a kernel has its layout from the kernel's key.
"""

from typing import Any

import numpy as np
import pytest
from tests.backends.test_cpu_ops import numbers
from tests.support.layouts import BY_LEVEL, LAYOUTS, random_weight
from tests.support.levels import LEVELS
from tests.support.single_op import Inputs, cpu, single_step

from sotol.backends.cpu import panels
from sotol.backends.cpu.building.library import library_for
from sotol.backends.cpu.running.packing import Packing, pack_key
from sotol.backends.cpu.target import host_target, target_for
from sotol.program import ops
from sotol.quant import Float32Array, Layout

CASES = [(1, 70), (3, 37), (21, 21)]  # tokens, outputs: four panels side by side and one; a part of a panel


def product(layout: Layout, tokens: int, outputs: int, precision: str) -> tuple[Float32Array, Float32Array, Any]:
    """x W' on 1 and 3 threads, and by the formula in float64."""
    blocks = -(-1280 // layout.values)  # more than a chunk that is unpacked at a time
    weight, values = random_weight(layout, outputs, blocks, seed=tokens)
    x = numbers(tokens, tokens, weight.shape[1])
    inputs = Inputs()
    ops.linear(inputs.rows(x, "x"), weight)
    one, three = (
        cpu(inputs.program, [single_step(tokens)], host_target(), threads=n, precision=precision) for n in (1, 3)
    )
    rounded = ops.quantize.meaning(x) if precision == "int8" and layout.whole else x
    return one, three, rounded.astype(np.float64) @ values.T


@pytest.mark.parametrize("precision", ["int8", "f32"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_linear(name: str, precision: str) -> None:
    for tokens, outputs in CASES:
        got, other, want = product(LAYOUTS[name], tokens, outputs, precision)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())
        np.testing.assert_array_equal(got.view(np.int32), other.view(np.int32))


@pytest.mark.parametrize("precision", ["int8", "f32"])
@pytest.mark.parametrize("name", BY_LEVEL)
def test_one_token_or_many_on_any_level(name: str, precision: str) -> None:
    """The same bits: each token alone, and all together, on each level."""
    layout, tokens = LAYOUTS[name], 21
    weight, _ = random_weight(layout, 37, -(-1280 // layout.values), seed=1)
    x, results = numbers(2, tokens, weight.shape[1]), list[Float32Array]()
    for level in LEVELS:
        together, alone = Inputs(), Inputs()
        ops.linear(together.rows(x, "x"), weight)
        ops.linear(alone.rows(x[4:5], "x"), weight)
        many = cpu(together.program, [single_step(tokens)], target_for(level), precision=precision)
        one = cpu(alone.program, [single_step(1)], target_for(level), precision=precision)
        np.testing.assert_array_equal(one[0].view(np.int32), many[4].view(np.int32))
        results.append(many)
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].view(np.int32), other.view(np.int32))


@pytest.mark.parametrize("name", LAYOUTS)
def test_embed(name: str) -> None:
    """A row is what `quant` decodes, to the bit."""
    weight, _ = random_weight(LAYOUTS[name], 37, 2, seed=3)
    inputs = Inputs()
    ops.embed(weight, inputs._tokens)
    got = cpu(inputs.program, [single_step(37)], host_target())
    np.testing.assert_array_equal(got.view(np.int32), weight.decode().view(np.int32))


@pytest.mark.parametrize("name", LAYOUTS)
def test_packing_writes_the_bytes_of_its_definition(name: str) -> None:
    weight, _ = random_weight(LAYOUTS[name], 37, 3, seed=4)
    out, defined = (np.full(panels.packed_shape(weight), fill, np.uint8) for fill in (0xA5, 0))
    codes = library_for(host_target()).load([pack_key(weight)])
    Packing([(weight, out, codes[pack_key(weight)])], 2).wait()
    panels.pack(weight, defined)
    np.testing.assert_array_equal(out, defined)
