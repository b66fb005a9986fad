"""`sotol profile`: where the time of a step goes, by op and by layer."""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from sotol.catalog import find_model
from sotol.cli.loading import loaded_model
from sotol.cli.options import Json, Model, NoColor, Precision, PrecisionOption, PromptTokens, Quiet, Repeats, Threads
from sotol.cli.output import as_json, console, show, write_piece

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from sotol.backends.cpu.running.runner import CpuRunner, OpTime
    from sotol.program.step import Step

__all__ = ["Phase", "Share", "flame", "profile", "summarise"]

BAR = 24  # columns of the longest bar
FLAME = 100  # columns, at most
FLAME_STYLES = ("black on bright_yellow", "black on yellow", "black on dark_orange")
LAYER = re.compile(r"blk\.(\d+)\.")  # in the names of weights


class Share(NamedTuple):
    """What one kind of op, or one part of the network, takes of a step."""

    name: str
    calls: int
    seconds: float


class Phase(NamedTuple):
    """Where the time of one step went, the mean of several runs. `tree`: part of the network -> kernel -> seconds."""

    name: str
    tokens: int
    position: int  # tokens in the cache before
    seconds: float
    ops: tuple[Share, ...]  # longest first
    layers: tuple[Share, ...]  # in the order of the network
    tree: Mapping[str, Mapping[str, float]]


def profile(
    model: Model = None,
    prompt: PromptTokens = 512,
    repeats: Repeats = 5,
    threads: Threads = None,
    precision: PrecisionOption = Precision.INT8,
    json: Json = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
) -> None:
    """Show where the time goes.

    By op and by layer, in the last step of a prompt and in a token of the answer.
    """
    find_model(model)
    from sotol.cli.workload import decode_steps, prompt_steps, pseudo_random_ids  # noqa: PLC0415  (NumPy)

    with loaded_model(
        model, threads=threads, ctx=prompt + 1, precision=precision, quiet=quiet, color=not no_color
    ) as loaded:
        ids, runner = pseudo_random_ids(prompt + 1, loaded.vocabulary), cast("CpuRunner", loaded.runner)
        *before, last = prompt_steps(ids[:-1], runner)
        for step in (*before, last):
            runner.run(step)
        phases = [
            _measure("prefill", runner, last, repeats),
            _measure("decode", runner, decode_steps(ids[-1:], prompt, runner)[0], repeats),
        ]
        count = runner.threads
    if json:
        record = {
            "model": str(loaded.path),
            "threads": count,
            "repeats": repeats,
            "phases": [_record(p) for p in phases],
        }
        write_piece(as_json(record) + "\n", sys.stdout)
        return
    out = console(color=not no_color)
    for phase in phases:
        _show(phase, count, out)


def _record(phase: Phase) -> dict[str, Any]:
    """A phase for JSON."""
    return phase._asdict() | {name: [share._asdict() for share in getattr(phase, name)] for name in ("ops", "layers")}


def _measure(name: str, runner: "CpuRunner", step: "Step", repeats: int) -> Phase:
    runner.profile(step, perf_counter)  # warm
    runs = [runner.profile(step, perf_counter) for _ in range(repeats)]
    return summarise(name, step, runs)


def summarise(name: str, step: "Step", runs: "Sequence[Sequence[OpTime]]") -> Phase:
    """The mean of several profiles of the same step."""
    ops: dict[str, list[float]] = {}
    layers: dict[str, list[float]] = {}
    tree: dict[str, dict[str, float]] = {}
    parts = _parts(runs[0])
    for i, (first, part) in enumerate(zip(runs[0], parts, strict=True)):
        seconds = sum(run[i].seconds for run in runs) / len(runs)
        ops.setdefault(_kind(first), []).append(seconds)
        layers.setdefault(part, []).append(seconds)
        kernels = tree.setdefault("layers" if part.startswith("layer ") else part, {})
        kernels[first.kernel] = kernels.get(first.kernel, 0.0) + seconds
    by_time = sorted(_shares(ops), key=lambda share: -share.seconds)
    return Phase(
        name,
        len(step.tokens),
        int(step.positions[0]),
        sum(map(sum, layers.values())),
        tuple(by_time),
        tuple(_shares(layers)),
        tree,
    )


def _shares(groups: Mapping[str, list[float]]) -> Iterable[Share]:
    return (Share(name, len(times), sum(times)) for name, times in groups.items())


def _kind(op: "OpTime") -> str:
    """A name for ops that belong together: the kernel and, where it reads a matrix, which of a layer's it is."""
    from sotol.formats.weights import Weight  # noqa: PLC0415  (NumPy)

    for x in op.node.inputs:
        if isinstance(x, Weight) and len(x.shape) > 1:
            return f"{op.kernel} {LAYER.sub('', x.name).removesuffix('.weight')} {x.encoding.name}"
    return op.kernel


def _parts(run: "Sequence[OpTime]") -> list[str]:
    """The part of the network that each op belongs to: "embedding", "layer 0", …, "head"."""
    parts, outside = [], "embedding"
    for op in run:
        if op.node.layer is not None:
            outside = "head"
        parts.append(outside if op.node.layer is None else f"layer {op.node.layer}")
    return parts


def _show(phase: Phase, threads: int, out: "Console") -> None:
    """A phase's flame and tables."""
    from rich.table import Table  # noqa: PLC0415  (see output.py)

    tokens = f"{phase.tokens} token{'s' if phase.tokens > 1 else ''} after {phase.position}"
    show(out, f"{phase.name} of {tokens}, {threads} threads: {phase.seconds * 1e3:.2f} ms\n", style="bold")
    width = min(FLAME, out.width)
    for line in flame(phase, width):
        show(out, line)
    for head, shares in (("op", phase.ops), ("part", phase.layers)):
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
        table.add_column(head, style="cyan")
        for name in ("calls", "ms", "%"):
            table.add_column(name, justify="right")
        table.add_column("", style="yellow")
        most = max(share.seconds for share in shares)
        for share in shares:
            bar = "█" * round(BAR * share.seconds / most)
            percent = 100 * share.seconds / phase.seconds
            table.add_row(share.name, str(share.calls), f"{share.seconds * 1e3:.3f}", f"{percent:.1f}", bar)
        show(out, "")
        show(out, table)
    show(out, "")


def flame(phase: Phase, width: int) -> "list[Text]":
    """Three rows of cells as wide as their share of the time: the step, the parts of the network, their kernels."""
    rows: list[list[tuple[str, float]]] = [[(f"{phase.name} {phase.seconds * 1e3:.2f} ms", phase.seconds)], [], []]
    for part, kernels in phase.tree.items():
        rows[1].append((part, sum(kernels.values())))
        rows[2] += sorted(kernels.items(), key=lambda pair: -pair[1])
    return [_cells(row, phase.seconds, width) for row in rows]


def _cells(row: Sequence[tuple[str, float]], whole: float, width: int) -> "Text":
    from rich.text import Text  # noqa: PLC0415  (see output.py)

    line, end = Text(no_wrap=True), 0.0
    for i, (label, seconds) in enumerate(row):
        begin, end = end, end + seconds
        columns = round(end / whole * width) - round(begin / whole * width)
        line.append(f"│{label}"[:columns].ljust(columns), FLAME_STYLES[i % len(FLAME_STYLES)])
    return line
