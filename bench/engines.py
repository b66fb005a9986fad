"""Engines under measurement, each alone in its process: ids in, seconds out.

    python bench/engines.py NAME MODEL THREADS CONTEXT      NAME: a key of ENGINES

It prints a line of JSON when the model is loaded, then answers lines {"prompt": ids, "answer": ids}: it runs the prompt
into an empty cache, then each id of the answer in a step of its own, and says how many seconds either took. Logits
are computed for the prompt's last token and for each of the answer's; nothing is sampled. Between commands it waits
for input, so its threads sleep. Only the engine's own package is imported: `peers.py` may start each in another Python.
"""

import ctypes
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from time import perf_counter
from typing import Protocol

__all__ = ["ENGINES", "Engine", "measure", "serve"]


class Engine(Protocol):
    """A loaded model with room for one sequence."""

    about: str  # version and what it makes of this CPU
    vocabulary: int

    def prompt(self, ids: Sequence[int]) -> None:
        """Empty the cache and run a whole prompt; done when this returns."""

    def token(self, token: int, position: int) -> None:
        """Run one more token."""


class Sotol:
    """sotol's CPU backend, as `LLM` sets it up."""

    def __init__(self, model: str, threads: int, context: int) -> None:
        from sotol import LLM  # noqa: PLC0415 (see above)
        from sotol.backends.cpu.target import host_target  # noqa: PLC0415
        from sotol.cli.workload import decode_steps, prompt_steps  # noqa: PLC0415

        self._runner = LLM(model, threads=threads, ctx=context).runner
        self._prompt_steps, self._decode_steps = prompt_steps, decode_steps
        self.about = f"sotol {version('sotol')}, level {host_target().level}"
        self.vocabulary = self._runner.vocabulary

    def prompt(self, ids: Sequence[int]) -> None:
        for step in self._prompt_steps(ids, self._runner.limits):
            self._runner.run(step)

    def token(self, token: int, position: int) -> None:
        for step in self._decode_steps([token], position):
            self._runner.run(step)


class LlamaCpp:
    """llama.cpp by the low-level bindings of llama-cpp-python, the prompt in one batch, an f16 cache."""

    def __init__(self, model: str, threads: int, context: int, *, flash: bool) -> None:
        import llama_cpp.llama_cpp as lib  # noqa: PLC0415

        self._lib = lib
        self._silent = lib.llama_log_callback(lambda *_: None)  # kept: llama.cpp calls it
        lib.llama_log_set(self._silent, ctypes.c_void_p(0))
        lib.llama_backend_init()
        settings = lib.llama_model_default_params()
        settings.n_gpu_layers = 0
        self._model = lib.llama_model_load_from_file(model.encode(), settings)
        options = lib.llama_context_default_params()
        options.n_ctx = options.n_batch = options.n_ubatch = context
        options.n_threads = options.n_threads_batch = threads
        options.flash_attn_type = int(flash)
        options.no_perf = True
        self._context = lib.llama_init_from_model(self._model, options) if self._model else None
        if not self._context:
            raise RuntimeError(f"llama.cpp can't load {model}")
        self._batch = lib.llama_batch_init(context, 0, 1)
        self.vocabulary = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self._model))
        system = lib.llama_print_system_info().decode().strip()
        self.about = f"llama-cpp-python {version('llama-cpp-python')}, {system}"

    def prompt(self, ids: Sequence[int]) -> None:
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), True)
        self._decode(ids, 0)

    def token(self, token: int, position: int) -> None:
        self._decode([token], position)

    def _decode(self, ids: Sequence[int], begin: int) -> None:
        batch = self._batch
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.logits[i] = token, begin + i, i == len(ids) - 1
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        if self._lib.llama_decode(self._context, batch):
            raise RuntimeError("llama_decode failed")
        self._lib.llama_synchronize(self._context)


ENGINES: dict[str, Callable[[str, int, int], Engine]] = {
    "sotol": Sotol,
    "llama.cpp": lambda model, threads, context: LlamaCpp(model, threads, context, flash=False),
    "llama.cpp-flash": lambda model, threads, context: LlamaCpp(model, threads, context, flash=True),
}


def measure(engine: Engine, prompt: Sequence[int], answer: Sequence[int]) -> Mapping[str, float]:
    """Seconds of the prompt and of the answer."""
    begin = perf_counter()
    engine.prompt(prompt)
    middle = perf_counter()
    for i, token in enumerate(answer):
        engine.token(token, len(prompt) + i)
    return {"prompt": middle - begin, "answer": perf_counter() - middle}


def serve(name: str, model: str, threads: int, context: int) -> None:
    """Answer the commands of standard input until it ends."""
    engine = ENGINES[name](model, threads, context)
    print(json.dumps({"about": engine.about, "vocabulary": engine.vocabulary}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps(measure(engine, command["prompt"], command["answer"])), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
