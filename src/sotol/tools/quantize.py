"""A model in fewer bits: each weight read, encoded and written in pieces, so that no weight is ever whole in memory.

Which weight gets which encoding, `mixes.py` says; which columns of a matrix count more, an importance matrix
(`importance.py`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sotol.arrays import Float32Array
from sotol.backends.cpu.running.fitting import Encoder
from sotol.errors import ModelError
from sotol.formats import Checkpoint
from sotol.formats.files import files_of
from sotol.formats.gguf_writer import GGUFWriter
from sotol.formats.weights import Weight
from sotol.models import described
from sotol.models.binding.changes import in_model_order
from sotol.progress import Progress
from sotol.quant import ENCODINGS
from sotol.tools.encoding import Planned
from sotol.tools.encoding_threads import EncodingThreads
from sotol.tools.importance import Importance
from sotol.tools.mixes import EMBEDDINGS, FILE_TYPES, MIXES, OTHER_FILE_TYPE, facts_of, plan

__all__ = ["NEEDS_IMPORTANCE", "Quantised", "quantize"]

VERSION = 2  # general.quantization_version: of GGML's encodings

# Encodings that leave nothing of a model unless it is known which columns count.
NEEDS_IMPORTANCE = {"IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"}


class Quantised(NamedTuple):
    """What was written."""

    path: Path
    encodings: Mapping[str, str]  # of each weight
    before: int  # bytes of all weights
    after: int
    values: int  # numbers of all weights
    without: Sequence[str]  # weights for which an importance matrix was given that does not have them


def quantize(
    source: Checkpoint, out: str | Path, *, mix: str | None = None, encoding: str | None = None,
    patterns: Sequence[tuple[str, str]] = (), importance: Importance | None = None, allow_requantize: bool = False,
    threads: int | None = None, progress: Progress | None = None,
) -> Quantised:  # fmt: skip
    """Write a model to `out` as GGUF, its matrices by a mix ("Q4_K_M") or all in one encoding ("Q4_K").

    patterns: encodings of weights by name, see `mixes.plan`. allow_requantize: whether matrices that are quantised
    already may be quantised again, which loses more than their bits tell. threads: as many as there are cores, unless
    given. progress: is told of kernels that are compiled, and of weights.

    ValueError for names that are none, ModelError for a model that can't be quantised so, SotolError for what the
    system refuses. `out` is there when all is well, and else as it was.
    """
    if "general.architecture" not in source.metadata:
        raise ModelError(f"{source.path}: is no GGUF file: `to_gguf.gguf_of` makes one of a folder")
    weights = list(source.weights.values())
    metadata = described(source.metadata)
    facts = facts_of(metadata, source.weights, importance=importance is not None)
    chosen = plan(weights, facts, mix=mix, encoding=encoding, patterns=patterns)
    counts = {w.name: _importance_of(w, chosen[w.name], importance) for w in weights}
    for weight in weights:
        _check(source, weight, chosen[weight.name], counts[weight.name], allow_requantize=allow_requantize)
    changed = [w for w in weights if chosen[w.name] != w.encoding.name]
    encoder = Encoder(((ENCODINGS[chosen[w.name]], counts[w.name] is not None) for w in changed), progress=progress)
    head = _head(source, MIXES[mix].file_type if mix else FILE_TYPES.get(str(encoding), OTHER_FILE_TYPE), importance)
    files = files_of(weights)
    with GGUFWriter(out, head, source.types) as writer, EncodingThreads(encoder, threads) as encoders:
        for weight in weights:
            writer.add(weight.name, ENCODINGS[chosen[weight.name]], weight.shape)
        for done, weight in enumerate(weights):
            if progress is not None:
                progress("quantising weights", done, len(weights))
            new = Planned(in_model_order(weight), ENCODINGS[chosen[weight.name]])
            writer.write(weight.name, encoders.rows(new, counts[weight.name]))
        for file in files:
            file.check()
    if progress is not None:
        progress("quantising weights", len(weights), len(weights))
    sizes = [_bytes_as(weight, chosen[weight.name]) for weight in weights]
    return Quantised(
        Path(out), chosen, sum(w.nbytes for w in weights), sum(sizes),
        sum(w.row_count * w.shape[-1] for w in weights),
        [] if importance is None else [w.name for w in changed if counts[w.name] is None and w.name not in EMBEDDINGS],
    )  # fmt: skip


def _importance_of(weight: Weight, encoding: str, importance: Importance | None) -> Float32Array | None:
    """How much each column counts: [matrices, K], or None where nothing is known; ModelError for another width."""
    found = None if importance is None else importance.of(weight.name)
    if found is None or encoding == weight.encoding.name:
        return None
    matrices = weight.shape[0] if len(weight.shape) > 2 else 1
    if found.size != matrices * weight.shape[-1]:
        raise ModelError(
            f"the importance matrix has {found.size} numbers for {weight.name}, whose columns are"
            f" {matrices * weight.shape[-1]}: it is of another model"
        )
    return found.reshape(matrices, -1)


def _check(
    source: Checkpoint, weight: Weight, encoding: str, counts: Float32Array | None, *, allow_requantize: bool
) -> None:
    """ModelError for a weight that can't become this."""
    if weight.encoding.name == encoding:
        if weight.encoding.ggml_type is None:
            raise ModelError(
                f"{source.path}: {weight.name} is stored as {weight.encoding.name}, which GGUF has not: convert it"
            )
        return
    if weight.encoding.decode is None:
        raise ModelError(f"{source.path}: {weight.name} is stored as {weight.encoding.name}, which sotol can't decode")
    if weight.encoding.integer is not None and not allow_requantize:
        raise ModelError(
            f"{source.path}: {weight.name} is quantised already, as {weight.encoding.name}: quantise the model in F16"
            " or BF16, or add --allow-requantize, which costs quality"
        )
    lookup = weight.name in EMBEDDINGS or weight.name == "output.weight"
    if encoding in NEEDS_IMPORTANCE and counts is None and not lookup:
        raise ModelError(
            f"{weight.name} as {encoding} makes no sense without an importance matrix: make one with sotol imatrix, and"
            " give it with --imatrix"
        )


def _head(source: Checkpoint, file_type: int, importance: Importance | None) -> dict[str, object]:
    """The metadata of the new file, with what llama.cpp's tool notes of an importance matrix."""
    head = {**source.metadata, "general.file_type": file_type, "general.quantization_version": VERSION}
    if importance is not None:
        head["quantize.imatrix.file"] = importance.file
        if importance.datasets:
            head["quantize.imatrix.dataset"] = importance.datasets[0]
        head["quantize.imatrix.entries_count"] = len(importance.sums)
        head["quantize.imatrix.chunks_count"] = importance.chunks
    return head


def _bytes_as(weight: Weight, encoding: str) -> int:
    known = ENCODINGS[encoding]
    return weight.row_count * weight.shape[-1] // known.values * known.size
