"""That the comparison of `make test-arm` sees a single bit."""

from pathlib import Path

import numpy as np
import pytest
from tests.arm.logits import compare


def test_one_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logits = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    other = logits.copy()
    other.view(np.int32)[2, 1] ^= 1
    for name, values in (("x86", logits), ("same", logits), ("other", other)):
        np.savez(tmp_path / f"{name}.npz", allow_pickle=False, model=values)
    files = [tmp_path / f"{name}.npz" for name in ("x86", "same", "other")]
    assert compare(files[:2]) == 0
    assert "the same bits in x86, same: 1 results" in capsys.readouterr().out
    assert compare(files) == 1
    assert capsys.readouterr().out == "model: other.npz differs from x86.npz in 1 rows, first 2\n"
