"""Files of models: from bytes on disk to metadata and named, still encoded weights."""

from pathlib import Path

from sotol.formats.files import is_hub_model
from sotol.formats.gguf import read_gguf
from sotol.formats.gguf_write import write_gguf
from sotol.formats.weights import Checkpoint, Weight

__all__ = ["Checkpoint", "Weight", "is_hub_model", "read_gguf", "read_model", "write_gguf"]


def read_model(path: Path) -> Checkpoint:
    """The model at a path: a GGUF file, a folder with config.json and SafeTensors files, or one of these files.

    FormatError for what is not valid in its format, ModelNotFoundError if there is nothing, SotolError if it can't be
    opened.
    """
    if not is_hub_model(path):
        return read_gguf(path)
    from sotol.formats.checkpoint_folder import read_folder  # noqa: PLC0415  (JSON and more: GGUF files do without)

    return read_folder(path)
