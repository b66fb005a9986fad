"""F32, F16 and BF16 against NumPy and the `gguf` package."""

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sotol.quant import ENCODINGS
from sotol.quant.floats import decode_bf16, decode_f16, decode_f32, encode_bf16, encode_f16, encode_f32

ANY = hnp.arrays(np.float32, hnp.array_shapes(max_dims=2, max_side=8), elements=st.floats(width=32))


@given(x=ANY)
def test_f32_is_exact_and_a_view(x: np.ndarray) -> None:
    stored = encode_f32(x)
    assert np.array_equal(decode_f32(stored).view(np.uint32), x.view(np.uint32))
    assert np.shares_memory(decode_f32(stored), stored)


@given(x=hnp.arrays(np.float32, (3, 8), elements=st.floats(-65504, 65504, width=32)))
def test_f16_is_rounded_to_the_nearest(x: np.ndarray) -> None:
    assert np.array_equal(decode_f16(encode_f16(x)), x.astype(np.float16).astype(np.float32))


def test_f16_refuses_numbers_that_would_become_infinite() -> None:
    with pytest.raises(ValueError, match="65520 is beyond the range of float16"):
        encode_f16(np.array([65520], np.float32))


@given(x=ANY)
def test_bf16_equals_gguf(x: np.ndarray) -> None:
    theirs = gguf.quants.quantize(x, gguf.GGMLQuantizationType.BF16)
    assert np.array_equal(encode_bf16(x), theirs)
    kept = decode_bf16(encode_bf16(x))
    assert np.array_equal(np.isnan(kept), np.isnan(x))


@given(x=hnp.arrays(np.float32, 8, elements=st.floats(2.0**-120, 2.0**100, width=32)))
def test_bf16_errs_by_at_most_one_part_in_256(x: np.ndarray) -> None:
    assert (np.abs(decode_bf16(encode_bf16(x)) - x) <= x * 2.0**-8).all()


@given(x=ANY)
def test_f64_holds_every_f32(x: np.ndarray) -> None:
    encoding = ENCODINGS["F64"]
    assert encoding.encode is not None
    assert encoding.decode is not None
    np.testing.assert_array_equal(encoding.decode(encoding.encode(x)), x)


def test_f64_is_rounded_and_becomes_infinite_beyond_f32() -> None:
    decode = ENCODINGS["F64"].decode
    assert decode is not None
    x = np.array([1 + 2.0**-24, 1 + 3 * 2.0**-24, 1e300, -1e300, 0.1], "<f8")
    assert decode(x.view(np.uint8)).tolist() == [1, 1 + 2.0**-22, np.inf, -np.inf, np.float32(0.1)]


@pytest.mark.parametrize("name", ["I8", "I16", "I32", "I64"])
def test_whole_numbers(name: str) -> None:
    """The least and the largest of the type, and some between; 2^53 + 1 is rounded."""
    encoding = ENCODINGS[name]
    assert encoding.decode is not None
    info = np.iinfo(f"i{encoding.size}")
    x = np.array([info.min, -1, 0, 1, 100, info.max], f"<i{encoding.size}")
    assert encoding.decode(x.view(np.uint8)).tolist() == x.astype(np.float32).tolist()
    assert encoding.encode is None


@pytest.mark.parametrize(("name", "bits"), [("F64", "<u8"), ("F16", "<u2")])
def test_a_signaling_nan_of_a_broken_file_is_nan_without_a_warning(name: str, bits: str) -> None:
    """Of which CPUs tell, some at F64 and others at F16, and NumPy would print a line for users."""
    decode = ENCODINGS[name].decode
    assert decode is not None
    exponent = {"<u8": 0x7FF << 52, "<u2": 0x1F << 10}[bits]
    assert np.isnan(decode(np.array([exponent + 1, exponent + 2], bits).view(np.uint8))).all()
