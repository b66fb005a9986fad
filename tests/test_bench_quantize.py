"""`bench/quantize.py`: the error of a ratio is what ratios scatter by, and rows are not measured twice."""

import json
from pathlib import Path

import numpy as np
import pytest
from bench.quantize import Row, ratio_of, rows_of, shown

ROW = Row("model", "Q4_K", True, 4.5, 20.0, 0.5, 21.0, 0.4, 0.01, 6.0, 40.0, 8)


def test_files_with_the_same_divergences_have_a_ratio_of_one() -> None:
    assert ratio_of([1.0, 2.0, 4.0], [1.0, 2.0, 4.0]) == (1.0, 0.0)
    assert ratio_of([2.0, 4.0, 8.0], [1.0, 2.0, 4.0]) == (2.0, 0.0)


def test_the_error_is_what_ratios_of_other_windows_scatter_by() -> None:
    """Windows differ much from each other, the two files little from each other."""
    rng = np.random.default_rng(1)
    windows = np.exp(rng.standard_normal((2000, 24)) / 3)
    ours = windows * (1.1 + 0.1 * rng.standard_normal(windows.shape))
    found = np.array([ratio_of(list(a), list(b)) for a, b in zip(ours, windows, strict=True)])
    assert found[:, 0].mean() == pytest.approx(1.1, rel=0.01)
    assert np.sqrt((found[:, 1] ** 2).mean()) == pytest.approx(found[:, 0].std(), rel=0.1)


def test_one_window_tells_nothing_of_others() -> None:
    assert ratio_of([1.0], [2.0]) == (0.5, float("inf"))


def test_rows_are_known_again(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    assert rows_of(file) == {}
    file.write_text(json.dumps({"rows": [ROW._asdict()]}))
    assert rows_of(file) == {("model", "Q4_K", True, 8): ROW}


def test_a_line_of_the_table() -> None:
    assert shown(ROW) == "| Q4_K with importance | 4.50 | 20.000 | 0.50000 | 0.40000 | 1.250 ± 0.010 | 6.0 | 40.0 |"
    alone = ROW._replace(peer_divergence=None, peer_perplexity=None, ratio_error=None, peer_nanoseconds=None)
    assert shown(alone) == "| Q4_K with importance | 4.50 | 20.000 | 0.50000 | - | - | 6.0 | - |"
