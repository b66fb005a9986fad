"""Fuzzes files of log-probabilities, with which `sotol perplexity` compares models.

A file gives windows of tokens and rows of as many numbers as its head says, or one FormatError that names it; a head
never asks for more than the file has. Run `python -m tests.fuzz.fuzz_baseline --seconds 60 --seed 1`.
"""

import random
from functools import cache
from pathlib import Path

import numpy as np
from tests.support.fuzzing import Bounds, Broken, run, sentence
from tests.support.mutating_binary import Seed, mutated_binary

from sotol.errors import SotolError
from sotol.tools.baseline import Baseline, BaselineWriter, scored

BOUNDS = Bounds(seconds=0.5, memory=128 << 20, allocated=3 << 20)
HEAD = ((8, 4), (12, 4), (16, 4))  # window size, vocabulary, windows
SIZES = ((1, 4, 3), (2, 5, 7), (3, 8, 32), (1, 2, 1))  # windows, size of each, vocabulary


@cache
def seeds(folder: Path) -> list[Seed]:
    """Small files of several sizes."""
    found, numbers = [], np.random.default_rng(0)
    for count, size, vocabulary in SIZES:
        path = folder / "seed"
        with BaselineWriter(path, np.ones((count, size), np.int32), vocabulary) as file:
            for _ in range(count):
                rows = numbers.normal(size=(scored(size), vocabulary)).astype(np.float32)
                file.add(rows, np.zeros(len(rows)))
        found.append(Seed(path.read_bytes(), HEAD))
        path.unlink()
    return found


def case(rng: random.Random, folder: Path) -> bool:
    """One file, and the rows of all its windows."""
    data = mutated_binary(rng.choice(seeds(folder)), rng)
    path = folder / "logits"
    path.write_bytes(data)
    try:
        found = Baseline.open(path)
    except SotolError as error:
        return sentence(error, str(path))
    count, size = found.windows.shape
    for window in range(count):
        if found.rows(window).shape != (scored(size), found.vocabulary):
            raise Broken(f"window {window} has rows of another shape")
    if found.windows.nbytes > len(data):
        raise Broken("tokens are larger than the file")
    return True


if __name__ == "__main__":
    raise SystemExit(run("tests.fuzz.fuzz_baseline", case, bounds=BOUNDS))
