"""Writes GGUF files: one whose weights come one after the other, or a model in memory or mapped files, also in parts.

Nothing is left that looks whole and is not (`whole_file.py`); no more is in memory than the pieces that are given.
"""

import hashlib
import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from sotol.arrays import UInt8Array
from sotol.formats.files import copied_rows
from sotol.formats.gguf import ALIGNMENT, MAGIC, MAX_ALIGNMENT, MAX_DIMENSIONS, SPLIT_ID, VERSIONS, part_path
from sotol.formats.gguf_values import metadata_bytes, name_bytes
from sotol.formats.weights import Weight, check_shape
from sotol.formats.whole_file import WholeFile, check_room
from sotol.quant import Encoding

__all__ = ["GGUFWriter", "write_gguf"]

SPLIT_TYPES = {"split.no": "uint16", "split.count": "uint16", "split.tensors.count": "int32"}  # as llama.cpp has them


class Announced(NamedTuple):
    """A weight that a file will have."""

    name: str
    encoding: Encoding
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the weights

    @property
    def size(self) -> int:
        """Bytes of the weight."""
        return math.prod(self.shape) // self.encoding.values * self.encoding.size


class GGUFWriter:
    """One GGUF file: all weights are announced (`add`), then their bytes come (`write`), in any order, each once.

        with GGUFWriter(path, metadata) as writer:
            writer.add("output.weight", ENCODINGS["Q8_0"], (V, D))
            writer.write("output.weight", rows)

    The file is there when the block has ended well. ValueError for what GGUF can't hold and for weights that were not
    announced, not written or written with other sizes; SotolError for what the system refuses, such as a full disk.
    """

    def __init__(
        self, path: str | Path, metadata: Mapping[str, object], types: Mapping[str, str] | None = None
    ) -> None:
        """types: of metadata by key, see `gguf_values.metadata_bytes`. `general.alignment` holds where it is given."""
        self.path = Path(path)
        self._alignment = alignment_of(metadata)
        self._count = len(metadata)
        self._metadata = metadata_bytes(metadata, types or {})
        self._weights, self._end = dict[str, Announced](), 0
        self._written = set[str]()
        self._file: WholeFile | None = None
        self._start = 0  # of the weights

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self._discard()

    def add(self, name: str, encoding: Encoding, shape: tuple[int, ...]) -> None:
        """Announce a weight; the file has them in this order. Not after the first `write`."""
        if self._file is not None:
            raise ValueError(f"weight {name!r} is announced after others were written: announce all first")
        if name in self._weights:
            raise ValueError(f"weight {name!r} is there twice")
        check_weight(name, encoding, shape)
        weight = self._weights[name] = Announced(name, encoding, shape, self._end)
        self._end += aligned(weight.size, self._alignment)

    def write(self, name: str, rows: Iterable[UInt8Array]) -> None:
        """The bytes of a weight that was announced, in order, in pieces of any size: contiguous uint8 arrays."""
        weight = self._weights.get(name)
        if weight is None or name in self._written:
            raise ValueError(f"weight {name!r} was {'written before' if weight else 'not announced'}")
        file = self._opened()
        file.seek(self._start + weight.offset)
        written = 0
        for piece in rows:
            written += piece.size
            if piece.dtype != np.uint8 or written > weight.size:
                raise ValueError(f"weight {name!r} has {weight.size} bytes, and {written} of {piece.dtype} were given")
            file.write(piece)
        if written != weight.size:
            raise ValueError(f"weight {name!r} has {weight.size} bytes, and {written} were given")
        file.write(bytes(-weight.size % self._alignment))
        self._written.add(name)

    def finish(self) -> None:
        """All is written: the file is whole on the disk, but has no place yet. ValueError names a weight that lacks."""
        if lacking := [name for name in self._weights if name not in self._written]:
            raise ValueError(f"weight {lacking[0]!r} (of {len(lacking)}) was announced and not written")
        self._opened().finish()

    def close(self) -> None:
        """Give the file its place, after `finish` where that was not called."""
        try:
            if self._file is None or not self._file.finished:
                self.finish()
            self._opened().close()
        finally:
            self._discard()

    def _discard(self) -> None:
        """Remove what was written, unless it has its place."""
        if self._file is not None:
            self._file.discard()

    def _opened(self) -> WholeFile:
        """The file, with its head written."""
        if self._file is None:
            head = self._head()
            self._start = aligned(len(head), self._alignment)
            check_room(self.path, [self._start + self._end])
            self._file = WholeFile(self.path)
            self._file.write(head, bytes(self._start - len(head)))
        return self._file

    def _head(self) -> bytes:
        """Everything before the weights."""
        parts = [MAGIC, struct.pack("<IQQ", VERSIONS[-1], len(self._weights), self._count), self._metadata]
        for name, encoding, shape, offset in self._weights.values():
            parts.append(name_bytes(name, "the name of a weight"))
            parts.append(struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape)))
            parts.append(struct.pack("<IQ", encoding.ggml_type, offset))
        return b"".join(parts)


def write_gguf(
    path: str | Path,
    metadata: Mapping[str, object],
    weights: Iterable[Weight],
    *,
    types: Mapping[str, str] | None = None,
    part_bytes: int | None = None,
    part_weights: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[Path, ...]:
    """Write a model to `path`; returns the files written.

    types: see `gguf_values.metadata_bytes`. part_bytes, part_weights: split a larger model into parts with at most so
    many bytes of weights (or one weight), and so many weights, named as llama.cpp names them, all with the same
    `split.id`. progress: is told of bytes as they are written, of weights alone.

    ValueError for what GGUF can't hold. An existing file is replaced only when all new ones are complete, and processes
    that have it mapped keep the old contents.
    """
    path, weights, types = Path(path), list(weights), dict(types or {})
    alignment = alignment_of(metadata)
    check_weights(weights)
    groups = split_weights(weights, alignment, part_bytes, part_weights)
    names: tuple[Path, ...] = (path,)
    heads: list[Mapping[str, object]] = [metadata]
    if len(groups) > 1:
        types |= SPLIT_TYPES
        names = tuple(part_path(path, number, len(groups)) for number in range(1, len(groups) + 1))
        said = {"split.count": len(groups), "split.tensors.count": len(weights), SPLIT_ID: digest(weights)}
        shared = {"general.alignment": alignment} if "general.alignment" in metadata else {}
        heads = [{**(shared if number else metadata), "split.no": number, **said} for number in range(len(groups))]
    check_room(path, (weight.nbytes for weight in weights))
    with ExitStack() as all_whole:
        for part, head, group in zip(names, heads, groups, strict=True):
            writer = all_whole.enter_context(GGUFWriter(part, head, types))
            for weight in group:
                writer.add(weight.name, weight.encoding, weight.shape)
            for weight in group:
                writer.write(weight.name, _told(copied_rows(weight), progress))
            writer.finish()
    return names


def _told(pieces: Iterable[UInt8Array], progress: Callable[[int], None]) -> Iterable[UInt8Array]:
    for piece in pieces:
        yield piece
        progress(piece.size)


def digest(weights: Sequence[Weight]) -> str:
    """A hash of names, encodings, shapes and first rows of the weights, as text: what tells models apart."""
    state = hashlib.blake2b(digest_size=16)
    for weight in weights:
        state.update(f"{weight.name}\0{weight.encoding.name}\0{weight.shape}\0".encode())
        state.update(next(copied_rows(weight, weight.row_bytes)).data)
    return state.hexdigest()


def alignment_of(metadata: Mapping[str, object]) -> int:
    """The alignment of weights, in bytes, that metadata ask for; ValueError if GGUF allows no such."""
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise ValueError(f"general.alignment must be a power of two up to {MAX_ALIGNMENT}, not {alignment!r}")
    return alignment


def check_weights(weights: Sequence[Weight]) -> None:
    """ValueError for two weights with one name, or for a weight that GGUF can't hold."""
    for before, after in pairwise(sorted(weight.name for weight in weights)):
        if before == after:
            raise ValueError(f"weight {after!r} is there twice")
    for weight in weights:
        check_weight(weight.name, weight.encoding, weight.shape)


def check_weight(name: str, encoding: Encoding, shape: tuple[int, ...]) -> None:
    """ValueError for a weight that GGUF can't hold."""
    check_shape(name, encoding, shape)
    if len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"weight {name!r} has shape {shape}; GGUF allows {MAX_DIMENSIONS} dimensions")
    if encoding.ggml_type is None:
        raise ValueError(f"weight {name!r} is stored as {encoding.name}, which GGUF does not have")


def split_weights(
    weights: Sequence[Weight], alignment: int, part_bytes: int | None, part_weights: int | None
) -> list[list[Weight]]:
    """The weights in order, with a new part wherever the last one would exceed `part_bytes` or `part_weights`."""
    groups: list[list[Weight]] = [[]]
    used = 0
    for weight in weights:
        size = aligned(weight.nbytes, alignment)
        full = part_weights is not None and len(groups[-1]) >= part_weights
        if groups[-1] and (full or (part_bytes is not None and used + size > part_bytes)):
            groups.append([])
            used = 0
        groups[-1].append(weight)
        used += size
    return groups


def aligned(size: int, alignment: int) -> int:
    """`size` rounded up to a multiple of `alignment`."""
    return -(-size // alignment) * alignment
