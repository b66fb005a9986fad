"""Fuzzes sets of GGUF files: a model in parts of which some are wrong, missing, twice, links, or in another's place.

A set gives a Checkpoint that has each weight once, or one SotolError that names one of the files; no file is read that
does not belong to the set. Run `python -m tests.fuzz.fuzz_gguf_parts --seconds 60 --seed 1`.
"""

import random
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from tests.support.fuzzing import Bounds, Broken, Link, files_in, run, sentence
from tests.support.ggufs import single_files, split_model
from tests.support.mutating_binary import Seed, mutated_binary

from sotol.errors import SotolError
from sotol.formats import read_gguf

BOUNDS = Bounds(seconds=0.5, memory=128 << 20, allocated=3 << 20)
NUMBERS = ("00000", "00001", "00002", "00003", "00009", "99999")


@cache
def whole(folder: Path) -> tuple[Mapping[str, Seed], Seed]:
    """A model in parts, and a file of another."""
    return split_model(folder), single_files(folder)[0]


def case(rng: random.Random, folder: Path) -> bool:
    """One set, read by the name of any of its files."""
    seeds, alone = whole(folder)
    files: dict[str, bytes | Link] = {name: seed.data for name, seed in seeds.items()}
    for _ in range(rng.choice([0, 1, 1, 1, 2])):
        name, other = rng.choice(sorted(seeds)), rng.choice(sorted(seeds))
        match rng.randrange(8):
            case 0:
                files.pop(name, None)
            case 1:
                files[name] = seeds[other].data
            case 2:
                files[name] = alone.data
            case 3:
                files[name] = Link(rng.choice([name, other, "missing.gguf", "."]))
            case 4:
                files[rng.choice([f"m-{rng.choice(NUMBERS)}-of-{rng.choice(NUMBERS)}.gguf", "x.gguf"])] = files.get(
                    name, b""
                )
            case _:
                files[name] = mutated_binary(seeds[name], rng)
    work = folder / "model"
    files_in(work).put(files)
    path = work / rng.choice(sorted(files) or ["x.gguf"])
    try:
        checkpoint = read_gguf(path)
    except SotolError as error:
        return sentence(error, str(work))
    if sum(weight.nbytes for weight in checkpoint.weights.values()) > sum(
        part.stat().st_size for part in checkpoint.parts
    ):
        raise Broken("weights are larger than their files")
    return True


if __name__ == "__main__":
    raise SystemExit(run("tests.fuzz.fuzz_gguf_parts", case, bounds=BOUNDS))
