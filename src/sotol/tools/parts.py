"""A GGUF file to parts, as llama.cpp names them, and parts to one file: the same metadata and the same bytes."""

from pathlib import Path

from sotol.errors import SotolError
from sotol.formats import Checkpoint, read_gguf, write_gguf
from sotol.formats.gguf import part_path
from sotol.formats.gguf_writer import alignment_of, split_weights
from sotol.progress import Progress
from sotol.tools.counting import ByteCount
from sotol.tools.outputs import check_outputs

__all__ = ["merge_parts", "split_file"]


def split_file(
    file: Path,
    prefix: Path,
    *,
    part_bytes: int | None = None,
    part_weights: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> tuple[Path, ...]:
    """Write a model as <prefix>-00001-of-0000N.gguf, …, with at most so many bytes of weights, or weights, in each.

    A weight is in one part, also a larger one. The file may be a part of a split model, which is split anew.
    SotolError if one part would do, or if a part is there already, unless force says that it may be replaced.
    """
    checkpoint = read_gguf(file)
    weights = list(checkpoint.weights.values())
    count = len(split_weights(weights, alignment_of(checkpoint.metadata), part_bytes, part_weights))
    if count == 1:
        raise SotolError(
            f"{file}: {len(weights)} weights are no more than one part may have: there is nothing to split"
        )
    names = (part_path(prefix, number, count) for number in range(1, count + 1))
    check_outputs(names, force=force, inputs=checkpoint.parts)
    return _write(checkpoint, prefix, progress, part_bytes, part_weights)


def merge_parts(part: Path, out: Path, *, force: bool = False, progress: Progress | None = None) -> Path:
    """Write the model of which a file is one part as one file. SotolError if it is whole, or `out` is there already."""
    checkpoint = read_gguf(part)
    if len(checkpoint.parts) < 2:
        raise SotolError(f"{part}: is no part of a split model: there is nothing to merge")
    check_outputs([out], force=force, inputs=checkpoint.parts)
    return _write(checkpoint, out, progress)[0]


def _write(
    checkpoint: Checkpoint,
    path: Path,
    progress: Progress | None,
    part_bytes: int | None = None,
    part_weights: int | None = None,
) -> tuple[Path, ...]:
    return write_gguf(
        path,
        checkpoint.metadata,
        checkpoint.weights.values(),
        types=checkpoint.types,
        part_bytes=part_bytes,
        part_weights=part_weights,
        progress=ByteCount(progress, sum(weight.nbytes for weight in checkpoint.weights.values())),
    )
