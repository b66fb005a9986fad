"""The table of architectures: GGUF's `general.architecture` -> the module that defines it; also by config.json."""

from types import ModuleType

from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint
from sotol.models import gemma3, llama, qwen2, qwen3
from sotol.models.model import trace
from sotol.program.program import Program

__all__ = ["ARCHITECTURES", "MODEL_TYPES", "trace_model"]

ARCHITECTURES: dict[str, ModuleType] = {"gemma3": gemma3, "llama": llama, "qwen2": qwen2, "qwen3": qwen3}

# What config.json says of itself -> the architecture, by GGUF's name.
MODEL_TYPES = {"gemma3_text": "gemma3", "llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}


def trace_model(checkpoint: Checkpoint, context: int) -> Program:
    """The Program of a checkpoint, for sequences of up to `context` tokens; ModelError if sotol can't run it."""
    name = checkpoint.metadata.get("general.architecture")
    if name is None and isinstance(kind := checkpoint.metadata.get("model_type"), str):
        name = MODEL_TYPES.get(kind, kind)
    if not isinstance(name, str) or name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ModelError(f"{checkpoint.path}: architecture {name!r:.60} is not one that sotol runs: {known}")
    return trace(ARCHITECTURES[name], name, checkpoint, context)
