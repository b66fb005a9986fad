"""Searches for scales: what importance is for, order of work, and errors no larger than a spread of the range has."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sotol.quant import ENCODINGS, FITS, WEIGHTED, encode_fitted, find
from sotol.quant.search import FINE, Guesses, fit_line, fit_scale, nearest_of, total, weights_of

RNG = np.random.default_rng(5)
NORMAL = RNG.standard_normal((16, 512)).astype(np.float32)
IMPORTANCE = np.exp(RNG.standard_normal(512)).astype(np.float32)


def weighted_error(name: str, stored: np.ndarray, weight: np.ndarray) -> float:
    decode = ENCODINGS[name].decode
    assert decode is not None
    return float(np.mean(weight * (decode(stored).astype(np.float64) - NORMAL) ** 2))


@pytest.mark.parametrize("name", FITS)
def test_what_counts_more_errs_less(name: str) -> None:
    encode = ENCODINGS[name].encode
    assert encode is not None
    informed = weighted_error(name, encode_fitted(FITS[name], NORMAL, IMPORTANCE), IMPORTANCE)
    assert informed < weighted_error(name, encode(NORMAL), IMPORTANCE)


@pytest.mark.parametrize("name", FITS)
def test_blocks_do_not_depend_on_those_beside_them(name: str) -> None:
    """Any cut of the rows gives the same bytes: so threads, pieces and native code do, too."""
    whole = encode_fitted(FITS[name], NORMAL, IMPORTANCE)
    apart = [encode_fitted(FITS[name], row, IMPORTANCE) for row in NORMAL]
    assert np.array_equal(whole, np.stack(apart))


@pytest.mark.parametrize("name", FITS)
def test_importance_of_columns_or_of_each_number(name: str) -> None:
    each = np.broadcast_to(IMPORTANCE, NORMAL.shape)
    assert np.array_equal(encode_fitted(FITS[name], NORMAL, IMPORTANCE), encode_fitted(FITS[name], NORMAL, each))


@pytest.mark.parametrize("name", FITS)
def test_blocks_are_split_as_they_were_joined(name: str) -> None:
    fit, split = FITS[name], ENCODINGS[name].split
    assert split is not None
    blocks = NORMAL.reshape(-1, fit.layout.values)
    found, parts = find(fit, blocks, None), split(encode_fitted(fit, blocks).reshape(-1))
    assert np.array_equal(parts.q.reshape(len(blocks), -1), found.q)
    assert np.array_equal(parts.d, found.d.astype(np.float16))
    if fit.scale_bits:
        assert parts.scales is not None
        assert np.array_equal(parts.scales.view(np.uint8), found.scales)
    if fit.layout.minimum:
        assert parts.m is not None
        assert np.array_equal(parts.m, (-found.m if fit.scale_bits else found.m).astype(np.float16))


@pytest.mark.parametrize("name", FITS)
@pytest.mark.parametrize("value", [0.0, -0.0, 1e-30, 3.0, -3.0])
def test_constant_blocks_with_importance(name: str, value: float) -> None:
    """To half a step of a group's integer scale, where it has one: of several exact scales, groups take any."""
    x, decode = np.full(512, value, np.float32), ENCODINGS[name].decode
    assert decode is not None
    assert np.allclose(decode(encode_fitted(FITS[name], x, IMPORTANCE)), x, rtol=0.5 / 31, atol=1e-6)


@pytest.mark.parametrize("name", FITS)
def test_columns_of_no_importance_at_all(name: str) -> None:
    decode = ENCODINGS[name].decode
    assert decode is not None
    assert np.isfinite(decode(encode_fitted(FITS[name], NORMAL, np.zeros(512, np.float32)))).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e9])
def test_what_no_block_holds(bad: float) -> None:
    with pytest.raises(ValueError, match="a NaN, an infinity or more"):
        encode_fitted(FITS["Q4_K"], np.full(256, bad, np.float32), IMPORTANCE[:256])


@given(x=hnp.arrays(np.float32, (16, 32), elements=st.floats(-100, 100, width=32)))
def test_more_guesses_never_explain_less(x: np.ndarray) -> None:
    weight, numbers = np.ones_like(x), tuple(range(-8, 8))

    def left(guesses: Guesses) -> np.ndarray:
        scale = fit_scale(x, weight, numbers, guesses)
        q = nearest_of(numbers)(np.divide(x, scale, out=np.zeros_like(x), where=scale != 0))
        return total((x - scale * q) ** 2)

    assert (left(FINE) <= left(Guesses(0, 0.0, 0)) * np.float32(1.001) + np.float32(1e-3)).all()


@given(x=hnp.arrays(np.float32, (32, 16), elements=st.floats(-100, 100, width=32)))
def test_lines_begin_at_zero_or_below_and_beat_the_spread_of_the_range(x: np.ndarray) -> None:
    weight = np.ones_like(x)

    def left(scale: np.ndarray, offset: np.ndarray) -> np.ndarray:
        q = nearest_of(tuple(range(16)))(np.divide(x - offset, scale, out=np.zeros_like(x), where=scale != 0))
        return total((x - scale * q - offset) ** 2)

    scale, offset = fit_line(x, weight, 15, Guesses(10, 0.1))
    low = np.minimum(x.min(0), np.float32(0))
    assert (offset <= 0).all()
    assert (scale >= 0).all()
    assert (left(scale, offset) <= left((x.max(0) - low) / np.float32(15), low) * np.float32(1.001) + 1e-3).all()


@given(x=hnp.arrays(np.float32, 50, elements=st.floats(-150, 150, width=32)))
def test_the_nearest_number_of_a_table(x: np.ndarray) -> None:
    table = FITS["IQ4_NL"].numbers
    errors = np.abs(np.array(table) - x.astype(np.float64)[:, None])
    np.testing.assert_array_equal(np.abs(nearest_of(table)(x).astype(np.float64) - x), errors.min(-1))


@pytest.mark.parametrize("name", [name for name in WEIGHTED if name not in FITS])
def test_grids_know_importance_too(name: str) -> None:
    encode = ENCODINGS[name].encode
    assert encode is not None
    x, importance = NORMAL[:4], np.square(IMPORTANCE)
    decode = ENCODINGS[name].decode
    assert decode is not None
    errors = [
        float(np.mean(importance * (decode(stored).astype(np.float64) - x) ** 2))
        for stored in (WEIGHTED[name](x, importance), encode(x))
    ]
    assert errors[0] < 0.95 * errors[1]


def test_all_numbers_of_more_bits_count_alike_where_nothing_is_known() -> None:
    """So a search without importance is that with the same importance for all, where only importance counts."""
    assert not FITS["Q6_K"].deviations
    encode = ENCODINGS["Q6_K"].encode
    assert encode is not None
    assert np.array_equal(encode(NORMAL), encode_fitted(FITS["Q6_K"], NORMAL, np.ones_like(IMPORTANCE)))


FEW_BITS = ("Q3_K", "Q2_K")


@pytest.mark.parametrize("name", [name for name in FITS if name not in FEW_BITS])
def test_without_importance_plain_errors_are_least(name: str) -> None:
    encode = ENCODINGS[name].encode
    assert encode is not None
    plain, one = encode_fitted(FITS[name], NORMAL), np.ones_like(NORMAL)
    for other in (IMPORTANCE, np.square(NORMAL)):
        assert weighted_error(name, plain, one) < weighted_error(name, encode_fitted(FITS[name], NORMAL, other), one)


def test_larger_numbers_count_more_where_nothing_is_known() -> None:
    """Of codes of few bits."""
    x = RNG.standard_normal((16, 16, 32)).astype(np.float32)  # [groups, width, L]
    squares = (x.astype(np.float64) ** 2).mean(1, keepdims=True)
    scale = weights_of(FITS["Q3_K"], x, None)
    np.testing.assert_allclose(scale, squares / 4 + x.astype(np.float64) ** 2, rtol=1e-5)
    line = weights_of(FITS["Q2_K"], x, None)
    np.testing.assert_allclose(line, np.sqrt(squares) + np.abs(x), rtol=1e-5)
