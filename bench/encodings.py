# ruff: noqa: A005  (the standard library's `encodings` is loaded before any folder of ours is looked into)
"""How fast products with each encoding are: one token against a plain read of the same memory, and many tokens.

    python -m bench.encodings [ENCODING ...] [--width 4096] [--matrices 8] [--threads N] [--rounds 10] [--json FILE]

A program is a chain of square matrices in one encoding, more than caches hold. Everything is measured in turn, round
after round, since machines drift; the best of each counts. Run it on a quiet machine.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
from bench.limits import READS, Reading
from bench.machine import busy_cores, processor
from rich.table import Table

from sotol.backends.cpu import CpuRunner
from sotol.backends.cpu.panels import packed_shape
from sotol.backends.cpu.running.threads import default_threads
from sotol.backends.cpu.target import host_target
from sotol.cli.output import as_json, console, show
from sotol.formats.weights import Weight
from sotol.program import ops
from sotol.program.fuse import quantize_inputs
from sotol.program.program import Program, StepInput
from sotol.program.step import Limits, Step
from sotol.quant import ENCODINGS

__all__ = ["Speed", "chain", "measure"]

TOKENS = 128  # of a step that is limited by arithmetic
ROWS = 64  # that are encoded; a matrix has them in random order


class Speed(NamedTuple):
    """What was measured of an encoding. Rates are of weights per second: of one token, and of each of many."""

    encoding: str
    file_bits: float  # a weight
    memory_bits: float
    decode: float
    prefill: float
    read: float  # bytes per second of a plain read of as much memory

    @property
    def share(self) -> float:
        """How much of the plain read's speed one token's products have."""
        return self.decode * self.memory_bits / 8 / self.read


def chain(encoding: str, width: int, matrices: int) -> tuple[Program, Sequence[Weight]]:
    """x W0' W1' ... for rows x of a table, and the matrices [width, width]."""
    known, rng = ENCODINGS[encoding], np.random.default_rng(0)
    if known.encode is None:
        raise ValueError(f"{encoding} has no encoder")
    rows = known.encode((rng.standard_normal((ROWS, width)) / math.sqrt(width)).astype(np.float32))
    table = rng.standard_normal((TOKENS, width)).astype(np.float32)
    program = Program()
    x = ops.embed(Weight.from_values("table", table, "F32"), StepInput(program, "tokens", ("T",)))
    weights = []
    for i in range(matrices):
        data = rows[rng.integers(0, ROWS, width)].reshape(-1)
        weights.append(Weight.from_bytes(f"matrix {i}", known, (width, width), data))
        x = ops.linear(x, weights[-1])
    program.results["result"] = x
    return quantize_inputs(program), weights


def step_of(tokens: int) -> Step:
    """A step of so many tokens of one sequence."""
    numbers = np.arange(tokens, dtype=np.int32)
    return Step(numbers, numbers, np.array([0, tokens], np.int32), (), numbers)


def measure(encodings: Sequence[str], width: int, matrices: int, threads: int, rounds: int) -> Iterator[Speed]:
    """The speed of each encoding in turn."""
    for name in encodings:
        program, weights = chain(name, width, matrices)
        size = sum(math.prod(packed_shape(weight)) for weight in weights)
        count, reading = matrices * width * width, Reading(size)
        seconds = {1: math.inf, TOKENS: math.inf}
        read = 0.0
        with closing(CpuRunner(program, Limits(TOKENS, 1, TOKENS, TOKENS, ()), threads=threads)) as runner:
            for _ in range(rounds):
                rates = reading.rates(threads)
                read = max(read, *(rates[way] for way in READS))
                for tokens in seconds:
                    step = step_of(tokens)
                    runner.run(step)
                    begin = perf_counter()
                    runner.run(step)
                    seconds[tokens] = min(seconds[tokens], perf_counter() - begin)
        encoding = ENCODINGS[name]
        yield Speed(
            name,
            8 * encoding.size / encoding.values,
            8 * size / count,
            count / seconds[1],
            TOKENS * count / seconds[TOKENS],
            read,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    able = [name for name, encoding in ENCODINGS.items() if encoding.integer and encoding.encode]
    parser.add_argument("encodings", nargs="*", metavar="ENCODING", help=f"of {', '.join(able)} (all)")
    parser.add_argument("--width", type=int, default=4096, help="rows and columns of a matrix (4096)")
    parser.add_argument("--matrices", type=int, default=8, help="in the chain (8)")
    parser.add_argument("--threads", type=int, default=default_threads(), help="(the physical cores)")
    parser.add_argument("--rounds", type=int, default=10, help="how often everything is measured (10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    options = parser.parse_args()
    if wrong := set(options.encodings) - {*able}:
        parser.error(f"no such encoding to measure: {', '.join(sorted(wrong))}")
    busy = [busy_cores()]
    names = options.encodings or able
    speeds = list(measure(names, options.width, options.matrices, options.threads, options.rounds))
    busy.append(busy_cores())
    out = console()
    out.print(f"{processor()}, level {host_target().level}, {options.threads} threads")
    out.print(f"{options.matrices} matrices of {options.width}; others used {busy[0]:.2f}, then {busy[1]:.2f} cores\n")
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("encoding", style="cyan")
    for title in ("bits in files", "in memory", "decode G/s", "GB/s", "% of a plain read", "prefill G/s"):
        table.add_column(title, justify="right")
    for speed in speeds:
        numbers = (speed.file_bits, speed.memory_bits, speed.decode / 1e9, speed.decode * speed.memory_bits / 8e9)
        cells = [*(f"{x:.2f}" for x in numbers), f"{100 * speed.share:.0f}", f"{speed.prefill / 1e9:.0f}"]
        table.add_row(speed.encoding, *cells)
    show(out, table)
    if options.json:
        record = {"processor": processor(), "level": host_target().level, "threads": options.threads, "busy": busy}
        options.json.write_text(as_json(record | {"speeds": [speed._asdict() for speed in speeds]}) + "\n")


if __name__ == "__main__":
    main()
