"""Fuzzes headers of SafeTensors files: what they say of types, shapes and places, as values and as text.

A file gives weights that lie in it, or one SotolError that names it. What is accepted, the format's own library accepts
too, with the same numbers; tensors cover a file's numbers once.
Run `python -m tests.fuzz.fuzz_safetensors --seconds 60 --seed 1`.
"""

import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
from tests.support.folders import header_of
from tests.support.fuzzing import Bounds, Broken, run, sentence
from tests.support.mutating import mutated_bytes, spoilt

from sotol.errors import SotolError
from sotol.formats import Weight
from sotol.formats.safetensors import DTYPES, read_safetensors

BOUNDS = Bounds(seconds=0.5, memory=128 << 20, allocated=3 << 20)
COMPARED = ("F64", "F32", "F16", "I64", "I32", "I16", "I8", "U8", "BOOL")
NAMES = ("a", "b", "layer.0.w", "é", "__x__")
TYPES = ("f4", "f2", "f8", "i1", "i8", "u2", "?")
LENGTHS = (0, 2, 1 << 25, 1 << 40, (1 << 63) - 8, (1 << 64) - 1)  # of a header, of 8 bytes


def case(rng: random.Random, folder: Path) -> bool:
    """One file with a header of which something is wrong."""
    tensors = {}
    for name in rng.sample(NAMES, rng.randrange(5)):
        shape = [rng.randrange(5) for _ in range(rng.randrange(4))]
        tensors[name] = np.ones(shape, rng.choice(TYPES))
    header, data = header_of(tensors)
    if rng.random() < 0.3:
        header["__metadata__"] = {"format": "pt"}
    for said in header.values():
        if "dtype" in said and rng.random() < 0.1:
            said["dtype"] = rng.choice(sorted(DTYPES))
    text = spoilt(header, rng) + b" " * rng.choice([0, 0, 3])
    length = len(text) if rng.random() < 0.9 else rng.choice([*LENGTHS, len(text) // 2, len(text) + 1])
    whole = length.to_bytes(8, "little") + text + data
    path = folder / "x.safetensors"
    path.write_bytes(whole if rng.random() < 0.9 else mutated_bytes(whole, rng))
    try:
        weights = read_safetensors(path)
    except SotolError as error:
        return sentence(error, str(path))
    if sum(weight.nbytes for weight in weights.values()) > path.stat().st_size:
        raise Broken("tensors are larger than their file")
    compare(path, weights)
    return True


def compare(path: Path, weights: Mapping[str, Weight]) -> None:
    """Broken unless the format's own library finds the same tensors."""
    with safetensors.safe_open(path, "numpy") as judge:
        for name in judge.keys():  # noqa: SIM118  (it is no mapping)
            given, weight = judge.get_slice(name), weights.get(name)
            shape = given.get_shape()
            if (0 in shape) != (weight is None) or (weight is not None and list(weight.shape) != (shape or [1])):
                raise Broken(f"{name!r} has the shape {shape}, says the library")
            if weight is not None and given.get_dtype() in COMPARED:
                with np.errstate(all="ignore"):
                    expected = judge.get_tensor(name).astype(np.float32).reshape(-1)
                    found = weight.decode().reshape(-1)
                if not np.array_equal(found, expected, equal_nan=True):
                    raise Broken(f"{name!r} has other numbers")


if __name__ == "__main__":
    raise SystemExit(run("tests.fuzz.fuzz_safetensors", case, bounds=BOUNDS))
