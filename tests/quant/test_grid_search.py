"""The search for runs of grids: the nearest of all, by importance, and blocks that come back as they were."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sotol.quant import ENCODINGS, GRID_FITS, WEIGHTED, find_runs
from sotol.quant.grid_search import folded, grid_rows, nearest_run, whole_scales
from sotol.quant.grids import GRIDS, digits_of

NORMAL = np.random.default_rng(9).standard_normal((4, 512)).astype(np.float32)
IMPORTANCE = np.exp(np.random.default_rng(10).standard_normal(512)).astype(np.float32)


def coded(name: str, x: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    encode, decode = ENCODINGS[name].encode, ENCODINGS[name].decode
    assert encode is not None
    assert decode is not None
    return decode(encode(x) if importance is None else WEIGHTED[name](x, importance))


@pytest.mark.parametrize("name", GRIDS)
def test_all_runs_of_a_grid_are_its_rows(name: str) -> None:
    grid, half = grid_rows(name), GRIDS[name].length // 2
    count = GRIDS[name].base ** half
    found = sorted(low + count * high for high, beside in grid.rows for low in beside)
    weights = GRIDS[name].base ** np.arange(GRIDS[name].length)
    assert found == (digits_of(name) @ weights).tolist()
    assert len(set(grid.packed.tolist())) == count
    ranks = [grid.ranks[grid.packed[high], grid.packed[low]] for high, beside in grid.rows for low in beside]
    assert ranks == list(range(len(found)))


@pytest.mark.parametrize("name", GRID_FITS)
@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1))
def test_no_run_is_nearer(name: str, seed: int) -> None:
    fit, rng = GRID_FITS[name], np.random.default_rng(seed)
    x = (fit.top * rng.standard_normal((fit.length, 32))).astype(np.float32)
    weight = np.exp(rng.standard_normal(x.shape)).astype(np.float32)
    for table in fit.tables:
        first, second, far = nearest_run(fit, x, weight, np.ones(32, np.float32), table)
        runs = np.array(table, np.float64)[digits_of(fit.grid)]  # [G, length]
        each = (weight[None] * runs[..., None] * (runs[..., None] - 2 * x[None].astype(np.float64))).sum(1)  # [G, 32]
        found = each[grid_rows(fit.grid).ranks[second, first], np.arange(32)]
        np.testing.assert_allclose(found, each.min(0), rtol=1e-4, atol=1e-2)
        np.testing.assert_allclose(far, found, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("name", GRID_FITS)
@settings(max_examples=5)
@given(seed=st.integers(0, 2**32 - 1), exponent=st.integers(-6, 6), weighted=st.booleans())
def test_what_a_block_holds_comes_back(name: str, seed: int, exponent: int, weighted: bool) -> None:
    """Numbers that lie on the steps of an encoding lose nothing, whatever counts how much."""
    rng = np.random.default_rng(seed)
    x = coded(name, (rng.standard_normal((2, 512)) * 2.0**exponent).astype(np.float32))
    importance = np.exp(rng.standard_normal(512)).astype(np.float32) if weighted else None
    np.testing.assert_array_equal(coded(name, x, importance), x)


@pytest.mark.parametrize("name", GRID_FITS)
def test_blocks_have_what_was_found(name: str) -> None:
    """`join` and the encoding's `split` are each other's inverse."""
    fit, split, encode = GRID_FITS[name], ENCODINGS[name].split, ENCODINGS[name].encode
    assert split is not None
    assert encode is not None
    blocks, one = NORMAL.reshape(-1, 256), np.ones((8, 256), np.float32)
    size, signs = folded(blocks, one, even=fit.signs == "even") if fit.signs else (blocks, None)
    found, parts = find_runs(fit, size, one), split(encode(NORMAL).reshape(-1))
    assert parts.scales is not None
    np.testing.assert_array_equal(parts.scales, 2 * found.scales + 1)
    np.testing.assert_array_equal(parts.d, found.d.astype(np.float16).astype(np.float32) * np.float32(fit.part))
    runs = digits_of(fit.grid)[grid_rows(fit.grid).ranks[found.halves[..., 1], found.halves[..., 0]]]
    bits = 3 if GRIDS[fit.grid].base == 8 else 2
    q = parts.q.reshape(8, 256)
    np.testing.assert_array_equal(q & ((1 << bits) - 1), runs.reshape(8, 256))
    flag = np.repeat(found.lowered, 8, axis=1) if signs is None else np.unpackbits(signs, axis=-1, bitorder="little")
    np.testing.assert_array_equal(q >> bits, flag.reshape(8, 256))


@pytest.mark.parametrize("name", GRID_FITS)
def test_columns_of_no_importance_at_all(name: str) -> None:
    assert np.isfinite(coded(name, NORMAL, np.zeros(512, np.float32))).all()


def test_signs_that_have_to_be_even() -> None:
    x, weight = NORMAL.reshape(-1, 256), np.ones((8, 256), np.float32)
    size, signs = folded(x, weight, even=True)
    assert (np.bitwise_count(signs) % 2 == 0).all()
    negative = np.unpackbits(signs, axis=-1, bitorder="little").astype(bool)
    assert np.array_equal(np.where(negative, -size, size), x)
    runs = size.reshape(8, 32, 8)
    changed = (runs < 0).sum(-1)
    assert (changed <= 1).all()
    assert (np.abs(runs).argmin(-1)[changed == 1] == (runs < 0).argmax(-1)[changed == 1]).all()
    free, signs = folded(x, weight, even=False)
    assert np.array_equal(free, np.abs(x))
    assert np.array_equal(np.unpackbits(signs, axis=-1, bitorder="little").astype(bool), x < 0)


@given(seed=st.integers(0, 2**32 - 1), largest=st.integers(0, 15))
def test_scales_that_are_odd_multiples_are_found(seed: int, largest: int) -> None:
    rng = np.random.default_rng(seed)
    fit, d = GRID_FITS["IQ2_XXS"], rng.uniform(0.01, 1, 16).astype(np.float16).astype(np.float32)
    odd = 2 * rng.integers(0, largest + 1, (8, 16)).astype(np.float32) + 1
    step = d * np.float32(fit.part)
    found, whole = whole_scales(fit, step * odd, rng.uniform(0.1, 1, odd.shape).astype(np.float32))
    np.testing.assert_array_equal(found * np.float32(fit.part) * whole, step * odd)
