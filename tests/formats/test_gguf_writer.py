"""The GGUF writer, read back by our reader and by the `gguf` package's."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sotol.formats import GGUFWriter, Weight, read_gguf, write_gguf
from sotol.formats.gguf import SPLIT_KEYS
from sotol.quant import ENCODINGS, Layout, UInt8Array, plain_encoding

SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
WHOLE = {
    f"{sign}int{bits}": (0 if sign else -(2 ** (bits - 1)), 2 ** (bits - (not sign)) - 1)
    for sign in ("u", "")
    for bits in (8, 16, 32, 64)
}
SCALARS: dict[str, st.SearchStrategy[object]] = {
    **{name: st.integers(low, high) for name, (low, high) in WHOLE.items()},
    "float32": st.floats(width=32, allow_nan=False),
    "float64": st.floats(allow_nan=False),
    "bool": st.booleans(),
    "string": TEXT,
}
VALUES = st.sampled_from(list(SCALARS)).flatmap(
    lambda name: (
        st.tuples(st.just(name), SCALARS[name]) | st.tuples(st.just(f"{name}[]"), st.lists(SCALARS[name], max_size=5))
    )
)
NESTED = st.recursive(
    st.lists(st.integers(-9, 9), min_size=1) | st.lists(TEXT),
    lambda inner: st.lists(inner, min_size=1, max_size=3),
    max_leaves=6,
)


@st.composite
def some_weights(draw: st.DrawFn) -> list[Weight]:
    names = draw(st.lists(TEXT, unique=True, max_size=5))
    weights = []
    for name in names:
        encoding = draw(st.sampled_from(list(ENCODINGS.values())))
        shape = (*draw(st.lists(st.integers(1, 3), max_size=3)), draw(st.integers(1, 2)) * encoding.values)
        size = int(np.prod(shape)) // encoding.values * encoding.size
        data = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 256, size, np.uint8)
        weights.append(Weight.from_bytes(name, encoding, shape, data))
    return weights


@SAME_FOLDER
@given(
    values=st.dictionaries(TEXT.filter(lambda key: key not in SPLIT_KEYS), VALUES, max_size=8),
    weights=some_weights(),
    alignment=st.sampled_from([1, 8, 32, 256]),
)
def test_what_is_written_is_read_back(
    tmp_path: Path, values: dict[str, tuple[str, object]], weights: list[Weight], alignment: int
) -> None:
    metadata = {name: value for name, (_, value) in values.items()} | {"general.alignment": alignment}
    types = {name: kind for name, (kind, _) in values.items()}
    path = tmp_path / "ours.gguf"
    assert write_gguf(path, metadata, weights, types=types) == (path,)
    ours = read_gguf(path)
    assert ours.metadata == metadata
    assert ours.types == types | {"general.alignment": "uint32"}
    assert list(ours.weights) == [weight.name for weight in weights]
    for weight in weights:
        again = ours.weights[weight.name]
        assert (again.encoding, again.shape) == (weight.encoding, weight.shape)
        assert np.array_equal(again.rows(), weight.rows())
    again_path = tmp_path / "again.gguf"
    write_gguf(again_path, ours.metadata, ours.weights.values(), types=ours.types)
    assert again_path.read_bytes() == path.read_bytes()


@SAME_FOLDER
@given(value=NESTED)
def test_lists_in_lists_are_read_back(tmp_path: Path, value: list[object]) -> None:
    def depth(item: object) -> int:
        return 1 + max(map(depth, item), default=0) if isinstance(item, list) else 0

    path = tmp_path / "nested.gguf"
    if depth(value) > 4:
        with pytest.raises(ValueError, match="nested at most 4 deep"):
            write_gguf(path, {"a": value}, [])
    else:
        write_gguf(path, {"a": value}, [])
        assert read_gguf(path).metadata == {"a": value}


def test_the_gguf_package_reads_what_we_write(tmp_path: Path) -> None:
    metadata: dict[str, object] = {
        "general.architecture": "llama",
        "general.alignment": 64,
        "whole": 7,
        "negative": -7,
        "large": 1 << 40,
        "half": 0.5,
        "yes": True,
        "exact": np.float64(0.1),
        "byte": np.uint8(9),
        "words": ["a", "é", ""],
        "numbers": [1, -2],
        "halves": [0.5, 1],
        "array": np.array([1.5, 2.5], np.float64),
    }
    weights = [
        Weight.from_values(f"{name}.weight", np.linspace(-1, 1, 1024, dtype=np.float32).reshape(2, 512), name)
        for name, encoding in ENCODINGS.items()
        if encoding.encode is not None and name not in ("Q1_0", "Q2_0")  # which the package can't decode
    ]
    path = tmp_path / "ours.gguf"
    write_gguf(path, metadata, weights)
    theirs = gguf.GGUFReader(path)
    assert {name: theirs.fields[name].contents() for name in metadata} == {
        **metadata,
        "array": [1.5, 2.5],
    }
    kinds = {name: [kind.name for kind in theirs.fields[name].types] for name in metadata}
    assert [kinds[name] for name in ("whole", "negative", "large", "half", "yes", "exact", "byte")] == [
        ["UINT32"], ["INT32"], ["UINT64"], ["FLOAT32"], ["BOOL"], ["FLOAT64"], ["UINT8"]
    ]  # fmt: skip
    assert [kinds[name] for name in ("words", "numbers", "halves", "array")] == [
        ["ARRAY", "STRING"], ["ARRAY", "INT32"], ["ARRAY", "FLOAT32"], ["ARRAY", "FLOAT64"]
    ]  # fmt: skip
    for tensor, weight in zip(theirs.tensors, weights, strict=True):
        assert (tensor.name, tensor.tensor_type.name) == (weight.name, weight.encoding.name)
        assert tuple(tensor.shape) == weight.shape[::-1]
        assert tensor.data_offset % 64 == 0
        plain = tensor.data.dtype == np.float64  # which the package reads, and does not decode
        found = tensor.data.astype(np.float32) if plain else gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(found, weight.decode())


def test_a_small_model_is_not_split(tmp_path: Path) -> None:
    weight = Weight.from_values("w", np.ones(32, np.float32), "F32")
    assert write_gguf(tmp_path / "m.gguf", {}, [weight], part_bytes=1) == (tmp_path / "m.gguf",)
    parts = write_gguf(tmp_path / "m.gguf", {}, [weight, replace(weight, name="v")], part_bytes=1)
    assert [part.name for part in parts] == ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    assert {field for field in gguf.GGUFReader(parts[1]).fields if not field.startswith("GGUF.")} == {
        "split.no",
        "split.count",
        "split.tensors.count",
        "split.id",
    }


def test_a_file_can_be_replaced_by_what_is_read_from_it(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(path, {"n": 1}, [Weight.from_values("w", np.arange(64, dtype=np.float32), "F32")])
    ours = read_gguf(path)
    write_gguf(path, {"n": 2}, ours.weights.values())
    assert read_gguf(path).weights["w"].decode().tolist() == ours.weights["w"].decode().tolist() == list(range(64))
    with pytest.raises(ValueError, match="metadata 'bad'"):
        write_gguf(path, {"bad": object()}, [])
    assert read_gguf(path).metadata == {"n": 2}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("metadata", "types", "message"),
    [
        ({"a": None}, {}, "metadata 'a' has NoneType; GGUF holds str, bool"),
        ({"a": [1, "x"]}, {}, "metadata 'a' has int, str; GGUF holds"),
        ({"a": 1 << 64}, {}, "metadata 'a' has integers beyond 64 bits"),
        ({"a": 300}, {"a": "uint8"}, "metadata 'a' does not fit uint8"),
        ({"a": 1e300}, {}, "metadata 'a' does not fit float32"),
        ({"a": 1}, {"a": "complex64"}, "metadata 'a': 'complex64' is not a type; types are uint8"),
        ({"a": 1}, {"a": "uint8[]"}, "metadata 'a' must be a list for 'uint8"),
        ({"a": 1}, {"a": "string"}, "metadata 'a' must be a string, not 1"),
        ({"a": "\ud800"}, {}, "metadata 'a': .* can't be written as UTF-8"),
        ({"k" * 70000: 1}, {}, "a metadata key is 70000 bytes long, and the limit is 65535"),
        ({"general.alignment": 24}, {}, "general.alignment must be a power of two up to 1048576, not 24"),
    ],
)
def test_metadata_that_gguf_cannot_hold(
    tmp_path: Path, metadata: dict[str, object], types: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_gguf(tmp_path / "m.gguf", metadata, [], types=types)
    assert not list(tmp_path.iterdir())


def test_weights_that_gguf_cannot_hold(tmp_path: Path) -> None:
    weight = Weight.from_values("w", np.ones((1, 1, 1, 1, 2), np.float32), "F32")
    with pytest.raises(ValueError, match=r"weight 'w' has shape .*; GGUF allows 4 dimensions"):
        write_gguf(tmp_path / "m.gguf", {}, [weight])
    with pytest.raises(ValueError, match="weight 'v' is there twice"):
        write_gguf(tmp_path / "m.gguf", {}, [replace(weight, name="v")] * 2)


def test_an_encoding_that_only_other_formats_have(tmp_path: Path) -> None:
    encoding = plain_encoding(Layout(4, 64))
    weight = Weight.from_bytes("w", encoding, (2, 64), np.zeros(2 * encoding.size, np.uint8))
    with pytest.raises(ValueError, match="weight 'w' is stored as q4_64x1, which GGUF does not have"):
        write_gguf(tmp_path / "m.gguf", {}, [weight])


def test_weights_come_one_after_the_other_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    first, second = (np.arange(start, start + 128, dtype=np.float32).reshape(4, 32) for start in (0, 500))
    with GGUFWriter(path, {"general.alignment": 64, "n": 1}) as writer:
        writer.add("first", ENCODINGS["F32"], first.shape)
        writer.add("second", ENCODINGS["Q8_0"], second.shape)
        encode = ENCODINGS["Q8_0"].encode
        assert encode is not None
        writer.write("second", (encode(row) for row in second))
        writer.write("first", [first.view(np.uint8)])
        assert not path.exists()
    ours = read_gguf(path)
    assert list(ours.weights) == ["first", "second"]
    assert np.array_equal(ours.weights["first"].decode(), first)
    again = Weight.from_values("second", second, "Q8_0")
    assert np.array_equal(ours.weights["second"].rows(), again.rows())
    whole = tmp_path / "whole.gguf"
    write_gguf(whole, {"general.alignment": 64, "n": 1}, ours.weights.values())
    assert whole.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_nothing_is_left_of_a_file_that_was_not_ended(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"the one before")
    with pytest.raises(error):
        use_writer(path, ("add", "w"), ("write", "w", interrupted(error)))
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"the one before"


def interrupted(error: type[BaseException]) -> Iterator[UInt8Array]:
    yield np.zeros(128, np.uint8)
    raise error


def use_writer(path: Path, *steps: tuple[Any, ...]) -> None:
    """A writer of a file of F32 vectors of 32: announces ("add", name) and writes ("write", name, pieces)."""
    with GGUFWriter(path, {}) as writer:
        for what, name, *pieces in steps:
            if what == "add":
                writer.add(name, ENCODINGS["F32"], (32,))
            else:
                writer.write(name, *pieces)


ROW = np.zeros(128, np.uint8)
ADD, WRITE = ("add", "w"), ("write", "w", [ROW])


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([ADD, WRITE, ("add", "v")], "weight 'v' is announced after others were written: announce all first"),
        ([ADD, ADD], "weight 'w' is there twice"),
        ([ADD, ("write", "w", [ROW[:64]])], "weight 'w' has 128 bytes, and 64 were given"),
        ([ADD, ("write", "w", [ROW, ROW])], "weight 'w' has 128 bytes, and 256 of uint8 were given"),
        ([ADD, ("write", "w", [ROW.view(np.float32)])], "weight 'w' has 128 bytes, and 32 of float32 were given"),
        ([ADD, ("add", "v"), WRITE], r"weight 'v' \(of 1\) was announced and not written"),
        ([ADD, WRITE, WRITE], "weight 'w' was written before"),
        ([WRITE], "weight 'w' was not announced"),
    ],
)
def test_weights_that_are_not_written_as_they_were_announced(
    tmp_path: Path, steps: list[tuple[Any, ...]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        use_writer(tmp_path / "m.gguf", *steps)
    assert not list(tmp_path.iterdir())


def test_parts_by_number_of_weights_and_what_progress_is_told(tmp_path: Path) -> None:
    weight = Weight.from_values("w", np.ones((4, 32), np.float32), "F32")
    told: list[int] = []
    parts = write_gguf(
        tmp_path / "m.gguf", {}, [replace(weight, name=f"w{i}") for i in range(5)], part_weights=2, progress=told.append
    )
    assert [len(gguf.GGUFReader(part).tensors) for part in parts] == [2, 2, 1]
    assert sum(told) == 5 * weight.nbytes
    assert len(read_gguf(parts[0]).weights) == 5


def test_an_error_in_a_later_part_leaves_none_of_them(tmp_path: Path) -> None:
    weight = Weight.from_values("w", np.ones((4, 32), np.float32), "F32")

    def stop(_: int) -> None:
        if len(list(tmp_path.iterdir())) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_gguf(tmp_path / "m.gguf", {}, [weight, replace(weight, name="v")], part_weights=1, progress=stop)
    assert not list(tmp_path.iterdir())


def test_texts_that_are_not_utf8_stay_as_they_were_read(tmp_path: Path) -> None:
    tokens = [b"\xff".decode(errors="surrogateescape"), "a"]
    write_gguf(tmp_path / "m.gguf", {"tokenizer.ggml.tokens": tokens}, [])
    assert read_gguf(tmp_path / "m.gguf").metadata["tokenizer.ggml.tokens"] == tokens
