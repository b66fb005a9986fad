"""The table of encodings, and what all of them share, against the `gguf` package."""

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sotol.quant
from sotol.quant import BY_TYPE, ENCODINGS, FACTORS, Encoding, encoding_named, recode
from sotol.quant.encoding import as_blocks, require_range, to_half

ABLE = {name: encoding for name, encoding in ENCODINGS.items() if encoding.decode is not None}
WHOLES = ["I8", "I16", "I32", "I64"]
HALVES = {  # where a block has float16; IQ1_M's is in pieces, and in byte 55 the upper one
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q5_0": (0,),
    "Q5_1": (0, 2),
    "Q8_0": (0,),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "IQ4_NL": (0,),
    "IQ4_XS": (0,),
    "MXFP4": (),
    "NVFP4": (),
    "TQ1_0": (52,),
    "TQ2_0": (64,),
    "Q1_0": (0,),
    "Q2_0": (0,),
    "IQ2_XXS": (0,),
    "IQ2_XS": (0,),
    "IQ2_S": (0,),
    "IQ3_XXS": (0,),
    "IQ3_S": (0,),
    "IQ1_S": (0,),
    "IQ1_M": (),
}
JUDGED = [name for name in ABLE if name not in {*WHOLES, "F64", "Q1_0", "Q2_0"}]  # what the gguf package decodes
FOR_WEIGHTS = [name for name in ABLE if name not in WHOLES]


def test_the_table_has_every_type_of_ggml() -> None:
    theirs = {kind.name: (int(kind), *gguf.GGML_QUANT_SIZES[kind]) for kind in gguf.GGMLQuantizationType}
    ours = {encoding.name: (encoding.ggml_type, encoding.values, encoding.size) for encoding in ENCODINGS.values()}
    assert ours.items() >= theirs.items()
    assert all(ENCODINGS[encoding.name] is encoding for encoding in BY_TYPE.values())
    assert len(BY_TYPE) == len(ENCODINGS)


def test_the_encodings_that_can_be_run() -> None:
    """All but what GGML has for activations. Nobody makes weights of whole numbers."""
    assert [name for name in ENCODINGS if name not in ABLE] == ["Q8_1", "Q8_K"]
    assert [name for name, encoding in ABLE.items() if encoding.encode is None] == WHOLES
    assert {name for name, encoding in ABLE.items() if encoding.integer} == HALVES.keys()


def test_exported_names_exist() -> None:
    assert all(hasattr(sotol.quant, name) for name in sotol.quant.__all__)


def judged(encoding: Encoding, data: np.ndarray) -> np.ndarray:
    """What the gguf package decodes."""
    values: np.ndarray = gguf.quants.dequantize(data, gguf.GGMLQuantizationType(encoding.ggml_type))
    return values


@pytest.mark.parametrize("name", JUDGED)
@given(data=st.data())
def test_decode_equals_gguf_bit_for_bit_on_any_bytes(name: str, data: st.DataObject) -> None:
    encoding = ABLE[name]
    assert encoding.decode is not None
    rows, count = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    length = rows * count * encoding.size
    raw = data.draw(
        st.binary(min_size=length, max_size=length)
        | st.randoms(use_true_random=False).map(lambda r: r.randbytes(length))
    )
    blocks = np.frombuffer(raw, np.uint8).reshape(rows, count, encoding.size).copy()
    for at in HALVES.get(name, ()):  # an infinite scale times nothing is a NaN, whose sign is anybody's choice
        scales = blocks[..., at : at + 2].view("<f2")
        scales[~np.isfinite(scales)] = 1
    if name == "IQ1_M":
        blocks[..., 55] &= 15
    stored = blocks.reshape(rows, -1)
    ours = encoding.decode(stored)
    assert ours.dtype == np.float32
    assert ours.shape == (rows, count * encoding.values)
    with np.errstate(over="ignore"):  # a huge power of two of MXFP4
        theirs = judged(encoding, stored)
    assert np.array_equal(ours.view(np.uint32), theirs.view(np.uint32))


@pytest.mark.parametrize("name", JUDGED)
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-8, 1e-3, 1.0, 300.0]))
def test_decode_equals_gguf_bit_for_bit_on_encoded_weights(name: str, seed: int, scale: float) -> None:
    encoding = ABLE[name]
    assert encoding.decode is not None
    assert encoding.encode is not None
    x = (np.random.default_rng(seed).standard_normal((3, 512)) * scale).astype(np.float32)
    stored = encoding.encode(x)
    assert stored.dtype == np.uint8
    assert stored.shape == (3, 512 // encoding.values * encoding.size)
    assert np.array_equal(encoding.decode(stored).view(np.uint32), judged(encoding, stored).view(np.uint32))


# Codes that no block has: TQ1_0's trits end at 2, and the grids of IQ1 and IQ2 have digits in base 3.
UNUSED = {"TQ1_0": {3}} | {name: {3, 7} for name in HALVES if name.startswith(("IQ1", "IQ2"))}


@pytest.mark.parametrize("name", HALVES)
def test_the_parts_have_the_shapes_that_the_layout_promises(name: str) -> None:
    encoding = ABLE[name]
    integer = encoding.integer
    assert integer is not None
    assert integer.width * integer.groups == encoding.values
    data = np.random.default_rng(1).integers(0, 256, (2, 5, 3 * encoding.size), np.uint8)
    assert encoding.split is not None
    fields = encoding.split(data)
    assert fields.q.dtype == np.uint8
    assert fields.q.shape == (2, 5, 3, integer.groups, integer.width)
    assert int(fields.q.max()) == (max(set(range(1 << integer.bits)) - UNUSED.get(name, set())))
    assert fields.d.dtype == FACTORS[integer.factor].dtype
    assert fields.d.shape == ((2, 5, 3) if integer.factors == 1 else (2, 5, 3, integer.groups))
    assert np.shares_memory(fields.d, data) or encoding.recoded
    assert (fields.m is not None, fields.scales is not None) == (integer.minimum, integer.scales)
    assert (fields.minimums is not None) == (integer.minimum and integer.scales)
    assert fields.m is None or fields.m.shape == (2, 5, 3)
    for part in (fields.scales, fields.minimums):
        assert part is None or part.shape == (2, 5, 3, integer.groups)


@pytest.mark.parametrize("name", HALVES)
def test_leading_axes_and_strided_rows_do_not_matter(name: str) -> None:
    encoding = ABLE[name]
    data = np.random.default_rng(1).integers(0, 256, (4, 6, 2 * encoding.size), np.uint8)
    assert encoding.split is not None
    every_other = encoding.split(data[::2, 1:])
    for part, alone in zip(every_other, encoding.split(data[2, 3]), strict=True):
        assert (part is None) == (alone is None)
        if part is not None and alone is not None:
            assert np.array_equal(part[1, 2], alone, equal_nan=part.dtype.kind == "f")


@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_encode_refuses_what_it_cannot_hold(name: str, bad: float) -> None:
    encode = ABLE[name].encode
    assert encode is not None
    x = np.zeros(256, np.float32)
    x[77] = bad
    with pytest.raises(ValueError, match="NaN, an infinity or more"):
        encode(x)
    with pytest.raises(ValueError, match="is not a multiple of the block"):
        encode(x[:255])


# What a second round of encoding may lose, in parts of the largest number: 0 where what was decoded is found again. A
# search for whole scales and minimums of groups tries some of them only, and grids are searched by their neighbours.
SECOND_LOSS = {"Q2_K": 0.06, "Q3_K": 0.02, "Q4_K": 0.01, "Q5_K": 0.025, "IQ2_XXS": 0.25, "IQ2_XS": 0.25, "IQ2_S": 0.25,
               "IQ3_XXS": 0.12, "IQ3_S": 0.12, "IQ1_S": 0.2, "IQ1_M": 0.2}  # fmt: skip


@pytest.mark.parametrize("name", FOR_WEIGHTS)
@pytest.mark.parametrize("seed", range(3))
def test_what_was_decoded_is_encoded_to_the_same(name: str, seed: int) -> None:
    encoding = ABLE[name]
    assert encoding.decode is not None
    assert encoding.encode is not None
    x = np.random.default_rng(seed).standard_normal((3, 512)).astype(np.float32)
    once = encoding.decode(encoding.encode(x))
    twice = encoding.decode(encoding.encode(once))
    assert np.abs(twice - once).max() <= SECOND_LOSS.get(name, 0) * np.abs(once).max()
    assert np.square(twice - once).mean() <= 0.2 * np.square(once - x).mean()


@pytest.mark.parametrize("name", [name for name, encoding in ABLE.items() if encoding.recoded])
def test_recoded_rows_stand_for_the_same(name: str) -> None:
    encoding = ABLE[name]
    assert encoding.recoded is not None
    assert encoding.decode is not None
    data = np.random.default_rng(2).integers(0, 120, (3, 2 * encoding.size), np.uint8)  # finite scales
    moved = encoding_named(encoding.recoded)
    assert moved.decode is not None
    assert moved.kind == encoding.kind
    rows = recode(encoding, data)
    assert rows.shape == (3, 2 * encoding.values // moved.values * moved.size)
    np.testing.assert_array_equal(moved.decode(rows).view(np.uint32), encoding.decode(data).view(np.uint32))


def test_blocks_and_halves() -> None:
    assert as_blocks(np.zeros((3, 12), np.uint8), 4).shape == (3, 3, 4)
    with pytest.raises(ValueError, match="the last axis, 12, is not a multiple of the block, 5"):
        as_blocks(np.zeros((3, 12), np.uint8), 5)
    with pytest.raises(ValueError, match="70000 is beyond the range of float16"):
        to_half(np.array([1, -7e4], np.float32))
    assert np.isinf(to_half(np.array([np.inf], np.float32))).all()
    require_range(np.array([-(2.0**28), 0, 2.0**28], np.float32))
