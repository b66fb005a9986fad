"""What a program remembers of earlier tokens: caches, each with a layout, in groups that are allocated together.

These are descriptions. Backends own the memory, in blocks; `kv/memory.py` decides which sequence has which block.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["BLOCK_TOKENS", "Cache", "Copy", "Group", "Layout", "Paged", "State", "group_caches"]

BLOCK_TOKENS = 16  # tokens in a block (a page of the cache)


class Paged(NamedTuple):
    """Keys and values in blocks of 16 tokens: `heads` keys of `key` channels and values of `value` channels per token.

    window: how many tokens a token attends to, itself included (sliding window); 0: all. latent: a value is the first
    channels of its key, and is not given apart (MLA, arXiv 2405.04434). chunked: positions are cut into chunks of
    `window` from 0 on, and a token attends to those of its own chunk: never to more than with a sliding window.
    """

    heads: int
    key: int
    value: int
    window: int = 0
    latent: bool = False
    chunked: bool = False


class State(NamedTuple):
    """Recurrent state: one float32 array for each sequence, which every token overwrites."""

    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


Layout = Paged | State


class Cache(NamedTuple):
    """What one layer writes and any layer may read: "kv.12" holds the keys and values of layer 12."""

    name: str
    layout: Layout


class Group(NamedTuple):
    """Caches whose blocks are allocated and freed together: block 7 of a group is block 7 in each of its caches.

    window: that of their layouts. state: a block holds the state of one sequence, not 16 tokens.
    """

    caches: tuple[Cache, ...]
    window: int = 0
    state: bool = False


class Copy(NamedTuple):
    """Copy the contents of block `source` of a group to block `to`."""

    group: int
    source: int
    to: int


def group_caches(caches: Iterable[Cache]) -> tuple[Group, ...]:
    """The groups of these caches, each cache once: first full attention, then windows by size, then states."""
    members: dict[tuple[bool, int], dict[Cache, None]] = {}
    for cache in caches:
        state = isinstance(cache.layout, State)
        window = 0 if isinstance(cache.layout, State) else cache.layout.window
        members.setdefault((state, window), {})[cache] = None
    return tuple(Group(tuple(members[key]), key[1], key[0]) for key in sorted(members))
