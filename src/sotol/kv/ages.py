"""Eviction order: least recently used first, with a second class of things that are kept about 100 times as long."""

from collections import OrderedDict
from typing import Generic, TypeVar

__all__ = ["Ages"]

T = TypeVar("T")
WORTH = 100  # a dear thing is evicted first only if it is more than 100 times as old as the oldest cheap one


class Ages(Generic[T]):
    """A set of things, each with the time of its last use. Every operation takes constant time.

    The clock is logical: it counts additions.
    """

    def __init__(self) -> None:
        self._now = 0
        self._cheap: OrderedDict[T, int] = OrderedDict()
        self._dear: OrderedDict[T, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._cheap) + len(self._dear)

    def add(self, thing: T, *, dear: bool = False) -> None:
        """Put a thing in, as the most recently used one. dear: it is evicted much later."""
        self.discard(thing)
        self._now += 1
        (self._dear if dear else self._cheap)[thing] = self._now

    def touch(self, thing: T) -> None:
        """Mark a thing as the most recently used one, if it is in the set."""
        if thing in self._cheap:
            self.add(thing)
        elif thing in self._dear:
            self.add(thing, dear=True)

    def discard(self, thing: T) -> None:
        """Take a thing out, if it is in the set."""
        if self._cheap.pop(thing, None) is None:
            self._dear.pop(thing, None)

    def oldest(self) -> T:
        """The thing to evict next; KeyError if the set is empty."""
        if not self._cheap or not self._dear:
            for thing in self._cheap or self._dear:
                return thing
            raise KeyError("there is nothing to give up")
        cheap, since = next(iter(self._cheap.items()))
        dear, dear_since = next(iter(self._dear.items()))
        return dear if self._now - dear_since > WORTH * (self._now - since) else cheap
