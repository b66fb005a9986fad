# ruff: noqa: A005  (the standard library's `encodings` is loaded before any folder of ours is looked into)
"""How fast products with each encoding are: one token against a plain read of the same memory, and many tokens.

    python -m bench.encodings [ENCODING ...] [--width 4096] [--megabytes 256] [--threads N] [--rounds 10] [--peers]
        [--json FILE]

FP8 and NF4 are SafeTensors' floats of eight and four bits, which files of GGUF lack.

A program is a chain of square matrices in one encoding, more than caches hold. Everything is measured in turn, round
after round, since machines drift; the best of each counts. Run it on a quiet machine.

With --peers a model of Llama's shape in each encoding (`synthetic.py`) goes through sotol, llama.cpp and ik_llama.cpp
in turns, as in `peers.py`: how many times faster sotol is.
"""

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple

import numpy as np
from bench.engines import ENGINES
from bench.limits import READS, Reading
from bench.machine import Patience, busy_cores, processor
from bench.measure import Job, Result
from bench.measure import measure as measure_beside
from bench.peers import found_pythons, variables
from bench.synthetic import write_model
from bench.table import better, ratio
from rich.table import Table

from sotol.backends.cpu import CpuRunner
from sotol.backends.cpu.panels import packed_shape
from sotol.backends.cpu.running.threads import default_threads
from sotol.backends.cpu.target import host_target
from sotol.cli.output import as_json, console, show
from sotol.cli.streams import say
from sotol.formats.weights import Weight
from sotol.program import ops
from sotol.program.fuse import quantize_inputs
from sotol.program.program import Program, StepInput
from sotol.program.step import Limits, Step
from sotol.quant import ENCODINGS, Encoding, Layout, UInt8Array, encoding_named

__all__ = ["Speed", "chain", "measure"]

TOKENS = 128  # of a step that is limited by arithmetic
ENVIRONMENTS = "sotol", "llama", "ik"  # of the engines beside which it is measured
PEERS = "llama.cpp", "ik_llama.cpp"
DECODE, PREFILL = ROWS_BESIDE = "decode 64 after 8", "prefill 512"
SCHEMES = {
    "FP8": Layout(8, 128, numbers="e4m3", factor="f32"),
    "NF4": Layout(4, 64, numbers="nf4", factor="f32"),
}
ENCODED = [name for name, encoding in ENCODINGS.items() if encoding.encode]
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
    known, rng = known_encoding(encoding), np.random.default_rng(0)
    rows = _random_rows(encoding, width, rng)
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


def known_encoding(name: str) -> Encoding:
    """Of an encoding or a scheme by name."""
    return encoding_named(SCHEMES[name].key()) if name in SCHEMES else ENCODINGS[name]


def _random_rows(name: str, width: int, rng: np.random.Generator) -> UInt8Array:
    """ROWS rows of a matrix. Schemes, which have no encoder here: of codes and factors that are finite."""
    known = known_encoding(name)
    if name in SCHEMES:
        return rng.integers(0, 64, (ROWS, width // known.values * known.size), dtype=np.uint8)
    if known.encode is None:
        raise ValueError(f"{name} has no encoder")
    return known.encode((rng.standard_normal((ROWS, width)) / math.sqrt(width)).astype(np.float32))


def step_of(tokens: int) -> Step:
    """A step of so many tokens of one sequence."""
    numbers = np.arange(tokens, dtype=np.int32)
    return Step(numbers, numbers, np.array([0, tokens], np.int32), (), numbers)


def measure(encodings: Sequence[str], width: int, least: int, threads: int, rounds: int) -> Iterator[Speed]:
    """The speed of each encoding in turn, with so many bytes of weights at least."""
    for name in encodings:
        ((panels, panel_bytes),) = (packed_shape(weight) for weight in chain(name, width, 1)[1])
        matrices = -(-least // (panels * panel_bytes))
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
        encoding = known_encoding(name)
        yield Speed(
            name,
            8 * encoding.size / encoding.values,
            8 * size / count,
            count / seconds[1],
            TOKENS * count / seconds[TOKENS],
            read,
        )


def beside(encodings: Sequence[str], threads: int, rounds: int) -> Iterator[tuple[str, Sequence[Result]]]:
    """Each encoding, and what every engine that can load a model in it takes for ROWS_BESIDE."""
    pythons, left_out = found_pythons()
    engines = {name: python for name, python in pythons.items() if ENGINES[name].environment in ENVIRONMENTS}
    with TemporaryDirectory() as folder:
        for name in encodings:
            path = Path(folder) / f"{name}.gguf"
            write_model(path, "llama", name)
            job = Job(path, threads, rounds, ROWS_BESIDE, engines, variables(None), Patience(60), say)
            yield name, measure_beside(job, {}, left_out)
            path.unlink()


def _ratios(results: Sequence[Result]) -> Mapping[str, str]:
    """Peer and row -> how many times faster sotol is; "-" where the peer can't load the encoding."""
    found = {}
    for row in map(asdict, results):
        for family in PEERS:
            peer = better(row, family)
            found[f"{family} {row['row']}"] = f"{ratio(row, peer):.2f}" if peer else "-"
    return found


def _show_beside(encodings: Sequence[str], threads: int, rounds: int) -> Mapping[str, object]:
    """The table of `beside`; returns its numbers."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("encoding", style="cyan")
    columns = [f"{family} {row}" for row in ROWS_BESIDE for family in PEERS]
    for title in (*ROWS_BESIDE, *(f"x {column}" for column in columns)):
        table.add_column(title, justify="right")
    numbers = {}
    for name, results in beside(encodings, threads, rounds):
        ours = {result.row: max(result.engines["sotol"]) for result in results}
        ratios = _ratios(results)
        table.add_row(name, *(f"{ours[row]:.0f}" for row in ROWS_BESIDE), *(ratios[column] for column in columns))
        numbers[name] = [asdict(result) for result in results]
    show(console(), table)
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("encodings", nargs="*", metavar="ENCODING", help=f"of {', '.join([*ENCODED, *SCHEMES])} (all)")
    parser.add_argument("--width", type=int, default=4096, help="rows and columns of a matrix (4096)")
    parser.add_argument("--megabytes", type=int, default=256, help="of matrices in the chain, at least (256)")
    parser.add_argument("--threads", type=int, default=default_threads(), help="(the physical cores)")
    parser.add_argument("--rounds", type=int, default=10, help="how often everything is measured (10)")
    parser.add_argument("--peers", action="store_true", help="measure models beside llama.cpp and ik_llama.cpp instead")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    options = parser.parse_args()
    able = ENCODED if options.peers else [*ENCODED, *SCHEMES]
    if wrong := set(options.encodings).difference(able):
        parser.error(f"no such encoding to measure: {', '.join(sorted(wrong))}")
    busy = [busy_cores()]
    names, out = options.encodings or able, console()
    title = f"{processor()}, level {host_target().level}, {options.threads} threads"
    if options.peers:
        out.print(title)
        found = _show_beside(names, options.threads, options.rounds)
        if options.json:
            options.json.write_text(as_json({"processor": processor(), "encodings": found}) + "\n")
        return
    speeds = list(measure(names, options.width, options.megabytes << 20, options.threads, options.rounds))
    busy.append(busy_cores())
    out.print(title)
    out.print(
        f"{options.megabytes} MB of matrices of {options.width}; others used {busy[0]:.2f}, then {busy[1]:.2f} cores\n"
    )
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
