"""Which blocks of the cache are free. Knows nothing of what a block holds: backends own the memory.

A block is the room for 16 tokens in every layer's cache at once.
"""

from collections.abc import Sequence

__all__ = ["BlockPool"]


class BlockPool:
    """Ids 0 .. count - 1, each free or taken."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = list(range(count - 1, -1, -1))
        self._taken = bytearray(count)

    @property
    def free(self) -> int:
        """How many blocks can be taken."""
        return len(self._free)

    def take(self, count: int) -> list[int]:
        """So many blocks, or none at all: [] if there are fewer (or `count` is 0)."""
        if count > len(self._free):
            return []
        blocks = [self._free.pop() for _ in range(count)]
        for block in blocks:
            self._taken[block] = 1
        return blocks

    def release(self, blocks: Sequence[int]) -> None:
        """Give blocks back; ValueError for one that is not taken."""
        for block in blocks:
            if not (0 <= block < self.count and self._taken[block]):
                raise ValueError(f"block {block} is not taken")
            self._taken[block] = 0
            self._free.append(block)
