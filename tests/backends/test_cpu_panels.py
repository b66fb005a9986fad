"""Which layouts have panels, and what is said of the others: the limits are the CPU's, not the encodings'."""

from typing import Any

import numpy as np
import pytest
from tests.support.single_op import Inputs, ended

from sotol.backends.cpu import CpuRunner
from sotol.backends.cpu.panels import block_size, panel_of, panel_problems
from sotol.errors import ModelError
from sotol.formats.weights import Weight
from sotol.program import ops
from sotol.program.step import Limits
from sotol.quant import ENCODINGS, Layout, plain_encoding

TABLE = tuple(range(-16, 16))


@pytest.mark.parametrize("name", [name for name, encoding in ENCODINGS.items() if encoding.integer])
def test_every_encoding_of_files_has_panels(name: str) -> None:
    encoding = ENCODINGS[name]
    assert encoding.integer is not None
    assert panel_problems(encoding.integer) == []
    assert panel_of(encoding.integer).values == encoding.values
    assert panel_of(encoding.integer).size == block_size(encoding)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 7}, "codes have 1, 2, 3, 4, 5, 6, 8 bits"),
        ({"bits": 5, "numbers": TABLE}, "codes of a table have up to 4 bits"),
        ({"width": 48}, "groups have 16 numbers or a multiple of 32"),
        ({"width": 16, "groups": 3}, "a block has a multiple of 32 numbers"),
        ({"width": 1024}, "up to 512"),
    ],
)
def test_other_layouts_are_refused(changes: dict[str, Any], message: str) -> None:
    layout = Layout(4, 32)._replace(**changes).check()
    with pytest.raises(ValueError, match=rf"no kernels for the layout {layout.key()}: .*{message}"):
        panel_of(layout)


def test_a_model_with_another_layout_is_refused_before_it_is_packed() -> None:
    encoding = plain_encoding(Layout(7, 32))
    inputs = Inputs()
    x = inputs.rows(np.ones((4, 32), np.float32), "x")
    ops.linear(x, Weight.from_bytes("blk.0.w", encoding, (16, 32), np.zeros(16 * encoding.size, np.uint8)))
    message = r"can't run q7_32x1 \(linear of blk.0.w\): codes have 1, 2, 3, 4, 5, 6, 8 bits"
    with pytest.raises(ModelError, match=message):
        CpuRunner(ended(inputs.program), Limits(4, 1, 4, 16, ()), threads=1)
