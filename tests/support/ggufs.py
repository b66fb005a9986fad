"""Small GGUF files that use every part of the format, for fuzzers, with the places of their numbers."""

from collections.abc import Mapping
from pathlib import Path
from unittest.mock import patch

import numpy as np
from tests.support.mutating_binary import Seed

from sotol.formats import Weight, read_gguf, write_gguf
from sotol.formats.cursor import Cursor
from sotol.quant import ENCODINGS

__all__ = ["seed_of", "single_files", "split_model"]

SCALARS: dict[str, object] = {"u8": 1, "i64": -1, "f64": 0.5, "yes": True, "words": "some words"}
TYPES = {"u8": "uint8", "i64": "int64", "f64": "float64"}
LISTS: dict[str, object] = {
    "tokens": ["a", "bc", "é"] * 20,
    "many": ["a", "bc", "é"] * 100,  # so many that all are read at once
    "scores": [0.5] * 60,
    "nested": [[[1, 2], [3]], [["x"]]],
}


def weights() -> list[Weight]:
    """One of each encoding that sotol writes."""
    numbers = np.linspace(-1, 1, 512, dtype=np.float32).reshape(2, 256)
    able = [name for name, encoding in ENCODINGS.items() if encoding.encode is not None]
    return [Weight.from_values(f"blk.{i}.w", numbers, name) for i, name in enumerate(able)]


def seed_of(path: Path) -> Seed:
    """A GGUF file, with the places of all numbers of 4 and 8 bytes that a reader takes from it."""
    places, take = list[tuple[int, int]](), Cursor.take

    def noting(cursor: Cursor, count: int, field: str) -> int:
        at = take(cursor, count, field)
        if count in (4, 8) and cursor.path == path:
            places.append((at, count))
        return at

    with patch.object(Cursor, "take", noting):
        read_gguf(path)
    return Seed(path.read_bytes(), places)


def single_files(folder: Path) -> list[Seed]:
    """Files of scalars, of lists, and of all; with few weights and with one of each encoding."""
    found, some = [], weights()
    for metadata, chosen, alignment in (
        (SCALARS, some[:2], 32), (LISTS, some[3:5], 8), (SCALARS | LISTS, some, 64)
    ):  # fmt: skip
        path = folder / "seed.gguf"
        write_gguf(path, {**metadata, "general.alignment": alignment}, chosen, types=TYPES)
        found.append(seed_of(path))
        path.unlink()
    return found


def split_model(folder: Path) -> Mapping[str, Seed]:
    """The files of a model in several parts, by name."""
    parts = write_gguf(folder / "m.gguf", SCALARS, weights()[:6], types=TYPES, part_bytes=2048)
    found = {part.name: seed_of(part) for part in parts}
    for part in parts:
        part.unlink()
    return found
