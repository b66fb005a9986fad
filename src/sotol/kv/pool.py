"""Reference counts of a group's blocks. Knows nothing of what a block holds: backends own the memory.

A block's owners are running sequences and the prefix tree.
"""

from heapq import heappop, heappush

__all__ = ["BlockPool"]


class BlockPool:
    """Block ids 0 .. size - 1, each free or with a reference count. Only `take`, `share` and `release` change it."""

    def __init__(self, size: int) -> None:
        """ValueError for a negative size."""
        if size < 0:
            raise ValueError(f"a pool can't have {size} blocks")
        self.size = size
        self._counts = [0] * size
        self._touched = 0  # ids from here on were never taken; all ids in `_released` are lower
        self._released: list[int] = []  # a heap

    @property
    def free(self) -> int:
        """How many blocks are free."""
        return self.size - self._touched + len(self._released)

    def count(self, block: int) -> int:
        """The reference count of a block; 0: it is free."""
        return self._counts[block]

    def take(self, count: int) -> list[int]:
        """Allocate `count` blocks, each with one owner: the lowest free ids, so that unused memory is never touched.

        ValueError if fewer are free; then nothing has changed.
        """
        if not 0 <= count <= self.free:
            raise ValueError(f"can't take {count} blocks: {self.free} of {self.size} are free")
        blocks = [heappop(self._released) for _ in range(min(count, len(self._released)))]
        fresh = count - len(blocks)
        blocks += range(self._touched, self._touched + fresh)
        self._touched += fresh
        for block in blocks:
            self._counts[block] = 1
        return blocks

    def share(self, block: int) -> None:
        """Add an owner; ValueError for a free block."""
        if not (0 <= block < self.size and self._counts[block]):
            raise ValueError(f"block {block} is not taken")
        self._counts[block] += 1

    def release(self, block: int) -> int:
        """Remove an owner and return how many are left: at 0 the block is free. ValueError for a free block."""
        if not (0 <= block < self.size and self._counts[block]):
            raise ValueError(f"block {block} is not taken")
        left = self._counts[block] - 1
        self._counts[block] = left
        if not left:
            heappush(self._released, block)
        return left
