"""What a model's config says of its quantisation, read key by key, so that no key goes unnoticed.

Whoever reads a scheme's settings names all keys that it understands; `finish` refuses the others. What only matters for
quantising a model, or for activations, is named by `ignore`.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from sotol.errors import ModelError, plain

__all__ = ["Settings"]

SIDES = re.compile(r"(\d{1,9})x(\d{1,9})")


class Settings:
    """The settings of one object of config.json. Errors are ModelErrors that name the file and the key."""

    def __init__(self, path: Path, values: Mapping[str, object], where: str) -> None:
        """path: of the folder. where: the object's name in errors."""
        self.path, self._values, self._where = path, values, where
        self._seen = set[str]()

    def fail(self, message: str) -> ModelError:
        """The error that something in these settings is wrong, or not supported."""
        return ModelError(f"{self.path}: {self._where}: {message}")

    def keys(self) -> list[str]:
        """The keys that nobody has asked for yet, sorted."""
        return sorted(self._values.keys() - self._seen)

    def in_order(self) -> list[str]:
        """All keys, as they come."""
        return list(self._values)

    def get(self, key: str) -> object:
        """The value of a key, None where there is none or it is null."""
        self._seen.add(key)
        return self._values.get(key)

    def expect(self, key: str, *possible: object) -> object:
        """The value, None where there is none; an error for one that is not possible."""
        value = self.get(key)
        if value is not None and value not in possible:
            supported = ", ".join(repr(x) for x in possible) or "none"
            raise self.fail(f"{key} is {plain(repr(value), 60)}; sotol supports {supported}")
        return value

    def integer(self, key: str) -> int | None:
        """A whole number; None where there is none."""
        value = self.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 1 << 31):
            raise self.fail(f"{key} is {plain(repr(value), 60)}, not a whole number")
        return value if isinstance(value, int) else None

    def sides(self, key: str) -> tuple[int, int] | None:
        """Two positive whole numbers, the rows and columns of a block, or both as text ("128x128"); None where there
        are none.
        """
        value = self.get(key)
        if value is None:
            return None
        if isinstance(value, str) and (found := SIDES.fullmatch(value)):
            value = [int(found[1]), int(found[2])]
        if not isinstance(value, list) or len(value) != 2 or not all(type(x) is int and 0 < x < 1 << 31 for x in value):
            raise self.fail(f"{key} is {plain(repr(value), 60)}, not the rows and columns of a block")
        return value[0], value[1]

    def inner(self, key: str) -> "Settings | None":
        """The settings of an object in these; None where there is none."""
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self.fail(f"{key} is {plain(repr(value), 60)}, not an object")
        return Settings(self.path, value, f"{self._where}.{plain(key, 60)}")

    def each(self, key: str) -> "list[Settings]":
        """The settings of each object of a list, or of a single one; none where there is none."""
        value = self.get(key)
        items = value if isinstance(value, list) else [] if value is None else [value]
        found = [Settings(self.path, x, f"{self._where}.{plain(key, 60)}") for x in items if isinstance(x, Mapping)]
        if len(found) < len(items):
            raise self.fail(f"{key} is {plain(repr(value), 60)}, not a list of objects")
        return found

    def ignore(self, *keys: str) -> None:
        """Keys that are understood, and change nothing about the weights."""
        self._seen.update(keys)

    def finish(self) -> None:
        """ModelError for a key that nobody has asked for."""
        if left := self.keys():
            raise self.fail(f"sotol does not know what {plain(repr(left[0]), 60)} (of {len(left)} such keys) means")
