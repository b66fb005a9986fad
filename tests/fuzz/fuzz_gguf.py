"""Fuzzes the reader of GGUF files: small valid ones with something wrong in their numbers or bytes.

Whatever the bytes, reading them ends in a Checkpoint, whose weights lie in the file, or in one FormatError that names
it. Run `python -m tests.fuzz.fuzz_gguf --seconds 60 --seed 1`.
"""

import random
from functools import cache
from pathlib import Path

from tests.support.fuzzing import Bounds, Broken, run, sentence
from tests.support.ggufs import single_files, split_model
from tests.support.mutating_binary import Seed, mutated_binary

from sotol.errors import FormatError
from sotol.formats import read_gguf
from sotol.formats.gguf import UnknownWeight

BOUNDS = Bounds(seconds=0.5, memory=128 << 20, allocated=3 << 20)


@cache
def seeds(folder: Path) -> list[Seed]:
    """All valid files; a part of a model, too, alone."""
    return [*single_files(folder), *split_model(folder).values()]


def case(rng: random.Random, folder: Path) -> bool:
    """One file."""
    data = mutated_binary(rng.choice(seeds(folder)), rng)
    path = folder / "fuzzed.gguf"
    path.write_bytes(data)
    unknown: list[UnknownWeight] | None = [] if rng.random() < 0.2 else None
    try:
        checkpoint = read_gguf(path, unknown)
    except FormatError as error:
        return sentence(error, str(path))
    for weight in checkpoint.weights.values():
        if weight.rows().size != weight.nbytes or weight.nbytes > len(data):
            raise Broken(f"{weight.name} is larger than the file")
    return True


if __name__ == "__main__":
    raise SystemExit(run("tests.fuzz.fuzz_gguf", case, bounds=BOUNDS))
