"""Files of models: from bytes on disk to metadata and named, still encoded weights."""

from sotol.formats.gguf import read_gguf
from sotol.formats.gguf_write import write_gguf
from sotol.formats.weights import Checkpoint, Weight

__all__ = ["Checkpoint", "Weight", "read_gguf", "write_gguf"]
