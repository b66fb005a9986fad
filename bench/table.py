"""A record of `bench.peers` as Markdown: the table that the README shows.

python -m bench.table bench/results/DATE-CPU.json
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.engines import ENGINES

__all__ = ["better", "markdown", "ratio"]

OURS, READ = "sotol", "plain read"
Values = Mapping[str, Sequence[float]]
Row = Mapping[str, Any]  # a `measure.Result`


def best(row: Row, values: Sequence[float]) -> float:
    """The best round: whatever else runs on a machine only ever takes time away."""
    return max(values) if row["unit"] == "tokens/s" else min(values)


def better(row: Row, family: str) -> str | None:
    """The engine of a family in the setting that did best in this row; None if it took no part."""
    names = [name for name in row["engines"] if name == family or (name in ENGINES and ENGINES[name].family == family)]
    if not names:
        return None
    chosen: str = (max if row["unit"] == "tokens/s" else min)(names, key=lambda name: best(row, row["engines"][name]))
    return chosen


def ratio(row: Row, peer: str) -> float:
    """How many times better we are than a peer."""
    ours, theirs = best(row, row["engines"][OURS]), best(row, row["engines"][peer])
    return ours / theirs if row["unit"] == "tokens/s" else theirs / ours


def _peers(row: Row) -> list[str]:
    families = {ENGINES[name].family if name in ENGINES else name for name in row["engines"]} - {OURS, READ}
    return [name for family in sorted(families) if (name := better(row, family)) is not None]


def _number(row: Row, value: float) -> str:
    return f"{value:.2f}" if row["unit"] == "s" else f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _cell(row: Row, family: str) -> str:
    name = better(row, family)
    if name is None:
        return "-"
    values = row["engines"][name]
    setting = ENGINES[name].setting if name in ENGINES else ""
    return f"{_number(row, best(row, values))} ({_number(row, median(values))})" + (f" {setting}" if setting else "")


def _line(row: Row, families: Sequence[str]) -> str:
    unit = "" if row["unit"] == "tokens/s" else f", {row['unit']}"
    cells = [row["row"] + unit, *(_cell(row, family) for family in families)]
    peers = _peers(row)
    if OURS in row["engines"] and peers:
        nearest = min(peers, key=lambda name: ratio(row, name))
        cells.append(f"**{ratio(row, nearest):.2f}** {nearest}")
        llama = better(row, "llama.cpp")
        cells.append(f"{ratio(row, llama):.2f}" if llama else "-")
    else:
        cells += ["-", "-"]
    return "| " + " | ".join(cells) + " |"


def _remarks(rows: Sequence[Row]) -> list[str]:
    """What rows say beside their numbers."""
    lines = []
    decode = {row["row"]: row for row in rows if OURS in row["engines"]}
    for row in decode.values():
        if READ in row["engines"]:
            limit, ours = best(row, row["engines"][READ]), best(row, row["engines"][OURS])
            lines.append(
                f"A plain read of the weights by the same threads would allow {limit:.0f} tokens/s; {row['row']} has"
                f" {ours / limit:.0%} of that."
            )
        if row["row"].endswith(", beside a busy process"):
            shares = _shares(row, rows)
            if shares:
                lines.append(f"Of its own speed alone, each has beside a busy process: {shares}.")
        if "parts" in row["about"]:
            parts = ", ".join(f"{name} {size:.0f}" for name, size in row["about"]["parts"].get(OURS, {}).items())
            lines.append(
                f"Peak memory in MB: the weights file has {row['about']['weights file']:.0f}; sotol's: {parts}."
            )
        if row["about"].get("same ids") is False:
            lines.append("Sotol and `tokenizers` differ in some ids of the text.")
    return lines


def _shares(busy: Row, rows: Sequence[Row]) -> str:
    """Speed with company over speed alone, of each family's better setting."""
    alone = next((row for row in rows if row["row"] == "decode 64 after 8"), None)
    if alone is None:
        return ""
    shares = []
    for family in dict.fromkeys(kind.family for kind in ENGINES.values()):
        crowded, quiet = better(busy, family), better(alone, family)
        if crowded and quiet:
            share = best(busy, busy["engines"][crowded]) / best(alone, alone["engines"][quiet])
            shares.append(f"{family} {share:.0%}")
    return ", ".join(shares)


def markdown(record: Mapping[str, Any]) -> str:
    """All of a record."""
    measured = {name for row in record["rows"] for name in row["engines"]}
    families = [f for f in dict.fromkeys(kind.family for kind in ENGINES.values()) if f != READ]
    families = [f for f in families if any(name in measured and ENGINES[name].family == f for name in ENGINES)]
    busy = [cores for row in record["rows"] for cores in row["busy"]]
    lines = [
        f"{record['date']}, {record['processor']}, {record['cpus']} CPUs, level {record['level']}. Tokens per second"
        f" where no unit is given; best of {record['rounds']} rounds (median). Ratios say how many times better sotol"
        " is than the best peer of the row, and than llama.cpp.",
        "",
    ]
    for model, threads in dict.fromkeys((row["model"], row["threads"]) for row in record["rows"]):
        rows = [row for row in record["rows"] if (row["model"], row["threads"]) == (model, threads)]
        title = f"{model.removesuffix('.gguf')}, {threads} thread{'s' * (threads > 1)}"
        lines += [
            "| " + " | ".join([title, *families, "to the best peer", "to llama.cpp"]) + " |",
            "| " + " | ".join(["---"] * (len(families) + 3)) + " |",
            *(_line(row, families) for row in rows),
            "",
            *_remarks(rows),
            "",
        ]
    versions = {ENGINES[name].family: about for name, about in record["versions"].items() if name != READ}
    lines += [f"- {family}: {about}" for family, about in versions.items()]
    lines += [f"- left out: {what}: {why}" for what, why in record["left_out"].items()]
    if busy:
        lines.append(f"- others used {min(busy):.2f} to {max(busy):.2f} cores when rounds began")
    lines.append(f"- command: `{record['command']}`")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("record", type=Path)
    path = parser.parse_args().record
    try:
        print(markdown(json.loads(path.read_text())))
    except (OSError, ValueError, KeyError, TypeError) as error:
        parser.error(f"{path} is no record of bench.peers: {error!r:.200}")


if __name__ == "__main__":
    main()
