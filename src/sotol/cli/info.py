"""`sotol info`: what is in a model file, also where sotol can't run it."""

import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sotol.catalog import find_model
from sotol.cli.options import Json, Model, NoColor
from sotol.cli.output import as_json, cell, console, show, size_of, write_piece
from sotol.errors import SotolError

if TYPE_CHECKING:
    from sotol.formats.weights import Checkpoint
    from sotol.models.metadata import Metadata
    from sotol.tokenizers import Tokenizer

__all__ = ["describe", "info"]

SHOWN_ITEMS = 4  # of a long array
SHOWN_CHARACTERS = 160  # of a long text, in the table
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
TOKEN_NAMES = ("bos", "eos", "eot", "eom", "unknown", "padding")


def info(model: Model = None, json: Json = False, no_color: NoColor = False) -> None:
    """Describe a model file.

    Its sizes, encodings, tokenizer and metadata, and whether sotol can run it.
    """
    from sotol.formats import read_model  # noqa: PLC0415  (NumPy: `sotol --help` does without)

    facts = describe(read_model(find_model(model)))
    if json:
        write_piece(as_json(facts) + "\n", sys.stdout)
    else:
        _show(facts, color=not no_color)


def describe(checkpoint: "Checkpoint") -> dict[str, Any]:
    """All that `sotol info` tells, as data for JSON. Sizes are in bytes."""
    from sotol.formats import is_hub_model  # noqa: PLC0415  (NumPy)
    from sotol.models import architecture_of, described  # noqa: PLC0415

    data, known = checkpoint.metadata, described(checkpoint.metadata)
    architecture = architecture_of(data)
    tokenizer, problems = _read_tokenizer(checkpoint)
    template = _template(checkpoint, tokenizer, problems)
    problems += _missing(checkpoint)
    return {
        "file": str(checkpoint.path),
        "parts": len(checkpoint.parts),
        "bytes": sum(part.stat().st_size for part in checkpoint.parts),
        "name": data.get("general.name"),
        "architecture": architecture,
        "parameters": sum(math.prod(weight.shape) for weight in checkpoint.weights.values()),
        "context": known.find("context_length"),
        "runs": not problems,
        "problems": problems,
        "sizes": _sizes(data, known),
        "encodings": _encodings(checkpoint),
        "tokenizer": _hub_tokenizer(tokenizer) if is_hub_model(checkpoint.path) else _tokenizer(data),
        "chat_template": template,
        "metadata": {key: _summarised(value, checkpoint.types.get(key, "list")) for key, value in data.items()},
    }


def _sizes(data: Mapping[str, object], known: "Metadata") -> dict[str, object]:
    """The numbers that say how big the network is, by their names in GGUF: all that it has, or those of config.json."""
    if known.keys is not None:
        return {key: known.find(key) for key in known.keys if known.has(key)}
    prefix = f"{known.architecture}."
    return {key.removeprefix(prefix): value for key, value in data.items() if key.startswith(prefix)}


def _encodings(checkpoint: "Checkpoint") -> list[dict[str, Any]]:
    """The encodings of the weights, the largest first."""
    weights, parameters, sizes = Counter[str](), Counter[str](), Counter[str]()
    for weight in checkpoint.weights.values():
        name = weight.encoding.name
        weights[name] += 1
        parameters[name] += math.prod(weight.shape)
        sizes[name] += weight.nbytes
    return [
        {"encoding": name, "weights": weights[name], "parameters": parameters[name], "bytes": size}
        for name, size in sizes.most_common()
    ]


def _tokenizer(data: Mapping[str, object]) -> dict[str, Any]:
    tokens = data.get("tokenizer.ggml.tokens")
    words: Sequence[object] = tokens if isinstance(tokens, list) else []
    special = {}
    for name in TOKEN_NAMES:
        token = data.get(f"tokenizer.ggml.{name}_token_id")
        if isinstance(token, int):
            special[name] = {"id": token, "text": words[token] if 0 <= token < len(words) else None}
    model, pre = data.get("tokenizer.ggml.model"), data.get("tokenizer.ggml.pre")
    return {"model": model, "pretokenizer": pre, "vocabulary": len(words), "special": special}


def _hub_tokenizer(tokenizer: "Tokenizer | None") -> dict[str, Any]:
    """The same of a tokenizer.json, whose splitting has no name."""
    if tokenizer is None:
        return {"model": None, "pretokenizer": "", "vocabulary": 0, "special": {}}
    named = {"bos": tokenizer.bos, "eos": tokenizer.eos}
    special = {name: {"id": i, "text": tokenizer.token_text(i)} for name, i in named.items() if i is not None}
    kind = f"tokenizer.json: {tokenizer.kind}"
    return {"model": kind, "pretokenizer": "", "vocabulary": len(tokenizer), "special": special}


def _read_tokenizer(checkpoint: "Checkpoint") -> "tuple[Tokenizer | None, list[str]]":
    """The model's tokenizer, and why sotol can't read it, if so."""
    from sotol.formats import is_hub_model  # noqa: PLC0415  (NumPy)
    from sotol.tokenizers import Tokenizer  # noqa: PLC0415

    try:
        if is_hub_model(checkpoint.path):
            return Tokenizer.from_folder(checkpoint.path), []
        return Tokenizer.from_metadata(checkpoint.metadata, str(checkpoint.path)), []
    except SotolError as error:
        return None, [_problem(checkpoint, error)]


def _template(checkpoint: "Checkpoint", tokenizer: "Tokenizer | None", problems: list[str]) -> str:
    """Where conversations get their format from; what is wrong with it goes to `problems`."""
    from sotol.models import architecture_of  # noqa: PLC0415  (NumPy)
    from sotol.tokenizers.chat import ChatTemplate  # noqa: PLC0415

    if tokenizer is None:
        return "none"
    try:
        template = ChatTemplate.from_metadata(
            checkpoint.metadata,
            bos="",
            eos="",
            architecture=str(architecture_of(checkpoint.metadata)),
            tokens=lambda text: tokenizer.id_of(text) is not None,
        )
    except SotolError as error:
        problems.append(_problem(checkpoint, error))
        return "none"
    return "the file's own" if template.source == "model" else f"the built-in {template.source}"


def _missing(checkpoint: "Checkpoint") -> list[str]:
    """What of the model sotol can't run."""
    from sotol.backends.table import backend  # noqa: PLC0415  (NumPy)
    from sotol.models import trace_model  # noqa: PLC0415

    try:
        return backend("cpu").missing(trace_model(checkpoint, context=1))
    except SotolError as error:
        return [_problem(checkpoint, error)]


def _problem(checkpoint: "Checkpoint", error: SotolError) -> str:
    return str(error).removeprefix(f"{checkpoint.path}: ").removeprefix(f"{checkpoint.path}/")


def _summarised(value: object, kind: str) -> object:
    """A metadata value, a long array by its type, length and first items."""
    if not isinstance(value, list) or len(value) <= 2 * SHOWN_ITEMS:
        return value
    return {"type": kind, "length": len(value), "first": value[:SHOWN_ITEMS]}


def _show(facts: dict[str, Any], *, color: bool) -> None:
    """The facts as tables."""
    from rich.table import Table  # noqa: PLC0415  (see output.py)
    from rich.text import Text  # noqa: PLC0415

    out = console(color=color)

    def table(title: str, rows: Sequence[tuple[object, ...]], head: tuple[str, ...] = ()) -> None:
        grid = Table(box=None, show_header=bool(head), pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
        for i, name in enumerate(head or [""] * len(rows[0])):
            grid.add_column(name, justify="right" if head and i else "left", overflow="fold", style="" if i else "cyan")
        for row in rows:
            grid.add_row(*(Text(cell(value)) for value in row))
        if title:
            show(out, Text(f"\n{title}", style="bold"))
        show(out, grid)

    tokenizer = facts["tokenizer"]
    kind = ", ".join(str(tokenizer[key]) for key in ("model", "pretokenizer") if tokenizer[key] != "")
    table("", [
        ("file", facts["file"] + (f" ({facts['parts']} parts)" if facts["parts"] > 1 else "")),
        ("size", size_of(facts["bytes"])),
        ("name", facts["name"]),
        ("architecture", facts["architecture"]),
        ("parameters", f"{facts['parameters']:,}"),
        ("sizes", ", ".join(f"{name} {facts['sizes'][key]}" for key, name in SIZES.items() if key in facts["sizes"])),
        ("context", facts["context"]),
        ("tokenizer", f"{kind}, {tokenizer['vocabulary']:,} tokens"),
        *((name, f"{token['id']} {token['text']}") for name, token in tokenizer["special"].items()),
        ("chat template", facts["chat_template"]),
        ("runs in sotol", "yes" if facts["runs"] else "no: " + "; ".join(facts["problems"])),
    ])  # fmt: skip
    if facts["encodings"]:
        rows = [
            (
                e["encoding"],
                e["weights"],
                f"{e['parameters']:,}",
                size_of(e["bytes"]),
                f"{8 * e['bytes'] / e['parameters']:.2f}",
            )
            for e in facts["encodings"]
        ]
        table("weights", rows, ("encoding", "weights", "parameters", "size", "bits each"))
    table("metadata", [(key, _cell(value)) for key, value in facts["metadata"].items()] or [("none", "")])


def _cell(value: object) -> str:
    """A metadata value on a line or two."""
    if isinstance(value, dict) and value.keys() == {"type", "length", "first"} and isinstance(value["first"], list):
        return f"{value['length']:,} x {value['type'].removesuffix('[]')}: {_cell(value['first'])[1:-1]}, …"
    text = repr(value) if isinstance(value, list | dict) else str(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}… ({len(text):,} characters)"
