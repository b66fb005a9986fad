"""Reading what a file says of a model with types and ranges, so that a wrong file is named here, not met in a kernel.

The names of an architecture's facts are those of GGUF. Hugging Face's `config.json` has the same facts by other names,
which each architecture's `KEYS` tells; so one `Config.read` serves both.
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from sotol.errors import ModelError

__all__ = ["Keys", "Metadata"]

Number = TypeVar("Number", int, float)
LARGEST = 2**31 - 1  # of any count: kernels and steps index with 32 bits

# GGUF's key without the architecture -> where config.json may have it, the first that is there counts. A dot leads into
# an object: "rope_parameters.rope_theta".
Keys = Mapping[str, tuple[str, ...]]


class Metadata(NamedTuple):
    """What a file says of one architecture: `integer("block_count")` reads `<architecture>.block_count`."""

    values: Mapping[str, object]
    architecture: str
    keys: Keys | None = None  # of config.json, if that is what `values` are; else they are GGUF's

    def has(self, key: str) -> bool:
        return self.find(key) is not None

    def find(self, key: str) -> object:
        """The value of a key, whatever it is; None where there is none. JSON's null says nothing, either."""
        if self.keys is None:
            return self.values.get(f"{self.architecture}.{key}")
        found = (self._at(place) for place in self.keys.get(key, ()))
        return next((value for value in found if value is not None), None)

    def integer(self, key: str, default: int | None = None, *, least: int = 1) -> int:
        """A whole number from `least` up; ModelError that names the key if it is missing, no number, or less."""
        value = self._get(key, default)
        if isinstance(value, list) and value and all(v == value[0] for v in value):
            value = value[0]  # one number for each layer, all the same
        return self._whole(key, value, value, least)

    def integers(self, key: str, layers: int, default: int | None = None, *, least: int = 1) -> tuple[int, ...]:
        """A whole number for each layer: one for all of them, or a list."""
        value = self._get(key, default)
        if not isinstance(value, list):
            return (self._whole(key, value, value, least),) * layers
        if len(value) < layers:
            raise self._wrong(key, value, f"a whole number for each of {layers} layers")
        return tuple(self._whole(key, item, value, least) for item in value[:layers])

    def number(self, key: str, default: float | None = None, *, zero: bool = False) -> float:
        """A finite positive number; with `zero`, 0 as well (which says "none")."""
        value = self._get(key, default)
        good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")
        if not good or (value == 0 and not zero):
            raise self._wrong(key, value, "a positive number")
        return float(value)  # type: ignore[arg-type]

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        """So many finite positive numbers."""
        value = self._get(key, None)
        good = isinstance(value, list) and len(value) == count
        if not good or not all(type(v) in (int, float) and 0 < v < float("inf") for v in value):  # type: ignore[attr-defined]
            raise self._wrong(key, value, f"{count} positive numbers")
        return tuple(float(v) for v in value)  # type: ignore[attr-defined]

    def layer_flags(self, key: str, layers: int, period: int, kinds: tuple[str, str]) -> tuple[bool, ...]:
        """A truth value for each layer: a list of them, or a period n: true but for each n-th layer (0: for none).

        kinds: what a list may have for true and for false, as config.json's layer_types do.
        """
        value = self._get(key, period)
        if isinstance(value, list):
            if len(value) < layers or not all(isinstance(flag, bool | int) or flag in kinds for flag in value):
                raise self._wrong(key, value, f"truth values of {layers} layers")
            return tuple(flag == kinds[0] if isinstance(flag, str) else bool(flag) for flag in value[:layers])
        period = self.integer(key, period, least=0)
        return tuple(period == 0 or i % period < period - 1 for i in range(layers))

    def text(self, key: str, default: str) -> str:
        """A string."""
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, value, "text")
        return value

    def expect(self, place: str, *possible: object) -> None:
        """ModelError if config.json says in `place` what is not possible: such a model needs code that is not here."""
        value = None if self.keys is None else self._at(place)
        if value is not None and value not in possible:
            wanted = " or ".join(map(repr, possible))
            raise ModelError(f"config.json's {place} is {value!r:.40}: sotol runs {self.architecture} with {wanted}")

    def _at(self, place: str) -> object:
        value: object = self.values
        for name in place.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        return value

    def _whole(self, key: str, value: object, whole: object, least: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LARGEST:
            raise self._wrong(key, whole, f"a whole number from {least} to {LARGEST}")
        return value

    def _name(self, key: str) -> str:
        if self.keys is None:
            return f"metadata {self.architecture}.{key}"
        return f"config.json's {(self.keys.get(key) or (key,))[0]}"

    def _get(self, key: str, default: object) -> object:
        value = self.find(key)
        value = default if value is None else value
        if value is None:
            raise ModelError(f"{self._name(key)} is missing: the file does not describe the model")
        return value

    def _wrong(self, key: str, value: object, wanted: str) -> ModelError:
        return ModelError(f"{self._name(key)} is {str(value)[:40]!r}, not {wanted}")
