"""A folder of Hugging Face's kind to a GGUF file, as llama.cpp's converter makes it: names, metadata, tokenizer."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from sotol.backends.cpu.running.fitting import Encoder
from sotol.formats import GGUFWriter, read_model
from sotol.formats.files import files_of
from sotol.formats.weights import Checkpoint, Weight
from sotol.models.binding.drafts import draft_names
from sotol.models.binding.sources import as_floats
from sotol.progress import Progress
from sotol.tools.counting import ByteCount
from sotol.tools.encoding import Planned, default_encoding, planned, stays_f32
from sotol.tools.encoding_threads import EncodingThreads
from sotol.tools.gguf_names import known_architecture, with_gguf_names, without_factors
from sotol.tools.gguf_vocabulary import gguf_vocabulary
from sotol.tools.same_programs import check_same_model

__all__ = ["Converted", "draft_remarks", "folder_to_gguf", "gguf_of"]

FILE_TYPES = {"F32": 0, "F16": 1, "Q8_0": 7, "BF16": 32}  # general.file_type: llama.cpp's include/llama.h
QUANTIZATION_VERSION = 2
TEMPLATE = "tokenizer.chat_template"
SUFFIXES = ("", "K", "M", "B", "T")  # of a size label: thousands each


class Converted(NamedTuple):
    """What was written. remarks: what the new model lacks, a sentence each."""

    path: Path
    encoding: str
    weights: int
    remarks: tuple[str, ...]


def folder_to_gguf(
    folder: Path,
    out: Path,
    encoding: str | None = None,
    progress: Progress | None = None,
    *,
    threads: int | None = None,
) -> Converted:
    """Write the model of a folder, or of a SafeTensors file's folder, to a GGUF file.

    encoding: of matrices; None takes the folder's own, F16 where that is none that GGUF has. Vectors are F32. threads:
    that encode, as many as there are cores unless given. The file is written beside `out` and takes its place when it
    is whole. ModelError for a model that sotol can't run, or of which GGUF can't say all; SotolError for what the
    system refuses.
    """
    model, remarks = gguf_of(folder)
    target = encoding or default_encoding(model.weights.values())
    plans = {name: planned(name, w, target, keep=encoding is None) for name, w in model.weights.items()}
    said = {"general.file_type": FILE_TYPES[target], "general.quantization_version": QUANTIZATION_VERSION}
    _write(out, model._replace(metadata={**model.metadata, **said}), plans, threads, progress)
    return Converted(out, target, len(plans), remarks)


def gguf_of(folder: Path) -> tuple[Checkpoint, tuple[str, ...]]:
    """The model of a folder as a GGUF file has it, and remarks as of `Converted`. Weights are read when asked for.

    What is in F32 in every GGUF file is so here, too: llama.cpp takes no norms in BF16. Raises what `folder_to_gguf`
    raises.
    """
    checkpoint = read_model(folder)
    architecture, _ = known_architecture(checkpoint)
    converted = with_gguf_names(checkpoint)
    check_same_model(without_factors(checkpoint), converted)
    vocabulary = gguf_vocabulary(folder, converted.weights["token_embd.weight"].shape[0], architecture)
    metadata = {
        **converted.metadata,
        **_described(folder, converted.weights),
        **vocabulary.metadata,
        **_templates(checkpoint.metadata),
    }
    weights = {
        name: replace(as_floats(weight) if stays_f32(name, weight) else weight, name=name)
        for name, weight in converted.weights.items()
    }
    remarks = (*vocabulary.remarks, *draft_remarks(checkpoint))
    return converted._replace(metadata=metadata, weights=weights, types=vocabulary.types), remarks


def draft_remarks(checkpoint: Checkpoint) -> tuple[str, ...]:
    """That layers which draft tokens are left out, if there are any: sotol does not run them."""
    count = len(draft_names(checkpoint))
    return (f"layers that draft tokens ahead are left out: {count} weights",) if count else ()


def _write(
    out: Path, model: Checkpoint, plans: Mapping[str, Planned], threads: int | None, progress: Progress | None
) -> None:
    """Write a GGUF file of weights in their new encodings. SotolError if a file changes while it is read."""
    told = ByteCount(progress, sum(plan.size for plan in plans.values()))
    encoder = Encoder((plan.encoding, False) for plan in plans.values() if plan.encoding != plan.weight.encoding)
    files = files_of(model.weights.values())
    with GGUFWriter(out, model.metadata, model.types) as writer, EncodingThreads(encoder, threads, told) as encoders:
        for name, plan in plans.items():
            writer.add(name, plan.encoding, plan.weight.shape)
        for name, plan in plans.items():
            writer.write(name, encoders.rows(plan))
        for file in files:
            file.check()


def _described(folder: Path, weights: Mapping[str, Weight]) -> dict[str, object]:
    """What says which model it is, for people."""
    place = folder if folder.is_dir() else folder.parent
    cached = place.parent.name == "snapshots"  # of the Hub's cache: models--<owner>--<name>/snapshots/<revision>
    name = place.parent.parent.name.split("--")[-1] if cached else place.resolve().name
    return {"general.name": name, "general.size_label": _size_label(weights)}


def _size_label(weights: Mapping[str, Weight]) -> str:
    """The number of parameters, rounded, as in names of models: 135M, 8x7B for eight experts."""
    experts = next((w.shape[0] for name, w in weights.items() if "_exps." in name), 0)
    count = sum(math.prod(w.shape[1:] if "_exps." in name else w.shape) for name, w in weights.items())
    scale = min(len(SUFFIXES) - 1, max(0, len(str(count)) - 1) // 3)
    number = count / 1000**scale
    label = f"{number:.0f}" if number >= 10 else f"{number:.1f}".removesuffix(".0")
    return f"{experts}x{label}{SUFFIXES[scale]}" if experts else f"{label}{SUFFIXES[scale]}"


def _templates(metadata: Mapping[str, object]) -> dict[str, object]:
    """The chat templates, and the names of those that have one."""
    found = {key: value for key, value in metadata.items() if key == TEMPLATE or key.startswith(f"{TEMPLATE}.")}
    names = sorted(key.removeprefix(f"{TEMPLATE}.") for key in found if key != TEMPLATE)
    return found | ({"tokenizer.chat_templates": names} if names else {})
