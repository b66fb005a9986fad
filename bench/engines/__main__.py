"""One engine in its process: ids in, seconds out.

    python -m bench.engines NAME MODEL THREADS CONTEXT SEQUENCES          NAME: a key of ENGINES
    python -m bench.engines NAME MODEL THREADS CONTEXT SEQUENCES first 5 6 7

The first form prints a line of JSON when the model is loaded, then answers the commands of its input, until that ends;
between them it waits for input, so its threads sleep. The second prints the first token behind a prompt of these ids.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.engines import ENGINES
from bench.engines.protocol import Engine, Setup

__all__ = ["answer", "peak_memory"]


def answer(engine: Engine, command: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a command asks for: seconds, or bytes."""
    match command:
        case {"prefill": ids}:
            return {"seconds": engine.prefill(ids)}
        case {"prompts": prompts, "answers": answers}:
            return {"seconds": engine.decode(prompts, answers)}
        case {"memory": _}:
            return {"peak": peak_memory(), **engine.memory()}
    raise ValueError(f"unknown command: {sorted(command)}")


def peak_memory() -> int:
    """The most memory that this process had, in bytes; -1 where the system does not tell.

    Not ru_maxrss, which counts what the parent had when it forked.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().split("\n") if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), -1)


def main(name: str, model: str, threads: str, context: str, sequences: str, *rest: str) -> None:
    # Libraries print what they like: that goes to standard error.
    with os.fdopen(os.dup(1), "w") as output:
        os.dup2(2, 1)
        engine = ENGINES[name].build(Setup(model, int(threads), int(context), int(sequences)))
        if rest:
            print(engine.first([int(token) for token in rest[1:]]), file=output, flush=True)
            return
        print(json.dumps({"about": engine.about}), file=output, flush=True)
        for line in sys.stdin:
            print(json.dumps(answer(engine, json.loads(line))), file=output, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
