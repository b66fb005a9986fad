"""Importance matrices: how much each column of a matrix counts, by the activations that it was multiplied by.

A weight w_ij adds w_ij x_j to a result, so an error of it counts by the mean of x_j^2 over a text. Files are those of
llama.cpp's imatrix: GGUF, with a tensor of sums of squares and one of how many there were for each weight, or the form
before that (.dat), which sotol reads. K columns of a matrix, E matrices of a weight, one or as many as experts.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sotol.arrays import Float32Array
from sotol.errors import FormatError, plain
from sotol.formats.files import ModelFile
from sotol.formats.gguf import MAGIC, read_gguf
from sotol.formats.gguf_writer import write_gguf
from sotol.formats.weights import Weight

__all__ = ["Importance", "read_importance", "write_importance"]

SUMS, COUNTS = ".in_sum2", ".counts"
MOST_ENTRIES = 1 << 16  # of a .dat file: more than any model has weights


class Importance(NamedTuple):
    """Sums of squares of what weights, by name, were multiplied by."""

    sums: Mapping[str, Float32Array]  # [E * K], or [E, K]
    counts: Mapping[str, Float32Array]  # [E], or [1]: of tokens
    chunks: int  # windows of text that were run
    chunk_size: int  # tokens of each
    datasets: tuple[str, ...]  # names of the texts
    file: str = ""

    def of(self, name: str) -> Float32Array | None:
        """Mean squares of a weight's columns, [E * K], 1 for experts that no token took; None where it is not known."""
        if name not in self.sums:
            return None
        counts = self.counts[name].reshape(-1, 1)
        sums = self.sums[name].reshape(len(counts), -1)
        means: Float32Array = np.divide(sums, counts, out=np.ones_like(sums), where=counts > 0).reshape(-1)
        return means


def write_importance(path: str | Path, importance: Importance) -> None:
    """Write a GGUF file as llama.cpp's imatrix does; errors as of `write_gguf`."""
    metadata: dict[str, object] = {
        "general.type": "imatrix",
        "imatrix.datasets": list(importance.datasets),
        "imatrix.chunk_count": importance.chunks,
        "imatrix.chunk_size": importance.chunk_size,
    }
    weights = list[Weight]()
    for name in sorted(importance.sums):
        counts = importance.counts[name].reshape(-1, 1)
        weights.append(Weight.from_values(name + SUMS, importance.sums[name].reshape(len(counts), -1), "F32"))
        weights.append(Weight.from_values(name + COUNTS, counts, "F32"))
    write_gguf(path, metadata, weights, types={"imatrix.datasets": "string[]"})


def read_importance(path: str | Path) -> Importance:
    """The importance matrix of a file of either form; FormatError names the file and what is wrong with it."""
    path = Path(path)
    file = ModelFile.open(path)
    whole = np.empty(min(len(file), 4), np.uint8)
    file.copy_to(whole, 0)
    found = _read_gguf(path) if whole.tobytes() == MAGIC else _read_dat(path, file)
    for name, sums in found.sums.items():
        counts = found.counts[name]
        counted = (counts == 0) | (counts >= 1)  # of tokens: less than one could make any sum an infinite mean
        if not (np.isfinite(sums).all() and (sums >= 0).all() and np.isfinite(counts).all() and counted.all()):
            raise FormatError(f"{path}: {plain(name, 100)} has numbers that are no sums of squares, or no counts")
    return found._replace(file=str(path))


def _read_gguf(path: Path) -> Importance:
    checkpoint = read_gguf(path)
    data = checkpoint.metadata
    if data.get("general.type") != "imatrix":
        raise FormatError(f"{path}: is a GGUF file, but no importance matrix (general.type is not 'imatrix')")
    sums, counts = dict[str, Float32Array](), dict[str, Float32Array]()
    for name, weight in checkpoint.weights.items():
        if name.endswith(SUMS):
            other = checkpoint.weights.get(name.removesuffix(SUMS) + COUNTS)
            if other is None or weight.encoding.name != "F32" or other.encoding.name != "F32":
                raise FormatError(f"{path}: {plain(name, 100)} has no counts beside it, or numbers that are not F32")
            columns = weight.row_count * weight.shape[-1]
            if columns % (other.row_count * other.shape[-1]):
                raise FormatError(f"{path}: {plain(name, 100)} has {columns} sums, which its counts do not divide")
            own = name.removesuffix(SUMS)
            sums[own], counts[own] = weight.decode().copy(), other.decode().reshape(-1).copy()
    datasets = data.get("imatrix.datasets")
    return Importance(
        sums,
        counts,
        _number(data, "imatrix.chunk_count"),
        _number(data, "imatrix.chunk_size"),
        tuple(map(str, datasets)) if isinstance(datasets, list) else (),
    )


def _number(data: Mapping[str, object], key: str) -> int:
    value = data.get(key, 0)
    return value if isinstance(value, int) else 0


class _Numbers:
    """Reads a .dat file's numbers and texts in turn; FormatError beyond its end."""

    def __init__(self, path: Path, file: ModelFile) -> None:
        self.path, self.at = path, 0
        self._data = np.empty(len(file), np.uint8)
        file.copy_to(self._data, 0)

    @property
    def over(self) -> bool:
        return self.at >= len(self._data)

    def take(self, count: int) -> bytes:
        if not 0 <= count <= len(self._data) - self.at:
            raise FormatError(f"{self.path}: is no importance matrix: at byte {self.at} it would go on for {count}")
        self.at += count
        return self._data[self.at - count : self.at].tobytes()

    def whole(self) -> int:
        return int.from_bytes(self.take(4), "little", signed=True)

    def text(self) -> str:
        return self.take(self.whole()).decode(errors="replace")


def _read_dat(path: Path, file: ModelFile) -> Importance:
    """int32 count of entries; of each: name, calls, and sums, which are means times calls. Then calls, and the text."""
    numbers = _Numbers(path, file)
    entries = numbers.whole()
    if not 0 < entries <= MOST_ENTRIES:
        raise FormatError(f"{path}: is no importance matrix: it would have {entries} entries")
    sums, counts = dict[str, Float32Array](), dict[str, Float32Array]()
    for _ in range(entries):
        name, calls, count = numbers.text(), numbers.whole(), numbers.whole()
        if count < 1:
            raise FormatError(f"{path}: {name!r:.80} has {count} columns")
        sums[name] = np.frombuffer(numbers.take(4 * count), "<f4").copy()
        counts[name] = np.full(1, max(1, calls), np.float32)
    chunks = 0 if numbers.over else numbers.whole()
    datasets = () if numbers.over else (numbers.text(),)
    return Importance(sums, counts, chunks, 0, datasets)
