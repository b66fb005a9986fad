"""Files of models: from bytes on disk to metadata and named, still encoded weights."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sotol.formats.files import is_hub_model
from sotol.formats.gguf import read_gguf
from sotol.formats.weights import Checkpoint, Weight

if TYPE_CHECKING:
    from sotol.formats.gguf_writer import GGUFWriter, write_gguf

__all__ = ["Checkpoint", "GGUFWriter", "Weight", "is_hub_model", "read_gguf", "read_model", "write_gguf"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:  # what writes files is imported when it is asked for: a start does without
        if name not in ("GGUFWriter", "write_gguf"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from sotol.formats import gguf_writer  # noqa: PLC0415

        return getattr(gguf_writer, name)


def read_model(path: Path) -> Checkpoint:
    """The model at a path: a GGUF file, a folder with config.json and SafeTensors files, or one of these files.

    FormatError for what is not valid in its format, ModelNotFoundError if there is nothing, SotolError if it can't be
    opened.
    """
    if not is_hub_model(path):
        return _with_sidecars(read_gguf(path))
    from sotol.formats.checkpoint_folder import read_folder  # noqa: PLC0415  (JSON and more: GGUF files do without)

    return read_folder(path)


def _with_sidecars(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with factors of whole matrices in the matrices that they belong to."""
    if not any(name.endswith(".scale") for name in checkpoint.weights):
        return checkpoint
    from sotol.formats.quantised.sidecars import join_sidecars  # noqa: PLC0415  (for few files)
    from sotol.formats.quantised.tensors import Tensors  # noqa: PLC0415

    tensors = Tensors(checkpoint.path, dict(checkpoint.weights))
    join_sidecars(tensors, checkpoint.metadata.get("general.architecture"))
    return checkpoint._replace(weights=tensors.weights)
