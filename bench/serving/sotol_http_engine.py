"""sotol's server in a process of its own, as `sotol serve` runs it. Clients reach it by HTTP: `openai_client.py`.

    python -m bench.serving.sotol_http_engine MODEL THREADS CONTEXT SEQUENCES [OPTION=NUMBER …]  options: those of LLM

Prints a line of JSON with its address when the model is loaded, and runs until its input ends.
"""

import json
import os
import signal
import sys
import threading
from importlib.metadata import version

from bench.serving.engines import MODEL
from bench.serving.sotol_engine import load
from starlette.applications import Starlette

from sotol.backends.cpu.target import host_target
from sotol.llm import LLM
from sotol.server import Models, Offered, create_app
from sotol.server.around import Around
from sotol.server.metrics import Metrics
from sotol.server.serving import serve
from sotol.server.settings import Settings

__all__ = ["main"]

GRACE = 0.0  # seconds for what still runs when the measurement is over: nothing does


def main(model: str, threads: str, context: str, sequences: str, *rest: str) -> None:
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what else is printed goes to standard error
    options = {name: int(value) for name, value in (x.split("=") for x in rest)}
    settings = Settings(port=0, shutdown_grace=GRACE)

    def make_models(metrics: Metrics) -> Models:
        return Models([Offered(MODEL, loading)], watch=metrics)

    def make_app(models: Models, metrics: Metrics) -> Starlette:
        return create_app(models, settings, around=Around(metrics))

    def announce(address: str) -> None:
        about = f"sotol {version('sotol')} by HTTP, level {host_target().level}"
        print(json.dumps({"about": about, "address": address}), file=output, flush=True)
        threading.Thread(target=_end_with_input, daemon=True).start()

    def loading(_progress: object) -> LLM:
        return load(model, int(threads), int(context), int(sequences), options)

    sys.exit(serve(settings, make_models, make_app, announce))


def _end_with_input() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main(*sys.argv[1:])
