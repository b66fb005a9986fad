"""Fuzzes importance matrices, of both forms: GGUF and llama.cpp's older .dat.

A file gives sums and counts that are finite and not negative, and means that suit them, or one SotolError that names
the file. Run `python -m tests.fuzz.fuzz_importance --seconds 60 --seed 1`.
"""

import random
import struct
from functools import cache
from pathlib import Path

import numpy as np
from tests.support.fuzzing import Bounds, Broken, run, sentence
from tests.support.ggufs import seed_of
from tests.support.mutating_binary import Seed, mutated_binary

from sotol.errors import SotolError
from sotol.tools.importance import Importance, read_importance, write_importance

BOUNDS = Bounds(seconds=0.5, memory=128 << 20, allocated=3 << 20)
NAMES = ("blk.0.attn_q.weight", "blk.1.ffn_up_exps.weight", "output.weight")
NUMBERS = (0.0, -1.0, 1e-45, 3e38, float("inf"), float("nan"))


def gguf_file(folder: Path) -> Seed:
    """A file of the newer form, one weight of which has experts."""
    sums = {name: np.arange(1, 25, dtype=np.float32) for name in NAMES}
    counts = {name: np.full(3 if "exps" in name else 1, 4, np.float32) for name in NAMES}
    path = folder / "seed.gguf"
    write_importance(path, Importance(sums, counts, 3, 512, ("a.txt", "b.txt")))
    seed = seed_of(path)
    path.unlink()
    return seed


def dat_file() -> Seed:
    """A file of the older form."""
    data, places = bytearray(struct.pack("<i", len(NAMES))), [(0, 4)]

    def put(number: int) -> None:
        places.append((len(data), 4))
        data.extend(struct.pack("<i", number))

    for name in NAMES:
        put(len(name))
        data.extend(name.encode())
        put(2)
        put(6)
        data.extend(struct.pack("<6f", *range(6)))
    put(7)
    put(5)
    data.extend(b"a.txt")
    return Seed(bytes(data), places)


@cache
def seeds(folder: Path) -> tuple[Seed, Seed]:
    return dat_file(), gguf_file(folder)


def case(rng: random.Random, folder: Path) -> bool:
    """One file."""
    data = bytearray(mutated_binary(rng.choice(seeds(folder)), rng))
    if len(data) > 8 and rng.random() < 0.3:
        at = rng.randrange(0, len(data) - 4)
        data[at : at + 4] = struct.pack("<f", rng.choice(NUMBERS))
    path = folder / "imatrix"
    path.write_bytes(data)
    try:
        found = read_importance(path)
    except SotolError as error:
        return sentence(error, str(path))
    if sum(sums.nbytes for sums in found.sums.values()) > len(data):
        raise Broken("sums are larger than the file")
    for name, sums in found.sums.items():
        means = found.of(name)
        if means is None or means.size != sums.size or not (np.isfinite(means).all() and (means >= 0).all()):
            raise Broken(f"{name!r:.80} has means that are none: {means}")
    return True


if __name__ == "__main__":
    raise SystemExit(run("tests.fuzz.fuzz_importance", case, bounds=BOUNDS))
