"""Starts the engines, each in a process of its own, and measures what sotol does with one kind of work alone."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from bench.child import Child, EngineError
from bench.engines.protocol import Setup
from bench.peers import PEERS, variables
from bench.rows import Row
from bench.serving import llama_client, openai_client
from bench.serving.figures import Speeds
from bench.serving.play import Answer, answers_of, play
from bench.serving.trace import Client, record_of

__all__ = ["ENGINES", "Engine", "Play", "speeds"]

LONGEST = 1800.0  # seconds that a trace may take
# What sotol alone is measured with: one prompt, and steps of batches with contexts about as long as those of a load.
PREFILL = Row("prefill", 512)
BATCHES = tuple(Row("decode", 480, 16, count) for count in (16, 32, 64))
ALONE_CONTEXT = 512
ROUNDS = 3
MODEL = "model"  # its name at the server

Play: TypeAlias = Callable[[Sequence[Client]], list[list[Answer]]]


@dataclass(frozen=True, slots=True)
class Engine:
    """A loaded engine."""

    about: str  # version, and what it makes of this CPU
    play: Play


@contextmanager
def _sotol(setup: Setup, options: Mapping[str, int]) -> Iterator[Engine]:
    size = [str(x) for x in (setup.threads, setup.context, setup.sequences)]
    changed = [f"{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "bench.serving.sotol_engine", setup.model, *size, *changed]
    with Child(command, variables(None), LONGEST) as child:

        def play_there(clients: Sequence[Client]) -> list[list[Answer]]:
            return answers_of(child.ask({"clients": record_of(clients)})["answers"])

        yield Engine(child.loaded["about"], play_there)


@contextmanager
def _sotol_http(setup: Setup, options: Mapping[str, int]) -> Iterator[Engine]:
    size = [str(x) for x in (setup.threads, setup.context, setup.sequences)]
    changed = [f"{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "bench.serving.sotol_http_engine", setup.model, *size, *changed]
    with Child(command, variables(None), LONGEST) as child:
        address = child.loaded["address"]
        ask_there = partial(openai_client.ask, address, MODEL)
        yield Engine(child.loaded["about"], lambda clients: play(ask_there, clients))


@contextmanager
def _llama(setup: Setup, _options: Mapping[str, int]) -> Iterator[Engine]:
    with _peer("server", "make bench-serving", "bench.serving.llama_engine", setup) as child:
        ask_there = partial(llama_client.ask, child.loaded["address"])
        yield Engine(child.loaded["about"], lambda clients: play(ask_there, clients))


@contextmanager
def _vllm(setup: Setup, _options: Mapping[str, int]) -> Iterator[Engine]:
    with _peer("vllm", "make bench-vllm", "bench.serving.vllm_engine", setup) as child:
        ask_there = partial(openai_client.ask, child.loaded["address"], MODEL)
        yield Engine(child.loaded["about"], lambda clients: play(ask_there, clients))


def _peer(folder: str, installed_by: str, module: str, setup: Setup) -> Child:
    """A peer's server, by the Python of its own virtual environment. EngineError if there is none."""
    python = PEERS / folder / "bin" / "python"
    if not python.exists():
        raise EngineError(f"it is not installed ({installed_by} does that)")
    size = [str(x) for x in (setup.threads, setup.context, setup.sequences)]
    return Child([str(python), "-m", module, setup.model, *size], variables(None), LONGEST)


# What `--engines` takes: how each is started, with the options that only sotol has.
ENGINES: dict[str, Callable[[Setup, Mapping[str, int]], AbstractContextManager[Engine]]] = {
    "sotol": _sotol,
    "sotol-http": _sotol_http,
    "llama": _llama,
    "vllm": _vllm,
}


def speeds(model: str, threads: int, vocabulary: int) -> Speeds:
    """The best of a few rounds of each kind of work. EngineError if sotol can't do it."""

    def best(row: Row) -> float:
        command = [sys.executable, "-m", "bench.engines", "sotol", model]
        with Child([*command, str(threads), str(ALONE_CONTEXT), str(row.sequences)], variables(None)) as child:
            asked = [row.command(vocabulary, number) for number in range(ROUNDS)]
            seconds: list[float] = [child.ask(command)["seconds"] for command in asked]
            return row.tokens / min(seconds)

    return Speeds(best(PREFILL), {row.sequences: best(row) for row in BATCHES})
