"""Encoding by native code gives the very bytes of the searches in NumPy, on every level, from any threads."""

import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sotol.backends.cpu.running.fitting import ROUNDED, Encoder
from sotol.backends.cpu.target import Target, host_target
from sotol.quant import ENCODINGS, FITS, WEIGHTED, encode_fitted

WIDTH = 768


def rows(count: int, seed: int) -> np.ndarray:
    """Normal numbers of many sizes; a row of zeros, one of ones, and groups of only positive and negative numbers."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((count, WIDTH)) * np.exp(3 * rng.standard_normal((count, 1)))).astype(np.float32)
    x[0], x[1], x[2, :256], x[2, 256:] = 0, 1, np.abs(x[2, :256]), -np.abs(x[2, 256:])
    x[3, ::7] = 0
    return x


def held(name: str, x: np.ndarray) -> np.ndarray:
    """The same, but no more than NVFP4 has numbers for."""
    return np.clip(x, -2600, 2600) if name == "NVFP4" else x


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", [*WEIGHTED, *(name for name in ROUNDED if name not in WEIGHTED)])
def test_the_same_bytes(target: Target, name: str, weighted: bool) -> None:
    x = held(name, rows(11, 1))
    importance = np.exp(np.random.default_rng(2).standard_normal(WIDTH)).astype(np.float32) if weighted else None
    if importance is not None:
        importance[5:40] = 0
    encoder = Encoder([(ENCODINGS[name], weighted)], target=target)
    encode = ENCODINGS[name].encode
    assert encode is not None
    expected = encode(x) if importance is None or name not in WEIGHTED else WEIGHTED[name](x, importance)
    np.testing.assert_array_equal(encoder.encode(ENCODINGS[name], x, importance), expected)


@pytest.mark.parametrize("name", ["Q6_K", "Q4_K", "IQ2_XXS", "IQ3_S", "IQ1_M", *ROUNDED])
@pytest.mark.parametrize("scale", [1e-38, 1e-12, 1e-4, 10.0])
def test_the_same_bytes_of_small_and_large_numbers(name: str, scale: float) -> None:
    x, encode = held(name, rows(5, 3) * np.float32(scale)), ENCODINGS[name].encode
    assert encode is not None
    encoder = Encoder([(ENCODINGS[name], False)])
    np.testing.assert_array_equal(encoder.encode(ENCODINGS[name], x), encode(x))


@pytest.mark.parametrize("name", ROUNDED)
def test_numbers_of_the_same_magnitude(name: str) -> None:
    """Of several largest ones the first decides about the sign."""
    x, encode = (
        np.random.default_rng(4).choice(np.array([-2, 2, 0, -0.0, 1], np.float32), (16, 256)),
        ENCODINGS[name].encode,
    )
    assert encode is not None
    np.testing.assert_array_equal(Encoder([(ENCODINGS[name], False)]).encode(ENCODINGS[name], x), encode(x))


@pytest.mark.parametrize("name", ROUNDED)
def test_halves_of_a_step_and_what_is_just_below(name: str) -> None:
    x, encode = np.zeros((2, 256), np.float32), ENCODINGS[name].encode
    half = np.float32(0.5)
    below = np.nextafter(half, np.float32(0))
    x[0, ::32], x[1, ::32] = 1, 127
    for at, value in enumerate((half, -half, below, -below), start=1):
        x[:, at::32] = value
    assert encode is not None
    np.testing.assert_array_equal(Encoder([(ENCODINGS[name], False)]).encode(ENCODINGS[name], x), encode(x))


@pytest.mark.parametrize("name", ["Q6_K", "Q4_K", "IQ3_S", *ROUNDED])
@pytest.mark.parametrize("bad", [1e9, np.nan, np.inf, 2.0**27])
def test_what_no_block_holds(name: str, bad: float) -> None:
    x, encode = np.ones((2, 256), np.float32), ENCODINGS[name].encode
    x[1, 7] = bad
    assert encode is not None
    try:
        expected = encode(x)
    except ValueError as error:
        with pytest.raises(ValueError, match=re.escape(str(error))):
            Encoder([(ENCODINGS[name], False)]).encode(ENCODINGS[name], x)
    else:
        np.testing.assert_array_equal(Encoder([(ENCODINGS[name], False)]).encode(ENCODINGS[name], x), expected)


def test_threads_share_an_encoder() -> None:
    encoder = Encoder([(ENCODINGS["Q4_K"], False)], target=host_target())
    parts = [rows(7, seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda x: encoder.encode(ENCODINGS["Q4_K"], x), parts))
    for x, stored in zip(parts, together, strict=True):
        np.testing.assert_array_equal(stored, encode_fitted(FITS["Q4_K"], x))


def test_what_has_no_native_code_is_encoded_by_its_definition() -> None:
    x, encode = rows(4, 5), ENCODINGS["Q1_0"].encode
    assert encode is not None
    importance = np.ones(WIDTH, np.float32)
    np.testing.assert_array_equal(Encoder([]).encode(ENCODINGS["Q1_0"], x, importance), encode(x))
    with pytest.raises(ValueError, match="I8 has no encoder"):
        Encoder([]).encode(ENCODINGS["I8"], x)
