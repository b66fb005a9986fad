"""That the comparison of results sees a single bit, and that ONLY chooses cases."""

from pathlib import Path

import numpy as np
import pytest
from tests.emulated.case import Encoded, write_cases
from tests.emulated.results import CASES, cases_in, compare

from sotol.quant import ENCODINGS


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


def test_only_some_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.zeros((1, 32), np.float32)
    write_cases(tmp_path / CASES, [Encoded(f"encode {name}", ENCODINGS[name], x) for name in ("Q8_0", "Q4_0", "Q4_1")])
    for only, names in ((None, ["Q8_0", "Q4_0", "Q4_1"]), ("Q4", ["Q4_0", "Q4_1"]), ("8_0$|4_1", ["Q8_0", "Q4_1"])):
        monkeypatch.delenv("ONLY", raising=False)
        if only is not None:
            monkeypatch.setenv("ONLY", only)
        assert [case.name for case in cases_in(tmp_path)] == [f"encode {name}" for name in names]
