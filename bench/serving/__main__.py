"""sotol beside llama.cpp's and vLLM's servers under load: throughput, and how long answers keep their readers waiting.

    python -m bench.serving [--model PATH|NAME] [--rate 4|inf] [--threads N] [--requests 64]
                            [--engines sotol,sotol-http,llama,vllm] [--scenario load|prefix|long] [--seed N]
                            [--json FILE]

Prints a table; docs/performance.md tells what is measured, and how.
"""

import argparse
import os
import shlex
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.child import EngineError
from bench.engines.protocol import Setup
from bench.machine import Patience, processor
from bench.peers import model_path
from bench.serving.engines import ENGINES, speeds
from bench.serving.figures import ideal_seconds
from bench.serving.scenarios import SCENARIOS, Work, warm_up
from bench.serving.show import show_record
from bench.serving.trace import poisson

from sotol.backends.cpu.running.threads import default_threads
from sotol.backends.cpu.target import host_target
from sotol.catalog import DEFAULT_MODEL
from sotol.cli.output import as_json, console
from sotol.cli.streams import say
from sotol.errors import SotolError
from sotol.formats import read_gguf
from sotol.tokenizers.roles import TokenType
from sotol.tokenizers.vocabulary import read_vocabulary

__all__ = ["ordinary_ids"]

SEQUENCES = 16  # slots of llama.cpp's server; sotol's cache has room for as many
OPTIONS = ("sequences", "step_tokens", "kv_memory")  # of LLM


def ordinary_ids(model: Path) -> list[int]:
    """The ids of a file's tokens that are plain text."""
    vocabulary = read_vocabulary(read_gguf(model).metadata, str(model))
    return sorted(vocabulary.of_type(TokenType.NORMAL).values())


def measure(record: dict[str, Any], options: argparse.Namespace, model: Path, work: Work) -> None:
    """Add the figures of each engine to the record. One that can't be run is left out, with what it said."""
    scenario = SCENARIOS[options.scenario]
    setup = Setup(str(model), options.threads, scenario.context, SEQUENCES)
    changed = {name: value for name in OPTIONS if (value := getattr(options, name)) is not None}
    patience = Patience(options.patience)
    for name in options.engines:
        busy = patience.wait()
        try:
            with ENGINES[name](setup, changed) as engine:
                say(f"{name}: {engine.about}")
                warm_up(engine.play, work)
                figures = scenario.run(engine.play, work)
        except EngineError as error:
            record["left_out"][name] = str(error)
            say(f"{name} is left out: {error}")
            continue
        record["engines"][name] = {"about": engine.about, "busy": busy, "load": os.getloadavg(), **figures}
        keep(record, options)


def heading(options: argparse.Namespace, model: Path, work: Work) -> dict[str, Any]:
    """What is measured, where and how, as JSON has it; no engine has run."""
    about = SCENARIOS[options.scenario].about
    if options.scenario == "load":
        arrivals = "all at once" if work.rate == float("inf") else f"{work.rate:g} per second"
        about = f"{work.requests} {about}, {arrivals}"
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": processor(),
        "cpus": os.cpu_count(),
        "level": host_target().level,
        "python": sys.version.split()[0],
        "command": shlex.join(["python", "-m", "bench.serving", *sys.argv[1:]]),
        "model": model.name,
        "threads": options.threads,
        "scenario": options.scenario,
        "about": about,
        "seed": work.seed,
        "engines": {},
        "left_out": {},
    }


def keep(record: dict[str, Any], options: argparse.Namespace) -> None:
    """Write what is known so far, if it was asked for."""
    if options.json:
        options.json.write_text(as_json(record) + "\n")


def alone(record: dict[str, Any], options: argparse.Namespace, model: Path, work: Work) -> dict[str, Any] | None:
    """What sotol's own speeds would allow, and which share of that it reached; None if it can't be measured."""
    say("sotol alone")
    try:
        found = speeds(str(model), options.threads, len(work.ordinary))
    except EngineError as error:
        record["left_out"]["sotol alone"] = str(error)
        return None
    ideal = ideal_seconds(poisson(work.ordinary, work.requests, work.rate, work.seed), found)
    took = record["engines"]["sotol"]["seconds"]
    return {**asdict(found), "ideal": ideal, "share": ideal / took if took else None}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.serving", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a path or name (smollm2; gemma3 of `make parity`)")
    parser.add_argument("--scenario", choices=[*SCENARIOS], default="load", help="what is asked (load)")
    parser.add_argument("--rate", type=float, default=4.0, help="arrivals per second, or inf: all at once (4)")
    parser.add_argument("--requests", type=int, default=64, help="of the load (64)")
    parser.add_argument("--threads", type=int, default=default_threads(), help="(the physical cores)")
    parser.add_argument("--engines", type=lambda x: x.split(","), default=[*ENGINES], help=f"({','.join(ENGINES)})")
    parser.add_argument("--seed", type=int, default=1, help="of the trace (1)")
    parser.add_argument("--patience", type=float, default=120, help="seconds that the run waits for quiet (120)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    for name in OPTIONS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, metavar="N", help=f"{name} of sotol's LLM")
    options = parser.parse_args()
    if unknown := {*options.engines} - {*ENGINES}:
        parser.error(f"--engines has {', '.join(sorted(unknown))}; there are {', '.join(ENGINES)}")
    if options.threads < 1:
        parser.error("--threads is at least 1")
    try:
        model = model_path(options.model)
        work = Work(ordinary_ids(model), options.requests, options.rate, options.seed)
        poisson(work.ordinary, work.requests, work.rate, work.seed)  # says what is wrong with them
    except (ValueError, SotolError, OSError) as error:
        parser.error(str(error))
    record = heading(options, model, work)
    measure(record, options, model, work)
    if options.scenario == "load" and "sotol" in record["engines"]:
        record["alone"] = alone(record, options, model, work)
    keep(record, options)
    show_record(record, console())


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
