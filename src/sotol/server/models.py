"""The models that a server has, by name. A list for now: loading them when they are asked for has its place here."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import sotol
from sotol.engine.options import Sampling
from sotol.errors import plain
from sotol.llm import LLM
from sotol.server.problems import Problem

__all__ = ["ANY", "Models", "Served"]

ANY = "*"  # an alias for every name that no model has


@dataclass(frozen=True, eq=False)
class Served:
    """A model under a name. aliases: further names; `ANY` among them stands for all that no model has.

    sampling: what holds where a request says nothing. created: when it was loaded, in seconds of Unix.
    """

    name: str
    llm: LLM
    aliases: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        for name in (self.name, *self.aliases):
            if not name or name != name.strip() or plain(name) != name:
                raise ValueError(
                    f"{plain(repr(name))} can't be a model's name: give one of a line, not empty and not too long"
                )

    @cached_property
    def longest_token(self) -> int:
        """Bytes of the longest token: no text of so many characters is less than a token."""
        tokenizer = self.llm.tokenizer
        return max(1, *(len(tokenizer.token_bytes(token, special=True)) for token in range(len(tokenizer))))

    @cached_property
    def fingerprint(self) -> str:
        """Changes with whatever may change answers: the version, the file, how it was loaded."""
        about = f"{sotol.__version__} {self.llm.path.name} {self.llm.vocabulary} {self.llm.options}"
        return "fp_" + hashlib.sha256(about.encode()).hexdigest()[:10]


class Models:
    """All that are served, the default first."""

    def __init__(self, served: Sequence[Served]) -> None:
        """ValueError if two have one name."""
        self._served = tuple(served)
        self._named: dict[str, Served] = {}
        for model in self._served:
            for name in (model.name, *model.aliases):
                if self._named.setdefault(name, model) is not model:
                    raise ValueError(f"two models have the name {name!r}: give each its own")

    def __iter__(self) -> Iterator[Served]:
        return iter(self._served)

    async def find(self, name: str | None) -> Served:
        """The model of that name, with or without Ollama's ":latest"; without a name the only one. Problem if none."""
        if name is None:
            if len(self._served) == 1:
                return self._served[0]
            raise Problem(400, f"you must provide a model parameter: one of {self._names()}", param="model")
        found = self._named.get(name) or self._named.get(name.removesuffix(":latest")) or self._named.get(ANY)
        if found is None:
            raise Problem(
                404,
                f"The model {plain(repr(name), 120)} does not exist: this server has {self._names()}",
                param="model",
                code="model_not_found",
            )
        return found

    def _names(self) -> str:
        return ", ".join(repr(model.name) for model in self._served) or "no model"
