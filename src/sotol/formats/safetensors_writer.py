"""Writes SafeTensors files: a model's tensors in one file or several shards with an index, in order, piece by piece.

The format: https://github.com/huggingface/safetensors (README, "Format"); shards and their index are as
`save_pretrained` of transformers writes them. No more is in memory than the pieces that are given.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sotol.arrays import UInt8Array
from sotol.formats.safetensors import DTYPES, INDEX, SUFFIX
from sotol.formats.whole_file import WholeFile, check_room

__all__ = ["NewTensor", "write_safetensors"]

ALIGNMENT = 8  # of the numbers: spaces fill the header


class NewTensor(NamedTuple):
    """A tensor to be written. dtype: one of `DTYPES`. pieces: gives its bytes in order, contiguous arrays."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    pieces: Callable[[], Iterable[UInt8Array]]

    @property
    def size(self) -> int:
        """Bytes of the tensor."""
        return int(np.prod(self.shape, dtype=object)) * DTYPES[self.dtype][0] // 8


def write_safetensors(folder: Path, tensors: Sequence[NewTensor], shard_bytes: int) -> tuple[Path, ...]:
    """Write model.safetensors, or shards of at most so many bytes (or one tensor) with an index; returns the files.

    ValueError for two tensors of one name, or pieces that are not as many bytes as were announced; SotolError for what
    the system refuses. Each file takes its place when it is whole, the index after all of them.
    """
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise ValueError("two tensors have one name")
    shards = _shards(tensors, shard_bytes)
    check_room(folder / f"model{SUFFIX}", (tensor.size for tensor in tensors))
    if len(shards) == 1:
        return (_write_file(folder / f"model{SUFFIX}", shards[0]),)
    names = [f"model-{number:05}-of-{len(shards):05}{SUFFIX}" for number in range(1, len(shards) + 1)]
    paths = [_write_file(folder / name, shard) for name, shard in zip(names, shards, strict=True)]
    home = {tensor.name: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    index = {"metadata": {"total_size": sum(tensor.size for tensor in tensors)}, "weight_map": home}
    with WholeFile(folder / INDEX) as file:
        file.write(json.dumps(index, indent=2).encode())
    return (*paths, folder / INDEX)


def _shards(tensors: Sequence[NewTensor], shard_bytes: int) -> list[list[NewTensor]]:
    """The tensors in order, with a new shard wherever the last one would become larger."""
    shards: list[list[NewTensor]] = [[]]
    used = 0
    for tensor in tensors:
        if shards[-1] and used + tensor.size > shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append(tensor)
        used += tensor.size
    return shards


def _write_file(path: Path, tensors: Sequence[NewTensor]) -> Path:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}  # transformers asks for it
    end = 0
    for tensor in tensors:
        begin, end = end, end + tensor.size
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with WholeFile(path) as file:
        file.write(len(text).to_bytes(8, "little"), text)
        for tensor in tensors:
            written = 0
            for piece in tensor.pieces():
                file.write(piece)
                written += piece.size
            if written != tensor.size:
                raise ValueError(f"tensor {tensor.name!r} has {tensor.size} bytes, and {written} were given")
    return path
