"""Sotol and its peers side by side on the same files: prints a table, and writes all numbers.

    python -m bench.peers [MODEL …] [--threads N …] [--rounds 4] [--only ROW …] [--level LEVEL] [--json FILE]

Machines drift by a third within minutes, so engines take turns, round after round, each in a process of its own
(`engines/`) that sleeps while another is measured. Best and median of the rounds are shown. Settings of a peer take
turns too; the better one counts, row by row. docs/performance.md tells how to read the result.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.engines import ENGINES
from bench.machine import Patience, processor, slug
from bench.measure import Job, Result, measure
from bench.rows import ROWS, TOKENIZE
from bench.table import markdown

from sotol.backends.cpu.running.threads import default_threads
from sotol.backends.cpu.target import host_target, levels
from sotol.catalog import find_model
from sotol.cli.streams import say
from sotol.errors import SotolError
from sotol.formats import read_gguf

__all__ = ["ISA", "chosen_rows", "found_pythons", "model_path", "variables"]

CACHE = Path.home() / ".cache"
PARITY = Path(os.environ.get("SOTOL_PARITY", CACHE / "sotol-parity"))
PEERS = Path(os.environ.get("SOTOL_PEERS", CACHE / "sotol-peers"))
RESULTS = Path(__file__).parent / "results"
# Environment of an engine: its Python, and what makes it.
PYTHONS = {
    "sotol": (Path(sys.executable), ""),
    "llama": (PARITY / "venv" / "bin" / "python", "make parity"),
    "ik": (PEERS / "ik" / "bin" / "python", "make bench"),
    "openvino": (PEERS / "openvino" / "bin" / "python", "make bench"),
    "vllm": (PEERS / "vllm" / "bin" / "python", "make bench-vllm"),
}
# CPU level of sotol: the same for oneDNN, on which OpenVINO and vLLM rest. llama.cpp's are fixed when it is built.
ISA = {
    "generic": "SSE41",
    "avx2": "AVX2",
    "avxvnni": "AVX2_VNNI",
    "avx512": "AVX512_CORE",
    "vnni": "AVX512_CORE_VNNI",
    "amx": "AVX512_CORE_AMX",
}


def found_pythons() -> tuple[dict[str, str], dict[str, str]]:
    """The Python of each engine, and the engines that have none, with what to do about it."""
    found, missing = {}, {}
    for name, kind in ENGINES.items():
        python, made_by = PYTHONS[kind.environment]
        if python.exists():
            found[name] = str(python)
        else:
            missing[kind.family] = f"it is not installed ({made_by} does that)"
    return found, missing


def variables(level: str | None) -> dict[str, str]:
    """Environment variables of all engines; level: a lesser CPU than the host's."""
    # Bytecode is kept, as pip keeps it for what it installs: a checkout is no slower to start than a package.
    chosen = {"SOTOL_PEERS": str(PEERS), "PYTHONDONTWRITEBYTECODE": ""}
    if level is not None:
        chosen |= {"SOTOL_CPU": level, "ONEDNN_MAX_CPU_ISA": ISA[level]}
    return chosen


def model_path(name: str) -> Path:
    """A path, `gemma3` of `make parity`, or a name that sotol knows. SotolError for what is no model."""
    path = PARITY / "models" / "gemma3.gguf" if name == "gemma3" else find_model(name)
    read_gguf(path)
    return path.resolve()


def chosen_rows(beginnings: Sequence[str]) -> list[str]:
    """The rows of these names, or that begin with them; all if there are none. ValueError for one that fits none."""
    wanted = set[str]()
    for beginning in beginnings:
        found = {beginning} & {*ROWS} or {row for row in ROWS if row.startswith(beginning)}
        if not found:
            raise ValueError(f"no row begins with {beginning!r}: there are {'; '.join(ROWS)}")
        wanted |= found
    return [row for row in ROWS if not beginnings or row in wanted]


def record(
    options: argparse.Namespace, results: Sequence[Result], versions: Mapping[str, str], left_out: Mapping[str, str]
) -> dict[str, Any]:
    """All that is known, as JSON has it."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": processor(),
        "cpus": os.cpu_count(),
        "levels": levels(),
        "level": options.level or host_target().level,
        "python": sys.version.split()[0],
        "command": shlex.join(["python", "-m", "bench.peers", *sys.argv[1:]]),
        "rounds": options.rounds,
        "load": os.getloadavg(),
        "versions": versions,
        "left_out": left_out,
        "rows": [asdict(result) for result in results],
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("models", nargs="*", help="paths or names (smollm2, and gemma3 where `make parity` put it)")
    parser.add_argument("--threads", type=int, action="append", help="may be repeated (the physical cores)")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--only", action="append", default=[], metavar="ROW", help="how rows begin; may be repeated")
    parser.add_argument("--level", choices=[x for x in levels() if x in ISA], help="a lesser CPU than this one")
    parser.add_argument("--patience", type=float, default=120, help="seconds that the run waits for quiet (120)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="(bench/results/DATE-CPU-LEVEL.json if all rows run)")
    options = parser.parse_args()
    if options.rounds < 1 or min(options.threads or [1]) < 1:
        parser.error("--rounds and --threads are at least 1")
    names = options.models or ["smollm2", *(["gemma3"] if (PARITY / "models" / "gemma3.gguf").exists() else [])]
    try:
        rows = chosen_rows(options.only)
        models = [model_path(name) for name in names]
    except (ValueError, SotolError, OSError) as error:
        parser.error(str(error))
    pythons, left_out = found_pythons()
    for name, why in left_out.items():
        say(f"{name} is left out: {why}")
    results, versions = list[Result](), dict[str, str]()
    patience, environment = Patience(options.patience), variables(options.level)
    target = options.json
    if target is None and not options.only:
        name = f"{slug(processor())}-{options.level or host_target().level}"
        target = RESULTS / f"{datetime.now(UTC).date().isoformat()}-{name}.json"
    kept: dict[str, Any] = {}
    for model in models:
        for i, threads in enumerate(options.threads or [default_threads()]):
            say(f"{model.name}, threads: {threads}")
            asked = rows if i == 0 else [row for row in rows if row != TOKENIZE]  # it has one thread
            job = Job(model, threads, options.rounds, asked, pythons, environment, patience, say)
            results += measure(job, versions, left_out)
            kept = record(options, results, versions, left_out)
            if target is not None:
                target.parent.mkdir(exist_ok=True)
                target.write_text(json.dumps(kept, indent=1) + "\n")
    if target is not None:
        say(f"all numbers are in {target}")
    print(markdown(kept))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
