"""Hugging Face models as checkpoints, and as GGUF files: small ones, in F32, without a tokenizer."""

from pathlib import Path
from typing import Any

from sotol.formats import Checkpoint, Weight, write_gguf
from sotol.models import ARCHITECTURES, architecture_of
from sotol.tools.gguf_names import with_gguf_names

__all__ = ["as_gguf", "checkpoint_of"]


def checkpoint_of(model: Any) -> Checkpoint:
    """A `transformers` model for causal language modelling as its own files have it: config.json and weights in F32."""
    # Of ERNIE, transformers has a part in another place than its files.
    named = {name.replace(".gate.moe_statics.", ".moe_statics."): x for name, x in model.state_dict().items()}
    weights = {name: Weight.from_values(name, x.numpy(), "F32") for name, x in named.items()}
    return Checkpoint(Path("config.json"), model.config.to_dict(), weights)


def as_gguf(checkpoint: Checkpoint, architecture: str, path: Path) -> Path:
    """Write a checkpoint with Hugging Face's names, which is of this architecture, as a GGUF file in F32."""
    assert ARCHITECTURES[architecture_of(checkpoint.metadata) or ""] is ARCHITECTURES[architecture]
    converted = with_gguf_names(checkpoint)
    weights = [Weight.from_values(name, weight.decode(), "F32") for name, weight in converted.weights.items()]
    write_gguf(path, converted.metadata, weights)
    return path
