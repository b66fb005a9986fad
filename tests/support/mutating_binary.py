"""Binary files with something wrong in them: fuzzers of what reads such files say where their numbers are."""

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

__all__ = ["EXTREMES", "Seed", "mutated_binary"]

EXTREMES = (
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 31, 32, 33, 64, 255, 256, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1,
    1 << 32, 1 << 40, (1 << 62) + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 32, (1 << 64) - 1,
)  # fmt: skip
HEADS = (48, 400)  # bytes from the start where formats say most


class Seed(NamedTuple):
    """A valid file, and where in it numbers are: counts, lengths, types, offsets, sizes."""

    data: bytes
    numbers: Sequence[tuple[int, int]] = ()  # first byte, and bytes


def flip(data: bytearray, rng: random.Random) -> None:
    """One bit."""
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def put_number(data: bytearray, rng: random.Random) -> None:
    """A telling number of 4 or 8 bytes anywhere."""
    size = rng.choice((4, 8))
    at = rng.randrange(len(data))
    data[at : at + size] = (rng.choice(EXTREMES) % (1 << 8 * size)).to_bytes(size, "little")


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


def change_number(data: bytearray, rng: random.Random, numbers: Sequence[tuple[int, int]]) -> None:
    """One of the format's numbers: a telling one in its place, another's, or one that is nearly the same."""
    at, size = rng.choice(numbers)
    value = int.from_bytes(data[at : at + size], "little")
    match rng.randrange(4):
        case 0:
            value = rng.choice(EXTREMES)
        case 1:
            other, width = rng.choice(numbers)
            value = int.from_bytes(data[other : other + width], "little")
        case 2:
            value += rng.choice((-32, -8, -4, -1, 1, 4, 8, 32))
        case _:
            value = rng.randrange(40)
    data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "little")


def mutated_binary(seed: Seed, rng: random.Random) -> bytes:
    """The file, changed in up to four places: in its numbers, where they are known, or anywhere, mostly in its head."""
    data = bytearray(seed.data)
    if seed.numbers and rng.random() < 0.5:
        for _ in range(rng.choice((1, 1, 2, 3))):
            change_number(data, rng, seed.numbers)
        if rng.random() < 0.8:
            return bytes(data)
    head = bytearray(data[: rng.choice((*HEADS, len(data)))])
    tail = data[len(head) :]
    for _ in range(rng.choice((1, 1, 2, 4))):
        if head:
            rng.choice(MUTATIONS)(head, rng)
    return bytes(head + tail)
