"""What is in a model's file, and which of its parts sotol can run: for `sotol info`, for any file that can be read."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sotol.answers.finding import find_format
from sotol.errors import FormatError, SotolError
from sotol.formats import Checkpoint, is_hub_model, read_gguf, read_model
from sotol.formats.gguf import UnknownWeight
from sotol.models import ARCHITECTURES, OTHER_FILES, architecture_of, described
from sotol.models.binding.drafts import draft_names
from sotol.models.binding.metadata import Metadata
from sotol.tokenizers import Tokenizer
from sotol.tokenizers.chat import ChatTemplate
from sotol.tools.requirements import kernel_of, level, memory_at, missing_of

__all__ = ["describe", "read_any"]

SHOWN_ITEMS = 4  # of a long array
BLOCK = re.compile(r"(?:blk|model\.layers)\.\d+|(?:model\.)?mtp")  # of names of weights: the block that they are of
TOKEN_NAMES = ("bos", "eos", "eot", "eom", "unknown", "padding")


def read_any(path: Path) -> tuple[Checkpoint, list[UnknownWeight]]:
    """The model at a path, and its weights whose encodings have no name. Errors as of `read_model`."""
    try:
        return read_model(path), []
    except FormatError:
        unknown = list[UnknownWeight]()
        if is_hub_model(path):
            raise
        checkpoint = read_gguf(path, unknown)
        if not unknown:  # then it is something else that is wrong
            raise
        return checkpoint, unknown


def describe(
    checkpoint: Checkpoint, unknown: Sequence[UnknownWeight] = (), context: int | None = None
) -> dict[str, Any]:
    """All that `sotol info` tells, as data for JSON. Sizes are in bytes.

    unknown: weights that the checkpoint lacks, as `read_any` gives them. context: tokens of the context whose memory is
    told; None: that which `sotol run` takes. ValueError for a context that the model was not made for.
    """
    data, known = checkpoint.metadata, described(checkpoint.metadata)
    architecture = architecture_of(data)
    tokenizer, no_tokenizer = _read_tokenizer(checkpoint)
    template, no_template = _read_template(checkpoint, tokenizer)
    encodings = _encodings(checkpoint)
    no_kernels = _without_kernels(encodings, unknown)
    missing = [_problem(checkpoint, problem) for problem in missing_of(checkpoint)]
    parts = {
        "architecture": [] if architecture in ARCHITECTURES else missing,
        "weights": no_kernels,
        "program": missing if architecture in ARCHITECTURES else ["its architecture is unknown"],
        "tokenizer": no_tokenizer,
        "chat template": no_template,
    }
    if str(data.get("general.type")) in OTHER_FILES:  # what a model has, it need not have
        parts, problems = {}, missing
    else:
        problems = [*no_tokenizer, *no_template, *(no_kernels if unknown or not missing else ()), *missing]
    parameters = sum(math.prod(weight.shape) for weight in checkpoint.weights.values())
    stored = sum(weight.nbytes for weight in checkpoint.weights.values())
    return {
        "file": str(checkpoint.path),
        "parts": len(checkpoint.parts),
        "bytes": sum(part.stat().st_size for part in checkpoint.parts),
        "name": data.get("general.name"),
        "architecture": architecture,
        "parameters": parameters,
        "bits": 8 * stored / parameters if parameters else None,
        "context": known.find("context_length"),
        "runs": not problems,
        "problems": problems,
        "can_run": {part: {"runs": not lacking, "missing": lacking} for part, lacking in parts.items()},
        "skipped": _skipped(checkpoint),
        "sizes": _sizes(data, known),
        "level": level(),
        "encodings": encodings,
        "memory": memory_at(checkpoint, context) if not problems else None,
        "tokenizer": _hub_tokenizer(tokenizer) if is_hub_model(checkpoint.path) else _tokenizer(data),
        "chat_template": "none" if template is None else _source(template),
        "answers": None if template is None or tokenizer is None else _answers(template, tokenizer),
        "metadata": {key: _summarised(value, checkpoint.types.get(key, "list")) for key, value in data.items()},
    }


# ---- the network


def _sizes(data: Mapping[str, object], known: Metadata) -> dict[str, object]:
    """The numbers that say how big the network is, by their names in GGUF: all that it has, or those of config.json."""
    if known.keys is not None:
        return {key: known.find(key) for key in known.keys if known.has(key)}
    prefix = f"{known.architecture}."
    return {key.removeprefix(prefix): value for key, value in data.items() if key.startswith(prefix)}


def _encodings(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """The encodings of the weights, the largest first, with what runs them."""
    weights, parameters, sizes = Counter[str](), Counter[str](), Counter[str]()
    kinds = {weight.encoding.name: weight.encoding for weight in checkpoint.weights.values()}
    of_matrices = {weight.encoding.name for weight in checkpoint.weights.values() if len(weight.shape) > 1}
    for weight in checkpoint.weights.values():
        name = weight.encoding.name
        weights[name] += 1
        parameters[name] += math.prod(weight.shape)
        sizes[name] += weight.nbytes
    whole = sum(sizes.values())
    return [
        {
            "encoding": name,
            "weights": weights[name],
            "parameters": parameters[name],
            "bytes": size,
            "share": size / whole,
            "bits": 8 * size / parameters[name],
            "kernel": kernel_of(kinds[name], matrices=name in of_matrices),
        }
        for name, size in sizes.most_common()
    ]


def _without_kernels(encodings: Sequence[Mapping[str, Any]], unknown: Sequence[UnknownWeight]) -> list[str]:
    """The encodings that sotol can't run, by name or by number."""
    lacking = [f"no kernel for {e['encoding']} ({e['weights']} weights)" for e in encodings if e["kernel"] is None]
    for kind, count in sorted(Counter(weight.kind for weight in unknown).items()):
        first = next(weight.name for weight in unknown if weight.kind == kind)
        lacking.append(f"encoding {kind} is unknown ({count} weights, {first!r:.60} is the first)")
    return lacking


def _skipped(checkpoint: Checkpoint) -> list[str]:
    """Parts of the file that no program of sotol's uses: blocks that predict several tokens at once."""
    names = draft_names(checkpoint)
    blocks = dict.fromkeys(found[0] for name in names if (found := BLOCK.match(name)))
    return [f"{', '.join(blocks)}: {len(names)} weights that predict more than one token"] if names else []


# ---- texts


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


def _hub_tokenizer(tokenizer: Tokenizer | None) -> dict[str, Any]:
    """The same of a tokenizer.json, whose splitting has no name."""
    if tokenizer is None:
        return {"model": None, "pretokenizer": "", "vocabulary": 0, "special": {}}
    named = {"bos": tokenizer.bos, "eos": tokenizer.eos}
    special = {name: {"id": i, "text": tokenizer.token_text(i)} for name, i in named.items() if i is not None}
    kind = f"tokenizer.json: {tokenizer.kind}"
    return {"model": kind, "pretokenizer": "", "vocabulary": len(tokenizer), "special": special}


def _read_tokenizer(checkpoint: Checkpoint) -> tuple[Tokenizer | None, list[str]]:
    """The model's tokenizer, or why sotol can't read it."""
    try:
        if is_hub_model(checkpoint.path):
            return Tokenizer.from_folder(checkpoint.path), []
        return Tokenizer.from_metadata(checkpoint.metadata, str(checkpoint.path)), []
    except SotolError as error:
        return None, [_problem(checkpoint, error)]


def _read_template(checkpoint: Checkpoint, tokenizer: Tokenizer | None) -> tuple[ChatTemplate | None, list[str]]:
    """Where conversations get their format from, or what is wrong with it."""
    if tokenizer is None:
        return None, []
    try:
        template = ChatTemplate.from_metadata(
            checkpoint.metadata,
            bos="",
            eos="",
            architecture=str(architecture_of(checkpoint.metadata)),
            tokens=lambda text: tokenizer.id_of(text) is not None,
        )
    except SotolError as error:
        return None, [_problem(checkpoint, error)]
    return template, []


def _source(template: ChatTemplate) -> str:
    return "the file's own" if template.source == "model" else f"the built-in {template.source}"


def _answers(template: ChatTemplate, tokenizer: Tokenizer) -> dict[str, Any]:
    """How the model writes what is no plain text: the format of its calls, and the marks of what it thinks."""
    form = find_format(template.written, lambda text: tokenizer.id_of(text) is not None)
    return {"format": form.name, "thinking": [pair.open for pair in form.thinking]}


def _problem(checkpoint: Checkpoint, error: SotolError | str) -> str:
    return str(error).removeprefix(f"{checkpoint.path}: ").removeprefix(f"{checkpoint.path}/")


def _summarised(value: object, kind: str) -> object:
    """A metadata value, a long array by its type, length and first items."""
    if not isinstance(value, list) or len(value) <= 2 * SHOWN_ITEMS:
        return value
    return {"type": kind, "length": len(value), "first": value[:SHOWN_ITEMS]}
