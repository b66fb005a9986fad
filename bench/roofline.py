"""How near each op of a model is to what this machine allows, and where a step loses most.

    python -m bench.roofline [MODEL] [--prompt 512] [--threads N] [--precision int8|f32] [--rounds 5] [--json FILE]

The limit of an op is the longer of two times: its bytes from memory at the speed of a plain streaming read, and its
operations at the speed of arithmetic in registers, by as many threads. Limits, prefill and decode are measured in turn,
round after round, since machines drift, when the machine is quiet; of everything the best counts. How to read the
output: docs/performance.md.
"""

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter

from bench.costs import Cost, Setting, cost_of
from bench.engines.plain_read import token_bytes
from bench.limits import F32, INT8, READS, Arithmetic, Reading
from bench.machine import Patience, processor
from rich.console import Console
from rich.table import Table

from sotol.backends.cpu import CpuRunner, OpTime
from sotol.backends.cpu.running.threads import default_threads
from sotol.backends.cpu.target import host_target
from sotol.catalog import DEFAULT_MODEL, find_model
from sotol.cli.output import as_json, console, show
from sotol.cli.workload import decode_steps, prompt_steps, pseudo_random_ids
from sotol.formats.weights import Weight
from sotol.load_options import PRECISIONS
from sotol.loading import Loaded, LoadOptions, load
from sotol.program.program import Node
from sotol.program.step import Step

__all__ = ["Line", "Phase", "Rates", "label", "lines_of", "measure", "used"]

LAYER = re.compile(r"blk\.\d+\.")
ROUND_SECONDS = 0.5  # of a phase, at least, in each round
LOOKS = 4  # at the machine's limits, in each round


@dataclass(frozen=True, slots=True)
class Rates:
    """What the machine allows with the threads of the run: bytes and operations per second."""

    memory: float
    int8: float
    f32: float

    def times(self, cost: Cost) -> Mapping[str, float]:
        """Seconds that a cost takes at least, by what limits it."""
        return {"memory": cost.memory / self.memory, "int8": cost.int8 / self.int8, "f32": cost.f32 / self.f32}


@dataclass(slots=True)
class Line:
    """One kind of op in a step: `calls` of it, what they cost together, their time and their limit in seconds."""

    name: str
    calls: int = 0
    cost: Cost = field(default_factory=Cost)
    seconds: float = 0.0
    limit: float = 0.0
    bound: str = ""  # what limits it

    @property
    def lost(self) -> float:
        return self.seconds - self.limit


class Phase:
    """Steps that are run again and again, and what their ops took in each run."""

    def __init__(self, name: str, steps: Sequence[Step]) -> None:
        self.name, self.steps = name, steps
        self.runs: list[list[list[OpTime]]] = []  # run, step, op

    @property
    def tokens(self) -> int:
        return sum(len(step.tokens) for step in self.steps)

    @property
    def start(self) -> int:
        """Tokens in the cache before."""
        return int(self.steps[0].positions[0])

    def run(self, runner: CpuRunner, seconds: float) -> None:
        """Run the steps once, and again until so many seconds have passed."""
        end = perf_counter() + seconds
        while True:
            self.runs.append([runner.profile(step, perf_counter) for step in self.steps])
            if perf_counter() > end:
                return

    def ops(self) -> Iterator[tuple[Step, Node, float]]:
        """Each op of each step, and its mean time in the fastest tenth of the runs; an op may be several kernels.

        Not the fastest runs of each op: the clock is the caller's, so when the system puts the caller aside, ops that
        its helpers run meanwhile seem to take no time.
        """
        by_time = sorted(self.runs, key=lambda run: sum(op.seconds for ops in run for op in ops))
        best = by_time[: max(1, len(by_time) // 10)]
        for i, step in enumerate(self.steps):
            found: dict[int, tuple[Node, float]] = {}
            for calls in zip(*(run[i] for run in best), strict=True):
                node, seconds = calls[0].node, sum(call.seconds for call in calls) / len(best)
                found[id(node)] = node, seconds + found.get(id(node), (node, 0.0))[1]
            for node, seconds in found.values():
                yield step, node, seconds


def label(node: Node) -> str:
    """The op and, where it reads matrices, which of a layer's and how they are encoded."""
    matrices = [x for x in node.inputs if isinstance(x, Weight) and len(x.shape) == 2]
    names = "+".join(LAYER.sub("", x.name).removesuffix(".weight") for x in matrices)
    return " ".join([node.op.name, *([names] if names else []), *dict.fromkeys(x.encoding.name for x in matrices)])


def lines_of(phase: Phase, rates: Rates, *, int8: bool) -> list[Line]:
    """The kinds of op of a phase, the one that loses most first."""
    lines: dict[str, Line] = {}
    for step, node, seconds in phase.ops():
        cost = cost_of(node, Setting(step, int8))
        line = lines.setdefault(name := label(node), Line(name))
        line.calls += 1
        line.cost += cost
        line.seconds += seconds
        line.limit += max(rates.times(cost).values())
    for line in lines.values():
        times = rates.times(line.cost)
        line.bound = max(times, key=lambda name: times[name])
    return sorted(lines.values(), key=lambda line: -line.lost)


@dataclass(frozen=True, slots=True)
class Measured:
    """rates: name -> threads -> the best of the rounds; busy: cores in use by others before each round."""

    rates: Mapping[str, Mapping[int, float]]
    phases: Sequence[Phase]
    busy: Sequence[float]


def measure(loaded: Loaded, prompt: int, rounds: int, patience: float) -> Measured:
    """The machine's limits, a prompt and a token after it, in turn."""
    runner = loaded.runner
    assert isinstance(runner, CpuRunner)
    threads, ids = runner.threads, pseudo_random_ids(prompt + 1, loaded.vocabulary)
    prefill = Phase("prefill", prompt_steps(ids[:-1], runner))
    decode = Phase("decode", decode_steps(ids[-1:], prompt, runner))
    for step in prefill.steps:
        runner.run(step)  # touches memory for the first time
    decode.run(runner, 0)
    reading = Reading(token_bytes(loaded.path))
    arithmetic = Arithmetic()
    rates: dict[str, dict[int, float]] = {}
    quiet, busy = Patience(patience), []
    for _ in range(rounds):
        busy.append(quiet.wait())
        for count in sorted({1, threads}) * LOOKS:
            for name, rate in (reading.rates(count) | arithmetic.rates(count)).items():
                known = rates.setdefault(name, {})
                known[count] = max(rate, known.get(count, 0.0))
        for phase in (prefill, decode):
            phase.run(runner, ROUND_SECONDS)
    return Measured(rates, (prefill, decode), busy)


def used(rates: Mapping[str, Mapping[int, float]], threads: int) -> Rates:
    """The rates that limit ops, of reads the best."""
    return Rates(max(rates[name][threads] for name in READS), rates[INT8][threads], rates[F32][threads])


def _table(head: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column(head, style="cyan")
    for name in columns:
        table.add_column(name, justify="right")
    return table


def show_rates(rates: Mapping[str, Mapping[int, float]], out: Console) -> None:
    """What the machine allows."""
    counts = sorted(next(iter(rates.values())))
    table = _table("at most", *(f"{count} thread{'s' if count > 1 else ''}" for count in counts))
    for name, known in rates.items():
        unit = "GB/s" if name in READS else "G/s"
        table.add_row(name, *(f"{known[count] / 1e9:.1f} {unit}" for count in counts))
    show(out, table)


def show_phase(phase: Phase, lines: Sequence[Line], rates: Rates, out: Console) -> None:
    """The ops of a phase and what they add up to."""
    total = Line("all")
    for line in lines:
        total.calls, total.cost = total.calls + line.calls, total.cost + line.cost
        total.seconds, total.limit = total.seconds + line.seconds, total.limit + line.limit
    tokens, seconds, memory = phase.tokens, total.seconds, total.cost.memory
    out.print(f"{phase.name} of {tokens} after {phase.start}: {1e3 * seconds:.2f} ms, {tokens / seconds:.1f} tokens/s")
    _compare("at the limit of every op", tokens, seconds, total.limit, out)
    if memory / rates.memory > total.limit / 2:
        _compare(
            f"a plain streaming read of the same {memory / 1e6:.1f} MB", tokens, seconds, memory / rates.memory, out
        )
    table = _table("op", "calls", "ms", "limit", "lost", "% of limit", "by", "MB", "cached MB", "M ops", "GB/s", "G/s")
    for line in (*lines, total):
        cost, operations = line.cost, line.cost.int8 + line.cost.f32
        times = (f"{1e3 * x:.3f}" for x in (line.seconds, line.limit, line.lost))
        sizes = (f"{x / 1e6:.2f}" for x in (cost.memory, cost.cached, operations))
        speeds = (f"{x / line.seconds / 1e9:.1f}" for x in (cost.memory + cost.cached, operations))
        share = f"{100 * line.limit / line.seconds:.0f}"
        table.add_row(line.name, str(line.calls), *times, share, line.bound, *sizes, *speeds)
    out.print()
    show(out, table)


def _compare(what: str, tokens: int, seconds: float, limit: float, out: Console) -> None:
    speed = f"{1e3 * limit:.2f} ms, {tokens / limit:.1f} tokens/s"
    out.print(f"{what} would allow {speed}; we reach {100 * limit / seconds:.0f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL, help="a path, or a name that sotol knows")
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the prompt (512)")
    parser.add_argument("--threads", type=int, default=default_threads(), help="(the physical cores)")
    parser.add_argument("--precision", choices=PRECISIONS, default=PRECISIONS[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured in turn (5)")
    parser.add_argument("--patience", type=float, default=60, help="seconds to wait for a quiet machine, in all (60)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers, in bytes, operations and seconds")
    options = parser.parse_args()
    model, threads, precision = find_model(options.model), options.threads, options.precision
    with load(model, LoadOptions(threads=threads, ctx=options.prompt + 1, precision=precision)) as loaded:
        found = measure(loaded, options.prompt, options.rounds, options.patience)
    limits = used(found.rates, threads)
    lines = {phase.name: lines_of(phase, limits, int8=precision == "int8") for phase in found.phases}
    out = console()
    out.print(f"{processor()}, level {host_target().level}")
    busy = f"others used {min(found.busy):.2f} to {max(found.busy):.2f} cores"
    out.print(f"{model.name}, {threads} threads, {precision}; {busy}\n", style="bold")
    show_rates(found.rates, out)
    for phase in found.phases:
        out.print()
        show_phase(phase, lines[phase.name], limits, out)
    if options.json:
        record = {
            "processor": processor(),
            "level": host_target().level,
            "model": str(model),
            "threads": threads,
            "precision": precision,
            "busy": found.busy,
            "rates": found.rates,
            "limits": asdict(limits),
            "phases": [
                {
                    "name": x.name,
                    "tokens": x.tokens,
                    "position": x.start,
                    "ops": [asdict(y) for y in lines[x.name]],
                }
                for x in found.phases
            ],
        }
        options.json.write_text(as_json(record) + "\n")


if __name__ == "__main__":
    main()
