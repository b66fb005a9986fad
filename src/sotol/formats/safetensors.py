"""Reads SafeTensors files: named tensors as views of the mapped file, one file or several shards of a model.

The format: https://github.com/huggingface/safetensors (README, "Format"). Eight bytes with the header's length; the
header, a JSON object, which spaces may follow; the numbers, little-endian and row-major, without holes. Files are not
trusted, but kernels trust what is read here: the length, every key, type, shape and offset is checked against the
file's size before it is used, and a bad one raises a FormatError that names the file and the tensor. Knows nothing of
config.json and its like: `checkpoint_folder.py` does.
"""

import math
import operator
import re
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sotol.errors import FormatError, plain
from sotol.formats.files import ModelFile
from sotol.formats.folder import Folder
from sotol.formats.other_files import seen_instead
from sotol.formats.strict_json import parse_object
from sotol.formats.weights import Weight
from sotol.quant import ENCODINGS, Encoding
from sotol.quant.floats import UNSIGNED

__all__ = ["DTYPES", "INDEX", "SUFFIX", "read_safetensors", "shards_of"]

SUFFIX = ".safetensors"
INDEX = "model.safetensors.index.json"
SHARD = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors", re.DOTALL)

# Limits beyond any real model, but low enough that a hostile file is refused before it costs much memory or time.
MAX_HEADER_BYTES = 1 << 25  # a third of what the format's own library takes, and three times what real files have
MAX_TENSORS = 1 << 18  # of a file; the largest models have half as many in all of theirs
MAX_SHARDS = 4096
MAX_DIMENSIONS = 8
MAX_NAME = 4096  # characters

# A type's name in headers -> the bits of a number, and how sotol calls it where that differs. All but those of
# `quant.ENCODINGS` have names and sizes only: whoever can use them looks for the name.
DTYPES: Mapping[str, tuple[int, str]] = {
    "F64": (64, "F64"), "F32": (32, "F32"), "F16": (16, "F16"), "BF16": (16, "BF16"),
    "I64": (64, "I64"), "I32": (32, "I32"), "I16": (16, "I16"), "I8": (8, "I8"),
    "U64": (64, "U64"), "U32": (32, "U32"), "U16": (16, "U16"), "U8": (8, "U8"), "BOOL": (8, "BOOL"),
    "F8_E4M3": (8, "F8_E4M3"), "F8_E5M2": (8, "F8_E5M2"), "F8_E8M0": (8, "F8_E8M0"), "C64": (64, "C64"),
}  # fmt: skip
NUMBERS = {encoding.name: encoding for encoding in UNSIGNED}


class TensorInfo(NamedTuple):
    """A header's description of one tensor. All is checked, except for its place among the others."""

    name: str
    encoding: Encoding
    shape: tuple[int, ...]
    begin: int  # bytes from the start of the numbers
    end: int


def read_safetensors(path: Path) -> dict[str, Weight]:
    """The tensors of one file, as views of it. One without numbers is left out; a single number has the shape [1].

    FormatError for a file that is not valid or not a regular file, ModelNotFoundError if there is none, SotolError if
    it can't be opened.
    """
    file = ModelFile.open(path)
    start, header = read_header(file)
    infos = [tensor_info(path, name, said) for name, said in header.items() if name != "__metadata__"]
    check_metadata(path, header.get("__metadata__"))
    check_places(path, infos, len(file) - start)
    weights = {}
    for info in infos:
        if info.end > info.begin:
            data = np.frombuffer(file, np.uint8, info.end - info.begin, start + info.begin)
            weights[info.name] = Weight.from_bytes(info.name, info.encoding, info.shape or (1,), data)
    return weights


def read_header(file: ModelFile) -> tuple[int, dict[str, object]]:
    """Where the numbers begin, and the header as JSON."""
    path, size = file.path, len(file)
    if size < 10:
        raise FormatError(f"{path}: has {size} bytes: this is not a SafeTensors file, or it is cut short")
    first = np.empty(9, np.uint8)
    file.copy_to(first, 0)
    length = int.from_bytes(first[:8].tobytes(), "little")
    if first[8] != ord("{"):
        other = seen_instead(first.tobytes())
        raise FormatError(
            f"{path}: byte 8 is not {{, with which a header begins: this is not a SafeTensors file{other}"
        )
    if length > MAX_HEADER_BYTES:
        raise FormatError(f"{path}: the header's length is {length}, more than the {MAX_HEADER_BYTES} that sotol reads")
    if length > size - 8:
        raise FormatError(
            f"{path}: the header's length is {length}, but the file ends at {size}: it is cut short or damaged"
        )
    data = np.empty(length, np.uint8)
    file.copy_to(data, 8)
    text = data.tobytes()
    if (count := text.count(b'"data_offsets"')) > MAX_TENSORS:
        raise FormatError(f"{path}: the header has {count} tensors, more than the {MAX_TENSORS} that sotol accepts")
    if len(text.rstrip(b" ")) == 0 or text.rstrip(b" ")[-1:] != b"}":
        raise FormatError(f"{path}: the header does not end with }}, or with spaces behind it")
    return 8 + length, parse_object(text, f"{path}: the header")


def tensor_info(path: Path, name: str, said: object) -> TensorInfo:
    """The description of one tensor, checked."""

    def fail(problem: str) -> FormatError:
        return FormatError(f"{path}: tensor {plain(repr(name), 100)} {problem}")

    if not 1 <= len(name) <= MAX_NAME:
        raise fail(f"has a name of {len(name)} characters; 1 to {MAX_NAME} are allowed")
    if not isinstance(said, dict) or said.keys() != {"dtype", "shape", "data_offsets"}:
        raise fail("is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = said["dtype"], said["shape"], said["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise fail(f"has the unknown dtype {plain(repr(dtype), 40)}; known are {', '.join(DTYPES)}")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not all(map(is_count, shape)):
        raise fail(f"has the shape {plain(repr(shape), 60)}, not a list of up to {MAX_DIMENSIONS} sizes")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(is_count, offsets)):
        raise fail(f"has the data_offsets {plain(repr(offsets), 60)}, not a begin and an end")
    bits, encoding = DTYPES[dtype]
    begin, end = offsets
    if max(accumulate(shape, operator.mul), default=0) * bits >= 1 << 63:  # also before a size of 0
        raise fail(f"has the shape {plain(repr(shape), 60)}, too large for any memory")
    needed = math.prod(shape) * bits // 8
    if end - begin != needed:
        raise fail(f"is {dtype} of shape {shape}, {needed} bytes, but its data_offsets are {begin} and {end}")
    return TensorInfo(name, numbers(encoding, bits), tuple(shape), begin, end)


def numbers(name: str, bits: int) -> Encoding:
    """The encoding of plain numbers of this name: one that sotol decodes, or one of which only the size is known."""
    known = NUMBERS.get(name) or ENCODINGS.get(name)
    return known or Encoding(name, values=1, size=bits // 8)


def is_count(value: object) -> bool:
    """Whether it is a whole number that 63 bits hold."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def check_metadata(path: Path, said: object) -> None:
    """FormatError unless `__metadata__`, which sotol does not use, is absent or maps texts to texts."""
    if said is not None and not (isinstance(said, dict) and all(isinstance(value, str) for value in said.values())):
        raise FormatError(f"{path}: the header's __metadata__ is not an object of texts")


def check_places(path: Path, infos: list[TensorInfo], size: int) -> None:
    """FormatError unless the tensors lie one after the other, without holes, from the first to the last byte."""
    end = 0
    for info in sorted(infos, key=lambda info: (info.begin, info.end)):
        if info.begin != end:
            what = "overlaps the one before it" if info.begin < end else "does not follow the one before it"
            raise FormatError(
                f"{path}: tensor {plain(repr(info.name), 100)} {what}: it begins at {info.begin}, not at {end}"
            )
        end = info.end
    if end != size:
        raise FormatError(
            f"{path}: its tensors end at byte {end} of the numbers, which are {size}: it is cut short or damaged"
        )


def shards_of(folder: Folder) -> tuple[list[str], Mapping[str, str] | None]:
    """The names of the files with a model's weights in a folder, and, of an index, which tensor is in which.

    As transformers has it: model.safetensors, else what model.safetensors.index.json names, else the shards
    model-00001-of-0000N.safetensors, else the only file or the only whole set of shards. FormatError if there is none
    of these, or a shard is missing.
    """
    if folder.find("model" + SUFFIX) is not None:
        return ["model" + SUFFIX], None
    if (index := folder.json(INDEX)) is not None:
        return read_index(folder, index)
    names = folder.named("*" + SUFFIX)
    if not names:
        pickled = any(map(folder.named, ("pytorch_model*.bin", "*.pth", "*.pt")))
        hint = (
            "its weights are pickles: get or save them as SafeTensors"
            if pickled
            else "give a folder with config.json and such files"
        )
        raise FormatError(f"{folder.path}: has no {SUFFIX} file: {hint}")
    sets = {(m["stem"], int(m["count"])) for name in names if (m := SHARD.fullmatch(name))}
    chosen = [one for one in sets if one[0] == "model"] or sorted(sets)
    if len(chosen) == 1:
        return whole_set(folder, *chosen[0]), None
    if len(names) > 1:
        raise FormatError(
            f"{folder.path}: {plain(', '.join(names))}: more than one file, and no {INDEX} says which; give one's path"
        )
    return names, None


def whole_set(folder: Folder, stem: str, count: int) -> list[str]:
    """The names of `count` shards; FormatError if one of them is missing."""
    if not 1 <= count <= MAX_SHARDS:
        raise FormatError(f"{folder.path}: {plain(stem)} has {count} shards; sotol reads up to {MAX_SHARDS}")
    names = [f"{stem}-{number:05}-of-{count:05}{SUFFIX}" for number in range(1, count + 1)]
    for name in names:
        if folder.find(name) is None:
            raise FormatError(f"{folder.path}: {plain(name)} of {count} shards is missing")
    return names


def read_index(folder: Folder, index: Mapping[str, object]) -> tuple[list[str], Mapping[str, str]]:
    """The shards that an index names, and its table of tensors."""
    path, table = folder.path / INDEX, index.get("weight_map")
    if not isinstance(table, dict) or not table:
        raise FormatError(f"{path}: weight_map is missing, empty or not an object")
    for name, shard in table.items():
        if not isinstance(shard, str):
            raise FormatError(f"{path}: weight_map names no file for {plain(repr(name), 100)}")
    shards = sorted(set(table.values()))
    if len(shards) > MAX_SHARDS:
        raise FormatError(f"{path}: weight_map names {len(shards)} files; sotol reads up to {MAX_SHARDS}")
    for shard in shards:
        if not shard.endswith(SUFFIX):
            raise FormatError(f"{path}: weight_map names {plain(repr(shard), 80)}, which is no {SUFFIX} file")
        if folder.find(shard) is None:
            raise FormatError(f"{path}: weight_map names {plain(shard, 80)}, which is missing")
    return shards, table
