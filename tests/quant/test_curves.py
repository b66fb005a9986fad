"""IQ4_NL, IQ4_XS, MXFP4, NVFP4: the factors of one byte by their definitions, GGML's rounding, bounds of errors."""

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sotol.quant import ENCODINGS
from sotol.quant.curves import to_e4m3
from sotol.quant.layout import decode_e4m3_half, decode_e8m0_half

BYTES = np.arange(256, dtype=np.uint8)
NORMAL = np.random.default_rng(7).standard_normal((32, 1024)).astype(np.float32)


def coded(name: str, x: np.ndarray) -> np.ndarray:
    """x encoded and decoded, in float64."""
    encoding = ENCODINGS[name]
    assert encoding.encode is not None
    assert encoding.decode is not None
    return encoding.decode(encoding.encode(x)).astype(np.float64)


def rms(name: str, x: np.ndarray) -> float:
    return float(np.sqrt(np.mean((coded(name, x) - x) ** 2)))


def test_e8m0_is_a_power_of_two() -> None:
    np.testing.assert_array_equal(decode_e8m0_half(BYTES).astype(np.float64), 2.0 ** (BYTES.astype(np.float64) - 128))


def test_e4m3_by_its_definition() -> None:
    """Four bits of exponent, biased by 7, three of mantissa; the sign is ignored, the NaN is 0."""
    for byte in range(256):
        exponent, mantissa = byte >> 3 & 15, byte & 7
        value = mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)
        assert decode_e4m3_half(BYTES)[byte] == (0 if byte == 0x7F else value / 2)


@given(x=hnp.arrays(np.float32, 64, elements=st.floats(0, 448, width=32)))
def test_e4m3_is_the_nearest(x: np.ndarray) -> None:
    every = 2 * decode_e4m3_half(BYTES[:127]).astype(np.float64)
    got = every[to_e4m3(x)]
    nearest = np.abs(every - x.astype(np.float64)[:, None]).min(-1)
    np.testing.assert_array_equal(np.abs(got - x), nearest)


@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-30, 1e-6, 1e-2, 1.0, 1000.0]))
def test_mxfp4_encodes_as_gguf(seed: int, scale: float) -> None:
    x = (np.random.default_rng(seed).standard_normal((4, 96)) * scale).astype(np.float32)
    x[0, :32] = 0
    encode = ENCODINGS["MXFP4"].encode
    assert encode is not None
    assert np.array_equal(encode(x), gguf.quants.quantize(x, gguf.GGMLQuantizationType.MXFP4))


@given(x=hnp.arrays(np.float32, (3, 64), elements=st.floats(-1000, 1000, width=32)))
def test_nvfp4_bound(x: np.ndarray) -> None:
    """A sixteenth of the largest of 16 for rounding the factor, and a sixth for half of the widest gap of E2M1."""
    groups = x.reshape(3, 4, 16).astype(np.float64)
    error = np.abs(coded("NVFP4", x).reshape(groups.shape) - groups)
    largest = np.abs(groups).max(-1, keepdims=True)
    assert (error <= largest * (1 / 16 + 1 / 6) + 6 * 2.0**-10).all()


def test_nvfp4_refuses_what_its_factors_do_not_reach() -> None:
    encode = ENCODINGS["NVFP4"].encode
    assert encode is not None
    assert encode(np.full(64, 2688, np.float32)).shape == (36,)
    with pytest.raises(ValueError, match="2700 is beyond the range of NVFP4, 2688: scale the weights"):
        encode(np.full(64, 2700, np.float32))


@pytest.mark.parametrize("name", ["IQ4_NL", "IQ4_XS", "MXFP4", "NVFP4"])
@given(x=hnp.arrays(np.float32, (2, 256), elements=st.floats(-100, 100, width=32)))
def test_no_number_errs_by_more_than_a_quarter_of_its_blocks_largest(name: str, x: np.ndarray) -> None:
    assert (np.abs(coded(name, x) - x) <= 0.27 * np.abs(x).max(-1, keepdims=True) + 6 * 2.0**-10).all()


@pytest.mark.parametrize(("name", "most"), [("IQ4_NL", 0.0765), ("IQ4_XS", 0.0775), ("MXFP4", 0.117), ("NVFP4", 0.096)])
def test_error_on_normal_weights(name: str, most: float) -> None:
    assert rms(name, NORMAL) < most


@pytest.mark.parametrize("name", ["IQ4_NL", "IQ4_XS", "NVFP4"])
@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 300.0])
def test_constant_blocks(name: str, value: float) -> None:
    x = np.full(512, value, np.float32)
    assert np.allclose(coded(name, x), x, rtol=0.04 if name == "NVFP4" else 2e-3)


def test_a_block_of_nvfp4_by_hand() -> None:
    """Factor 1 / 2 of E4M3's 1.0 (0x38); code 9 is -0.5, doubled, in the low half of the second group's byte 1."""
    block = np.zeros(36, np.uint8)
    block[1], block[4 + 8 + 1] = 0x38, 0x79
    decode = ENCODINGS["NVFP4"].decode
    assert decode is not None
    values = decode(block)
    assert (values[16 + 1], values[16 + 8 + 1]) == (-0.5, 6.0)
    assert np.count_nonzero(values) == 2
