"""`bench/encodings.py`: the chain is a product of its matrices, and what is measured adds up."""

from contextlib import closing

import numpy as np
import pytest
from bench.encodings import Speed, chain, measure, step_of

from sotol.backends.cpu import CpuRunner
from sotol.program.step import Limits


@pytest.mark.parametrize(("encoding", "width"), [("Q8_0", 64), ("FP8", 128), ("NF4", 64)])
def test_the_chain_is_the_product_of_its_matrices(encoding: str, width: int) -> None:
    program, weights = chain(encoding, width, 3)
    table = program.weights()[0].decode().astype(np.float64)
    with closing(CpuRunner(program, Limits(128, 1, 128, 128, ()), threads=1)) as runner:
        got = runner.run(step_of(5))["result"].copy()
    want = table[:5]
    for weight in weights:
        want = want @ weight.decode().astype(np.float64).T
    np.testing.assert_allclose(got, want, rtol=0.2, atol=0.02 * np.abs(want).max())


def test_what_is_measured() -> None:
    (speed,) = measure(["Q8_0"], 64, 1000, threads=1, rounds=1)
    assert (speed.encoding, speed.file_bits, speed.memory_bits) == ("Q8_0", 8.5, 8.5)
    assert min(speed.decode, speed.prefill, speed.read) > 0
    assert Speed("x", 4, 4, 1e9, 1, 1e9).share == 0.5


def test_what_has_no_encoder_is_named() -> None:
    with pytest.raises(ValueError, match="I8 has no encoder"):
        chain("I8", 64, 1)
