"""sotol under load, in a process of its own with its clients' threads: `LLM` as other programs use it.

    python -m bench.serving.sotol_engine MODEL THREADS CONTEXT SEQUENCES [OPTION=NUMBER …]    options: those of LLM

Prints a line of JSON when the model is loaded; then each line of its input is a trace, and gets a line of answers.
"""

import inspect
import json
import os
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from importlib.metadata import version
from queue import SimpleQueue
from typing import Any

from bench.serving.play import play, record_of
from bench.serving.trace import clients_of

from sotol import LLM, Sampling
from sotol.backends.cpu.target import host_target
from sotol.engine.options import Terms
from sotol.engine.sequence import Event, Failed, Finished
from sotol.formats import read_gguf
from sotol.loading import CONTEXTS
from sotol.requests import Asked, start

__all__ = ["ask", "load"]


class Tokens:
    """What `Stream` is to the engine, but for tokens: a stream gives text, and some tokens have none."""

    def __init__(self, *_: object) -> None:
        self._events: SimpleQueue[Event] = SimpleQueue()
        self.close: Callable[[], None] = lambda: None

    def attach(self, cancel: Callable[[], None], *_: object) -> Callable[[Event], None]:
        """As of `Stream`."""
        self.close = cancel
        return self._events.put

    def read(self) -> Generator[int, None, None]:
        """A 1 for each token, when it is there. Raises the request's error if it failed."""
        try:
            while not isinstance(event := self._events.get(), Finished):
                if isinstance(event, Failed):
                    raise event.error
                yield 1
        finally:
            self.close()


def ask(llm: LLM, prompt: Sequence[int], new: int) -> Generator[int, None, None]:
    """An answer of `new` likeliest tokens, the end of the model's generation included: see `play.Ask`.

    It begins as that of `LLM.stream` does, with another listener.
    """
    sampling = Sampling(temperature=0, max_tokens=new, ignore_eos=True)
    kind: Any = Tokens
    listener: Tokens = start(llm._engine, llm._loaded, Asked([list(prompt)], True, sampling, Terms()), kind)[0]
    return listener.read()


def load(model: str, threads: int, context: int, sequences: int, options: Mapping[str, int]) -> LLM:
    """A model whose cache holds so many sequences of so many tokens, if the model's own context is long enough.

    ValueError for an option that LLM does not have.
    """
    for name in options:
        if name not in inspect.signature(LLM).parameters:
            raise ValueError(f"this sotol's LLM has no option {name!r}")
    metadata = read_gguf(model).metadata
    longest = metadata[f"{metadata['general.architecture']}.context_length"]
    assert isinstance(longest, int)
    wanted = max(context, context * sequences // CONTEXTS)
    return LLM(model, threads=threads, ctx=min(wanted, longest), **options)  # type: ignore[arg-type]


def main(model: str, threads: str, context: str, sequences: str, *rest: str) -> None:
    with os.fdopen(os.dup(1), "w") as output:  # what else is printed goes to standard error
        os.dup2(2, 1)
        options = {name: int(value) for name, value in (x.split("=") for x in rest)}
        with load(model, int(threads), int(context), int(sequences), options) as llm:
            about = f"sotol {version('sotol')}, level {host_target().level}"
            print(json.dumps({"about": about}), file=output, flush=True)
            for line in sys.stdin:
                answers = play(lambda prompt, new: ask(llm, prompt, new), clients_of(json.loads(line)["clients"]))
                print(json.dumps({"answers": record_of(answers)}), file=output, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
