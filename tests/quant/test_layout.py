"""Layouts as texts, what they refuse, and plain blocks: their bytes by hand, their numbers by the formula."""

from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.support.float_codes import FP4, e4m3, e5m2
from tests.support.layouts import random_fields, values_of

from sotol.quant import ENCODINGS, FACTORS, NUMBERS, BlockParts, Layout, encoding_named, join_plain, plain_encoding

TABLE = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    bits = draw(st.integers(1, 8))
    named = [name for name, table in NUMBERS.items() if len(table) == 1 << bits]
    kind = draw(st.sampled_from(["bias", "zeros", *(["table"] if bits <= 4 else []), *named]))
    width = draw(st.sampled_from([16, 32, 64, 96, 128, 256, 512]))
    groups = draw(st.integers(1, 512 // width))
    assume(width * groups % 32 == 0)
    factor = draw(st.sampled_from(list(FACTORS)))
    numbers: int | tuple[int, ...] | str = (
        kind
        if kind in named
        else TABLE[: 1 << bits]
        if kind == "table"
        else 0
        if kind == "zeros"
        else draw(st.integers(0, 128))
    )
    scales = draw(st.booleans())
    minimum = draw(st.booleans()) and FACTORS[factor].signed
    return Layout(
        bits,
        width,
        groups,
        numbers=numbers,
        factor=factor,
        scales=scales,
        minimum=minimum,
        zeros=kind == "zeros",
        floating=scales and not minimum and draw(st.booleans()),
    ).check()


@given(layouts())
def test_a_key_is_read_back(layout: Layout) -> None:
    assert Layout.parse(layout.key()) == layout


def test_keys_of_known_encodings() -> None:
    keys = {name: e.kind for name, e in ENCODINGS.items() if e.encode is not None}
    assert keys == {
        "F32": "F32",
        "F16": "F16",
        "BF16": "BF16",
        "Q4_0": "q4_32x1_b8",
        "Q4_1": "q4_32x1_m",
        "Q5_0": "q5_32x1_b16",
        "Q5_1": "q5_32x1_m",
        "Q8_0": "q8_32x1_b128",
        "Q2_K": "q2_16x16_s_m",
        "Q3_K": "q3_16x16_b4_s",
        "Q4_K": "q4_32x8_s_m",
        "Q5_K": "q5_32x8_s_m",
        "Q6_K": "q6_16x16_b32_s",
        "F64": "F32",
        "IQ4_NL": "q4_32x1_t8198adbfcfddeaf6010d192635455971",
        "IQ4_XS": "q4_32x8_t8198adbfcfddeaf6010d192635455971_s",
        "MXFP4": "q4_32x1_t000102030406080c00fffefdfcfaf8f4_e8m0",
        "NVFP4": "q4_16x4_t000102030406080c00fffefdfcfaf8f4_e4m3",
        "TQ1_0": "q2_256x1_b1",
        "TQ2_0": "q2_256x1_b1",
        "Q1_0": "q1_128x1_tff01",
        "Q2_0": "q2_64x1_b1",
        "IQ2_XXS": "q3_32x8_t08192b00f8e7d500_f32_s",
        "IQ2_XS": "q3_16x16_t08192b00f8e7d500_f32_s",
        "IQ2_S": "q3_16x16_t08192b00f8e7d500_f32_s",
        "IQ3_XXS": "q4_32x8_t040c141c242c343efcf4ece4dcd4ccc2_f32_s",
        "IQ3_S": "q4_32x8_t01030507090b0d0ffffdfbf9f7f5f3f1_f32_s",
        "IQ1_S": "q3_32x8_tf9010900f7ff0700_f32_s",
        "IQ1_M": "q3_16x16_tf9010900f7ff0700_f32_s",
    }


def test_keys_of_other_numbers() -> None:
    assert Layout(8, 128, numbers="e4m3", factor="f32").key() == "q8_128x1_ne4m3_f32"
    assert Layout(4, 64, numbers="nf4", factor="bf16").key() == "q4_64x1_nnf4_bf16"
    assert Layout(4, 16, 2, factor="e4m3", scales=True, floating=True).key() == "q4_16x2_e4m3_e"


@pytest.mark.parametrize("key", ["", "Q4_0", "q4", "q4_32", "q4_32x1_", "q4_32x1_m_s", "q4_32x1_b8_t00", "q4_32x1 "])
def test_other_texts_are_no_keys(key: str) -> None:
    with pytest.raises(ValueError, match="is no layout of numbers"):
        Layout.parse(key)
    with pytest.raises(ValueError, match="is no layout of numbers"):
        encoding_named(key + "?")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 0}, "codes have 1 to 8 bits"),
        ({"bits": 9}, "codes have 1 to 8 bits"),
        ({"width": 0}, "groups have one number or more"),
        ({"groups": 0}, "a block has one group or more"),
        ({"numbers": 129}, "a bias is from 0 to 128"),
        ({"numbers": -1}, "a bias is from 0 to 128"),
        ({"numbers": 8, "zeros": True}, "zero points and a bias exclude each other"),
        ({"numbers": TABLE, "zeros": True}, "zero points and a table exclude each other"),
        ({"numbers": TABLE[:15]}, "a table has an int8 for each code"),
        ({"numbers": (*TABLE[:15], 128)}, "a table has an int8"),
        ({"numbers": TABLE, "bits": 5}, "a table has an int8"),
        ({"factor": "f64"}, "factors are one of f16, f32, bf16, e8m0, e4m3"),
        ({"numbers": "e3m2"}, "floats are one of e4m3, e5m2, nf4, fp4, of as many codes"),
        ({"numbers": "e4m3"}, "floats are one of e4m3, e5m2, nf4, fp4, of as many codes"),
        ({"numbers": "nf4", "zeros": True}, "zero points and floats exclude each other"),
        ({"floating": True}, "floating multipliers are scales, without a minimum"),
        ({"floating": True, "scales": True, "minimum": True}, "floating multipliers are scales, without a minimum"),
        ({"factor": "e8m0", "minimum": True}, "a minimum has a factor with a sign"),
    ],
)
def test_what_is_no_layout_is_said(changes: dict[str, Any], message: str) -> None:
    layout = Layout(4, 32)._replace(**changes)
    with pytest.raises(ValueError, match=message):
        layout.check()
    with pytest.raises(ValueError, match=r"no (such )?layout of numbers"):
        plain_encoding(layout)


def test_floats_are_those_of_their_formats() -> None:
    """By the formulas; NF4 from the quantiles of a normal distribution that its numbers were made of."""
    for name, formula in (("e4m3", e4m3), ("e5m2", e5m2)):
        want = formula(np.arange(256))
        np.testing.assert_array_equal(NUMBERS[name], want)
        assert (np.signbit(NUMBERS[name]) == (np.arange(256) > 127)).all()
    end, normal = 0.9677083, NormalDist()  # arXiv 2305.14314: half of 1/32 and 1/30 left out
    below = [-normal.inv_cdf(x) for x in np.linspace(end, 0.5, 8)[:-1].tolist()]
    above = [normal.inv_cdf(x) for x in np.linspace(end, 0.5, 9)[:-1].tolist()]
    numbers = np.sort([*below, 0, *above])
    np.testing.assert_allclose(NUMBERS["nf4"], numbers / numbers.max(), rtol=0, atol=2e-7)
    np.testing.assert_array_equal(NUMBERS["fp4"], FP4)


def test_plain_blocks_of_codes_of_4_bits_are_runs_of_32() -> None:
    with pytest.raises(ValueError, match="48 codes of 4 bits, not runs of 32"):
        plain_encoding(Layout(4, 48))


@given(layout=layouts(), blocks=st.integers(1, 3), seed=st.integers(0, 99))
def test_plain_blocks_give_back_their_parts(layout: Layout, blocks: int, seed: int) -> None:
    encoding, fields = plain_encoding(layout), random_fields(layout, 2, blocks, seed)
    assert encoding_named(encoding.name).integer == layout
    assert encoding.split is not None
    assert encoding.decode is not None
    data = join_plain(layout, fields)
    assert data.shape == (2, blocks * encoding.size)
    for part, again in zip(fields, encoding.split(data), strict=True):
        assert (part is None) == (again is None)
        if part is not None and again is not None:
            np.testing.assert_array_equal(again, part)
    decoded = encoding.decode(data)
    assert decoded.dtype == np.float32
    assert decoded.shape == (2, blocks * layout.values)
    want = values_of(layout, fields)
    np.testing.assert_allclose(decoded, want, rtol=1e-6, atol=1e-6 * np.abs(want).max())


def test_a_plain_block_by_hand() -> None:
    """Factor and minimum of either group, zero points, then codes j and j + 16 in one byte."""
    layout = Layout(4, 32, 2, minimum=True, zeros=True)
    q = np.arange(64, dtype=np.uint8).reshape(1, 1, 2, 32) % 16
    fields = BlockParts(
        q,
        np.array([[[1, 2]]], np.float16),
        np.array([[[0.5, -1]]], np.float16),
        zeros=np.array([[[3, 200]]], np.uint8),
    )
    data = join_plain(layout, fields)
    assert data[0, :8].view("<f2").tolist() == [1, 2, 0.5, -1]
    assert data[0, 8:10].tolist() == [3, 200]
    assert data[0, 10:].tolist() == [17 * j for j in range(16)] * 2
    decode = plain_encoding(layout).decode
    assert decode is not None
    assert decode(data)[0, [0, 5, 32, 37]].tolist() == [-2.5, 2.5, -401, -391]
