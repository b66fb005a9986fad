"""Reading a model's metadata with types and ranges, so that a wrong file is named here and not met in a kernel."""

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from sotol.errors import ModelError

__all__ = ["Fields"]

Number = TypeVar("Number", int, float)
LARGEST = 2**31 - 1  # of any count: kernels and steps index with 32 bits


class Fields(NamedTuple):
    """The metadata of one architecture: `integer("block_count")` reads `<architecture>.block_count`."""

    metadata: Mapping[str, object]
    architecture: str

    def has(self, key: str) -> bool:
        return f"{self.architecture}.{key}" in self.metadata

    def integer(self, key: str, default: int | None = None, *, least: int = 1) -> int:
        """A whole number from `least` up; ModelError that names the key if it is missing, no number, or less."""
        value = self._get(key, default)
        if isinstance(value, list) and value and all(v == value[0] for v in value):
            value = value[0]  # one number for each layer, all the same
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LARGEST:
            raise self._wrong(key, value, f"a whole number from {least} to {LARGEST}")
        return value

    def number(self, key: str, default: float | None = None, *, zero: bool = False) -> float:
        """A finite positive number; with `zero`, 0 as well (which says "none")."""
        value = self._get(key, default)
        good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")
        if not good or (value == 0 and not zero):
            raise self._wrong(key, value, "a positive number")
        return float(value)  # type: ignore[arg-type]

    def layer_flags(self, key: str, layers: int, period: int) -> tuple[bool, ...]:
        """A truth value for each layer: a list of them, or a period n: true but for each n-th layer (0: for none)."""
        value = self._get(key, period)
        if isinstance(value, list):
            if len(value) < layers or not all(isinstance(flag, bool | int) for flag in value):
                raise self._wrong(key, value, f"truth values of {layers} layers")
            return tuple(bool(flag) for flag in value[:layers])
        period = self.integer(key, period, least=0)
        return tuple(period == 0 or i % period < period - 1 for i in range(layers))

    def text(self, key: str, default: str) -> str:
        """A string."""
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, value, "text")
        return value

    def _get(self, key: str, default: object) -> object:
        value = self.metadata.get(f"{self.architecture}.{key}", default)
        if value is None:
            raise ModelError(f"metadata {self.architecture}.{key} is missing: the file does not describe the model")
        return value

    def _wrong(self, key: str, value: object, wanted: str) -> ModelError:
        return ModelError(f"metadata {self.architecture}.{key} is {str(value)[:40]!r}, not {wanted}")
