"""The models that a server has, by name: those that are loaded, and those that can be, when somebody asks for them."""

import asyncio
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import sotol
from sotol.engine.options import Sampling
from sotol.errors import plain
from sotol.llm import LLM
from sotol.server.defaults import sampling_of
from sotol.server.loads import Load, Loads, give_back
from sotol.server.pool import Closed, Lease, Pool, Slot, Source, Status, Watch
from sotol.server.problems import Problem
from sotol.server.warming import warm

__all__ = ["ANY", "Model", "Models", "Offered", "Served"]

ANY = "*"  # an alias for every name that no model has


@dataclass(frozen=True, eq=False)
class Served:
    """A model under a name. aliases: further names; `ANY` among them stands for all that no model has.

    sampling: what holds where a request says nothing; None: what the model's makers recommend. created: when it was
    loaded, in seconds of Unix.
    """

    name: str
    llm: LLM
    aliases: tuple[str, ...] = ()
    sampling: Sampling | None = None
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        _check_names(self.name, self.aliases)

    @cached_property
    def defaults(self) -> Sampling:
        """What holds where a request says nothing."""
        return sampling_of(self.llm.metadata) if self.sampling is None else self.sampling

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

    def warm(self) -> None:
        """Do what the first request would wait for."""
        warm(self.llm)
        _ = self.longest_token, self.fingerprint


@dataclass(frozen=True, eq=False)
class Offered:
    """A model that is loaded when somebody asks for it. load, size: called in a thread.

    size: the bytes of memory that it will take, nearly. path: of its file or folder. keep_alive: seconds that it stays
    without being used, None being the server's; math.inf: for ever. sampling: fields of `Sampling` that hold where a
    request says nothing; ValueError for what no request could say.
    """

    name: str
    load: Load
    size: Callable[[], int] = lambda: 0
    path: Path | None = None
    aliases: tuple[str, ...] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict)
    keep_alive: float | None = None

    def __post_init__(self) -> None:
        _check_names(self.name, self.aliases)
        Sampling.of(**self.sampling)


class Model(NamedTuple):
    """What there is to say of a model now.

    served: while it is loaded. path: of its file or folder, if that is known. created: when it was loaded, or
    offered, in seconds of Unix. sampling: what holds where a request says nothing. memory: bytes that it takes. idle:
    seconds since it was used last, None while it is. expires: seconds until it is unloaded unless somebody uses it;
    None: never, or it is in use. error: why it could not be loaded.
    """

    name: str
    aliases: tuple[str, ...]
    status: Status
    served: Served | None
    path: Path | None
    created: int
    sampling: Sampling
    memory: int
    idle: float | None
    expires: float | None
    error: str | None


class Models:
    """All that are served, the default first."""

    def __init__(
        self,
        models: Sequence[Served | Offered],
        *,
        memory: int | None = None,
        keep_alive: float = math.inf,
        watch: Watch | None = None,
        more: Callable[[str], Offered] | None = None,
    ) -> None:
        """ValueError if two have one name.

        memory: bytes of all that is loaded at a time; None: no limit. keep_alive: seconds that a model stays without
        being used, where it does not say itself. watch: who wants to know. more: makes models of names that are pulled
        while the server runs; None: nothing may be pulled.
        """
        self._pool: Pool[Served] = Pool(memory, watch)
        self._loads = Loads()
        self._keep_alive, self.more, self._begun = keep_alive, more, int(time.time())
        self._slots: list[tuple[Served | Offered, Slot[Served]]] = []
        self._named: dict[str, int] = {}
        for model in models:
            self.add(model)

    def add(self, model: Served | Offered) -> None:
        """One more; ValueError if another has one of its names."""
        number = len(self._slots)
        names = (model.name, *model.aliases)
        for name in names:
            if name in self._named:
                raise ValueError(f"two models have the name {name!r}: give each its own")
        self._named |= dict.fromkeys(names, number)
        if isinstance(model, Served):
            slot = self._pool.add(model.name, None, model)
            slot.size = model.llm.memory
        else:
            slot = self._pool.add(model.name, self._source(model))
        self._slots.append((model, slot))

    def __iter__(self) -> Iterator[Model]:
        return (self._seen(number) for number in range(len(self._slots)))

    def __len__(self) -> int:
        return len(self._slots)

    def find(self, name: str | None) -> Model:
        """The model of that name, with or without Ollama's ":latest"; without a name the only one. Problem if none."""
        return self._seen(self._number(name))

    async def open(self, name: str | None, keep_alive: float | None = None) -> Lease[Served]:
        """The use of a model by name, as `find` knows it, once it is loaded. Raises what loading raises.

        keep_alive: seconds that it stays after this use, 0: it goes then. It does not shorten "for ever" otherwise.
        """
        slot, keep = self._wanted(name, keep_alive)
        with _closing_said():
            return await self._pool.open(slot, keep)

    def open_now(self, name: str | None, keep_alive: float | None = None) -> Lease[Served] | None:
        """The same without waiting; None if it would have to."""
        slot, keep = self._wanted(name, keep_alive)
        with _closing_said():
            return self._pool.open_now(slot, keep)

    def unload(self, name: str | None) -> None:
        """Unload a model as soon as nobody uses it, and keep the file. One that was given loaded stays."""
        model, slot = self._slots[self._number(name)]
        if isinstance(model, Offered):
            self._pool.release(slot)

    def given(self) -> list[Served]:
        """Those that were loaded already when they came here."""
        return [model for model, _ in self._slots if isinstance(model, Served)]

    def loaded(self) -> dict[str, LLM]:
        """Those that are loaded now, by name."""
        return {slot.name: slot.thing.llm for _, slot in self._slots if slot.thing is not None}

    async def close(self) -> None:
        """Unload all that was loaded here; nothing can be loaded any more."""
        self._loads.stop()
        await self._pool.close()

    def stop_loading(self) -> None:
        """End what is being loaded: who waits for it gets an error."""
        self._loads.stop()

    def loading_ended(self) -> bool:
        """Whether no thread loads any more, in a moment."""
        return self._loads.ended()

    # ---- inside

    def _wanted(self, name: str | None, keep_alive: float | None) -> tuple[Slot[Served], float]:
        model, slot = self._slots[self._number(name)]
        keep = self._kept(model)
        return slot, keep if keep_alive is None or (keep == math.inf and keep_alive > 0) else keep_alive

    def _number(self, name: str | None) -> int:
        if name is None:
            if len(self._slots) == 1:
                return 0
            raise Problem(400, f"you must provide a model parameter: one of {self._names()}", param="model")
        for known in (name, name.removesuffix(":latest"), ANY):
            if known in self._named:
                return self._named[known]
        raise Problem(
            404,
            f"The model {plain(repr(name), 120)} does not exist: this server has {self._names()}",
            param="model",
            code="model_not_found",
        )

    def _names(self) -> str:
        return ", ".join(repr(model.name) for model, _ in self._slots) or "no model"

    def _seen(self, number: int) -> Model:
        model, slot = self._slots[number]
        served, now = slot.thing, _time(slot)
        path = served.llm.path if served is not None else model.path if isinstance(model, Offered) else None
        return Model(
            slot.name,
            model.aliases,
            slot.status,
            served,
            path,
            self._begun if served is None else served.created,
            _defaults(model, served),
            0 if served is None else served.llm.memory,
            None if slot.users or served is None or now is None else max(0.0, now - slot.used),
            None if slot.expires is None or now is None else max(0.0, slot.expires - now),
            slot.error,
        )

    def _kept(self, model: Served | Offered) -> float:
        if isinstance(model, Served):
            return math.inf
        return self._keep_alive if model.keep_alive is None else model.keep_alive

    def _source(self, model: Offered) -> Source[Served]:
        async def load() -> Served:
            llm = await self._loads.load(model.name, model.load)
            served = Served(model.name, llm, model.aliases, sampling_of(llm.metadata, model.sampling))
            await asyncio.to_thread(served.warm)
            return served

        async def unload(served: Served) -> None:
            await served.llm.aclose()
            del served
            await asyncio.to_thread(give_back)

        async def size() -> int:
            return await asyncio.to_thread(model.size)

        return Source(load, unload, size, self._kept(model))


def _defaults(model: Served | Offered, served: Served | None) -> Sampling:
    """What holds where a request says nothing; of what is not loaded, as far as that is known without its file."""
    if isinstance(model, Served):
        return model.defaults
    return Sampling.of(**model.sampling) if served is None else served.defaults


@contextmanager
def _closing_said() -> Iterator[None]:
    """Turns the end of the pool into a Problem."""
    try:
        yield
    except Closed as error:
        raise Problem(503, str(error), code="shutting_down", retry_after=5) from error


def _time(slot: Slot[Served]) -> float | None:
    """The loop's time; None for what was never used, or where no loop runs."""
    if not slot.used:
        return None
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return None


def _check_names(first: str, aliases: Sequence[str]) -> None:
    for name in (first, *aliases):
        if not name or name != name.strip() or plain(name) != name:
            raise ValueError(
                f"{plain(repr(name))} can't be a model's name: give one of a line, not empty and not too long"
            )
