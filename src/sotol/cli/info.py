"""`sotol info`: what is in a model file, also where sotol can't run it."""

import re
import sys
from collections.abc import Sequence
from typing import Any

from sotol.catalog import find_model
from sotol.cli.options import Context, Json, Model, NoColor
from sotol.cli.output import as_json, cell, console, show, size_of, write_piece

__all__ = ["info"]

SHOWN_CHARACTERS = 160  # of a long text, in the table
KEY_WIDTH = 50  # columns at most that no key is broken within
TABLE = "(?<=_t)[0-9a-f]{32}"  # of a kernel's parameters: which table of values it has
SIZES = {
    "block_count": "layers",
    "embedding_length": "width",
    "feed_forward_length": "feed-forward",
    "attention.head_count": "heads",
    "attention.head_count_kv": "kv heads",
    "expert_count": "experts",
    "expert_used_count": "of which a token takes",
    "expert_feed_forward_length": "expert width",
}


def info(model: Model = None, ctx: Context = None, json: Json = False, no_color: NoColor = False) -> None:
    """Describe a model file.

    Its sizes, encodings, tokenizer and metadata, what it takes in memory, and whether sotol can run it, part by part.
    """
    from sotol.tools.describing import describe, read_any  # noqa: PLC0415  (NumPy: `sotol --help` does without)

    checkpoint, unknown = read_any(find_model(model))
    facts = describe(checkpoint, unknown, ctx)
    if json:
        write_piece(as_json(facts) + "\n", sys.stdout)
    else:
        _show(facts, color=not no_color)


def _show(facts: dict[str, Any], *, color: bool) -> None:
    """The facts as tables."""
    from rich.table import Table  # noqa: PLC0415  (see output.py)
    from rich.text import Text  # noqa: PLC0415

    out = console(color=color)

    def table(title: str, rows: Sequence[tuple[object, ...]], head: tuple[str, ...] = ()) -> None:
        grid = Table(box=None, show_header=bool(head), pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
        keys = min(KEY_WIDTH, max(len(cell(row[0])) for row in rows))
        for i, name in enumerate(head or [""] * len(rows[0])):
            grid.add_column(
                name, justify="right" if head and i else "left", overflow="fold", style="" if i else "cyan",
                min_width=None if i else keys,
            )  # fmt: skip
        for row in rows:
            grid.add_row(*(Text(cell(value)) for value in row))
        if title:
            show(out, Text(f"\n{title}", style="bold"))
        show(out, grid)

    tokenizer = facts["tokenizer"]
    kind = ", ".join(str(tokenizer[key]) for key in ("model", "pretokenizer") if tokenizer[key])
    sizes = ", ".join(f"{name} {facts['sizes'][key]}" for key, name in SIZES.items() if key in facts["sizes"])
    table("", [
        ("file", facts["file"] + (f" ({facts['parts']} parts)" if facts["parts"] > 1 else "")),
        ("size", size_of(facts["bytes"])),
        *((key, facts[key]) for key in ("name", "architecture") if facts[key] is not None),
        ("parameters", f"{facts['parameters']:,}"),
        *([("bits each", f"{facts['bits']:.2f}")] if facts["bits"] else []),
        *([("sizes", sizes)] if sizes else []),
        *([("context", facts["context"])] if facts["context"] is not None else []),
        ("tokenizer", f"{kind}, {tokenizer['vocabulary']:,} tokens" if kind else "none"),
        *((name, f"{token['id']} {token['text']}") for name, token in tokenizer["special"].items()),
        ("chat template", facts["chat_template"]),
        *([("answers", _answers(facts["answers"]))] if facts["answers"] else []),
        *([("memory", _memory(facts["memory"]))] if facts["memory"] else []),
        *(("skipped", part) for part in facts["skipped"]),
        ("runs in sotol", _runs(facts)),
        *(
            (f"- {part}", "yes" if found["runs"] else "no: " + "; ".join(found["missing"]))
            for part, found in ({} if facts["runs"] else facts["can_run"]).items()
        ),
    ])  # fmt: skip
    if facts["encodings"]:
        rows = [
            (
                e["encoding"],
                e["weights"],
                f"{e['parameters']:,}",
                size_of(e["bytes"]),
                f"{e['bits']:.2f}",
                f"{e['share']:.1%}",
                re.sub(TABLE, "", (e["kernel"] or "none").removeprefix("linear ")),
            )
            for e in facts["encodings"]
        ]
        kernels = f"kernel ({facts['level'] or 'no level of this CPU'})"
        table("weights", rows, ("encoding", "weights", "parameters", "size", "bits each", "share", kernels))
    table("metadata", [(key, _cell(value)) for key, value in facts["metadata"].items()] or [("none", "")])


def _runs(facts: dict[str, Any]) -> str:
    """Whether it runs; why not, where no line for each part follows that says so."""
    if facts["runs"]:
        return "yes"
    return "no" if facts["can_run"] else "no: " + "; ".join(facts["problems"])


def _answers(found: dict[str, Any]) -> str:
    """How the model writes calls and thoughts."""
    thinking = ", ".join(found["thinking"])
    calls = "plain text" if found["format"] == "text" else f"calls as {found['format']}"
    return f"{calls}, thoughts after {thinking}" if thinking else calls


def _memory(found: dict[str, Any]) -> str:
    """What a context takes."""
    weights, cache = size_of(found["weights"]), size_of(found["cache"])
    return f"{size_of(found['total'])} at a context of {found['context']:,} tokens: weights {weights}, cache {cache}"


def _cell(value: object) -> str:
    """A metadata value on a line or two."""
    if isinstance(value, dict) and value.keys() == {"type", "length", "first"} and isinstance(value["first"], list):
        return f"{value['length']:,} x {value['type'].removesuffix('[]')}: {_cell(value['first'])[1:-1]}, …"
    text = repr(value) if isinstance(value, list | dict) else str(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}… ({len(text):,} characters)"
