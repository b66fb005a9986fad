"""The table of architectures: GGUF's `general.architecture` -> the module that defines it."""

from types import ModuleType

from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint
from sotol.models import gemma3, llama, qwen2, qwen3
from sotol.models.model import trace
from sotol.program.program import Program

__all__ = ["ARCHITECTURES", "trace_model"]

ARCHITECTURES: dict[str, ModuleType] = {"gemma3": gemma3, "llama": llama, "qwen2": qwen2, "qwen3": qwen3}


def trace_model(checkpoint: Checkpoint, context: int) -> Program:
    """The Program of a checkpoint, for sequences of up to `context` tokens; ModelError if sotol can't run it."""
    name = checkpoint.metadata.get("general.architecture")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ModelError(f"{checkpoint.path}: architecture {name!r:.60} is not one that sotol runs: {known}")
    return trace(ARCHITECTURES[name], checkpoint, context)
