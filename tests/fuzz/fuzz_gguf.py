"""Fuzzes the GGUF reader: mutates small valid files, and holds it to its promises.

Whatever the bytes, reading them ends in a Checkpoint or in one FormatError, within half a second and without
allocating more than a small multiple of the file. Run `python tests/fuzz/fuzz_gguf.py --seconds 60 --seed 1`; a file
that breaks a promise is kept and named, and the exit status is 1.
"""

import argparse
import random
import struct
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sotol.errors import FormatError
from sotol.formats import Weight, read_gguf, write_gguf
from sotol.quant import ENCODINGS

SECONDS = 0.5  # that a file may take
BYTES = 1_000_000  # that a file may cost, and as many again per 10 kB of it
EXTREMES = (0, 1, 2, 4, 5, 7, 8, 9, 13, 31, 32, 255, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
EXTREMES_64 = (*EXTREMES, 1 << 32, 1 << 40, (1 << 62) + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 32, (1 << 64) - 1)


def seeds(folder: Path) -> list[bytes]:
    """Small valid files that use every part of the format."""
    numbers = np.linspace(-1, 1, 512, dtype=np.float32).reshape(2, 256)
    able = [name for name, encoding in ENCODINGS.items() if encoding.encode is not None]
    weights = [Weight.from_values(f"blk.{i}.w", numbers, name) for i, name in enumerate(able)]
    scalars: dict[str, object] = {"u8": 1, "i64": -1, "f64": 0.5, "yes": True, "words": "some words"}
    types = {"u8": "uint8", "i64": "int64", "f64": "float64"}
    lists: dict[str, object] = {
        "tokens": ["a", "bc", "é"] * 20,
        "scores": [0.5] * 60,
        "nested": [[[1, 2], [3]], [["x"]]],
    }
    found = []
    for metadata, some, alignment in (
        (scalars, weights[:2], 32),
        (lists, weights[3:5], 8),
        (scalars | lists, weights, 64),
    ):
        write_gguf(folder / "seed.gguf", {**metadata, "general.alignment": alignment}, some, types=types)
        found.append((folder / "seed.gguf").read_bytes())
    parts = write_gguf(folder / "seed.gguf", scalars, weights, types=types, part_bytes=4096)
    return found + [part.read_bytes() for part in parts]


def flip(data: bytearray, rng: random.Random) -> None:
    """One bit."""
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def put_number(data: bytearray, rng: random.Random) -> None:
    """A telling number of 4 or 8 bytes anywhere."""
    value = (
        struct.pack("<I", rng.choice(EXTREMES)) if rng.random() < 0.5 else struct.pack("<Q", rng.choice(EXTREMES_64))
    )
    at = rng.randrange(len(data))
    data[at : at + len(value)] = value


def cut(data: bytearray, rng: random.Random) -> None:
    """The end off."""
    del data[rng.randrange(len(data)) :]


def remove(data: bytearray, rng: random.Random) -> None:
    """Some bytes from the middle."""
    at = rng.randrange(len(data))
    del data[at : at + rng.randrange(1, 40)]


def repeat(data: bytearray, rng: random.Random) -> None:
    """A piece again, elsewhere: doubles keys and names, and nests."""
    at, length = rng.randrange(len(data)), rng.randrange(1, 120)
    to = rng.randrange(len(data))
    data[to:to] = data[at : at + length] * rng.choice((1, 1, 1, 50))


def nudge(data: bytearray, rng: random.Random) -> None:
    """A byte up or down by one: lengths and counts that are almost right."""
    at = rng.randrange(len(data))
    data[at] = (data[at] + rng.choice((-1, 1))) % 256


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (flip, put_number, cut, remove, repeat, nudge)


def mutate(seed: bytes, rng: random.Random) -> bytes:
    """The seed, changed in one to four places, mostly where its head is."""
    data = bytearray(seed)
    head = bytearray(data[: rng.choice((48, 400, len(data)))])
    tail = data[len(head) :]
    for _ in range(rng.randrange(1, 5)):
        if head:
            rng.choice(MUTATIONS)(head, rng)
    return bytes(head + tail)


def judge(path: Path, size: int) -> tuple[bool, str | None]:
    """Whether the reader accepts the file, and what it does wrong with it, or None."""
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    started = time.process_time()
    accepted, wrong = False, None
    try:
        checkpoint = read_gguf(path)
        accepted = True
        for weight in checkpoint.weights.values():
            if weight.rows().size != weight.nbytes or weight.nbytes > size:
                wrong = f"{weight.name} is larger than the file"
    except FormatError as error:
        if "\n" in str(error) or not str(error).startswith(str(path)):
            wrong = f"the message is not one line that names the file: {error}"
    except Exception as error:  # noqa: BLE001  anything else that is raised is what we look for
        wrong = f"{type(error).__name__}: {error}"
    taken, used = time.process_time() - started, tracemalloc.get_traced_memory()[1] - before
    if taken > SECONDS:
        wrong = f"took {taken:.2f} s"
    if used > BYTES + 100 * size:
        wrong = f"allocated {used} bytes for a file of {size}"
    return accepted, wrong


def fuzz(seconds: float, seed: int, folder: Path) -> tuple[int, int, list[str]]:
    """Mutate and read for some seconds: how many files were read, how many of them accepted, and what went wrong."""
    rng, originals, path = random.Random(seed), seeds(folder), folder / "fuzzed.gguf"
    read = accepted = 0
    wrong: list[str] = []
    tracemalloc.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = mutate(rng.choice(originals), rng)
        path.write_bytes(data)
        good, problem = judge(path, len(data))
        read, accepted = read + 1, accepted + good
        if problem is not None:
            kept = Path(tempfile.gettempdir()) / f"fuzz-gguf-{seed}-{read}.gguf"
            kept.write_bytes(data)
            wrong.append(f"{kept}: {problem}")
    tracemalloc.stop()
    return read, accepted, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz the GGUF reader.")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        read, accepted, wrong = fuzz(options.seconds, options.seed, Path(folder))
    sys.stdout.write("\n".join([*wrong, f"{read} files, {accepted} accepted, {len(wrong)} broken promises"]) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
