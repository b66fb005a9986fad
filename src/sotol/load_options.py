"""The options of loading a model. Imports neither NumPy nor a backend: the command line shows defaults without them."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self, TypedDict

from sotol.backends.table import BACKENDS
from sotol.errors import meant

__all__ = ["PRECISIONS", "LoadOptions", "LoadSettings"]

PRECISIONS = ("int8", "f32")
# option: (least, most) of a whole number, or None
RANGES = {
    "threads": (1, 1024),
    "ctx": (1, 1 << 22),  # more than any model has
    "sequences": (1, 4096),
    "step_tokens": (1, 1 << 16),
    "queue": (1, 1 << 31),
}
KV_MEMORY = (1, 1 << 60)


class LoadSettings(TypedDict, total=False):
    """The fields of `LoadOptions` as keyword arguments; None means the default."""

    threads: int | None
    ctx: int | None
    precision: str | None
    backend: str | None
    sequences: int | None
    step_tokens: int | None
    kv_memory: float | None
    prefix_cache: bool | None
    slowdown: float | None
    queue: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """How to load a model; a wrong value raises ValueError that names the option and its range.

    threads: of the CPU; None takes the physical cores.
    ctx: tokens of a prompt and its answer together; None takes the model's own, up to 4096.
    precision: "int8" quantises activations before quantised weights, "f32" does not: slower, a little closer.
    backend: "cpu", or "reference" (NumPy; slow).
    sequences: requests that run at once.
    step_tokens: a longer prompt runs in chunks of so many tokens.
    kv_memory: of keys, values and states: a whole number of bytes, or a share of the memory that is free beside the
        weights, a float above 0 and up to 1.0. None takes four full contexts, or half of the free memory if that is
        less, but at least one context.
    prefix_cache: whether the beginning of a prompt that is known from another request is not computed again.
    slowdown: while prompts run, a step of others' answers takes at most about so many times as long as without.
    queue: requests that may wait for their turn.
    """

    threads: int | None = None
    ctx: int | None = None
    precision: str = "int8"
    backend: str = "cpu"
    sequences: int = 64
    step_tokens: int = 512
    kv_memory: float | None = None
    prefix_cache: bool = True
    slowdown: float = 1.8
    queue: int = 65536

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """The options of keyword arguments; None stands for an option's default.

        An unknown one raises TypeError that names it, and the one that may have been meant.
        """
        known = [f.name for f in fields(cls)]
        for name in settings:
            if name not in known:
                raise TypeError(f"a model has no option {name!r:.100}: {meant(name, known)}")
        return cls(**{name: value for name, value in settings.items() if value is not None})

    def __post_init__(self) -> None:
        defaults = {f.name: f.default for f in fields(self)}
        for name, (least, most) in RANGES.items():
            value, optional = getattr(self, name), defaults[name] is None
            if optional and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                none = ", or None" if optional else ""
                raise ValueError(f"{name} is {value!r:.80}; it must be a whole number from {least} to {most}{none}")
        for name, known in (("precision", PRECISIONS), ("backend", tuple(BACKENDS))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r:.80}; it must be one of {', '.join(known)}")
        if not isinstance(self.prefix_cache, bool):
            raise ValueError(f"prefix_cache is {self.prefix_cache!r:.80}; it must be True or False")
        slowdown = self.slowdown
        if isinstance(slowdown, bool) or not isinstance(slowdown, int | float) or not 1 <= slowdown <= 1000:
            raise ValueError(f"slowdown is {slowdown!r:.80}; it must be a number from 1 to 1000")
        _check_memory(self.kv_memory)


def _check_memory(given: object) -> None:
    """ValueError for what is neither bytes, nor a share, nor None."""
    least, most = KV_MEMORY
    right = isinstance(given, int) and not isinstance(given, bool) and least <= given <= most
    if given is not None and not right and not (isinstance(given, float) and 0 < given <= 1):
        raise ValueError(
            f"kv_memory is {given!r:.80}; it must be a whole number of bytes from {least} to {most},"
            " a share of the free memory (a float above 0, up to 1.0), or None"
        )
