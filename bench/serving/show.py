"""Records of `bench.serving` as tables."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from sotol.cli.output import show

__all__ = ["show_record"]

Figures = Mapping[str, Any]  # of an engine, as a scenario gives them


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{1e3 * value:.1f} ms"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


# For each scenario its columns: what they say, and the text of an engine's figures.
COLUMNS: dict[str, Sequence[tuple[str, Callable[[Figures], str]]]] = {
    "load": (
        ("tokens/s", lambda x: _number(x["throughput"])),
        ("first p50", lambda x: _seconds(x["first"]["p50"])),
        ("p90", lambda x: _seconds(x["first"]["p90"])),
        ("p99", lambda x: _seconds(x["first"]["p99"])),
        ("between p50", lambda x: _milliseconds(x["between"]["p50"])),
        ("p99", lambda x: _milliseconds(x["between"]["p99"])),
        ("failures", lambda x: str(x["failures"])),
    ),
    "prefix": (
        ("first prompt", lambda x: _milliseconds(x["first"])),
        ("second", lambda x: _milliseconds(x["second"])),
        ("first / second", lambda x: _number(x["ratio"])),
    ),
    "long": (
        ("between p50", lambda x: _milliseconds(x["quiet"]["p50"])),
        ("p99", lambda x: _milliseconds(x["quiet"]["p99"])),
        ("beside prompts p50", lambda x: _milliseconds(x["crowded"]["p50"])),
        ("p99", lambda x: _milliseconds(x["crowded"]["p99"])),
        ("p99 beside / p50 without", lambda x: _number(x["ratio"])),
        ("a prompt takes", lambda x: _seconds(x["prompt"])),
    ),
}


def show_record(record: Mapping[str, Any], out: Console) -> None:
    """All of a record but single answers."""
    out.print(f"{record['processor']}, level {record['level']}, {record['date']}")
    out.print(f"{record['model']}, {record['threads']} threads: {record['about']}\n", style="bold")
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("", style="cyan")
    columns = COLUMNS[record["scenario"]]
    for name, _ in columns:
        table.add_column(name, justify="right")
    for engine, figures in record["engines"].items():
        table.add_row(engine, *(text(figures) for _, text in columns))
    show(out, table)
    out.print()
    if record.get("alone"):
        _show_share(record["alone"], out)
    for engine, figures in record["engines"].items():
        out.print(
            f"- {engine}: {figures['about']}; others used {figures['busy']:.2f} cores when it began,"
            f" and {figures['load'][0]:.1f} threads wanted to run when it ended"
        )
        for error in figures["errors"]:
            out.print(f"- {engine}: {error}")
    for engine, why in record["left_out"].items():
        out.print(f"- left out: {engine}: {why}")
    out.print(f"- command: {record['command']}")


def _show_share(alone: Mapping[str, Any], out: Console) -> None:
    """What sotol's own speeds would allow."""
    batches = ", ".join(f"{count} sequences {speed:.0f}" for count, speed in alone["decode"].items())
    out.print(f"sotol alone, tokens/s: prefill {alone['prefill']:.0f}; decode of {batches}")
    if alone["share"] is not None:
        out.print(f"these would allow {alone['ideal']:.1f} s; sotol reaches {alone['share']:.0%} of that\n")
