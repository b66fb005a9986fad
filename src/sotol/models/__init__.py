"""The table of architectures: GGUF's `general.architecture` -> the module that defines it; also by config.json."""

from collections.abc import Mapping
from types import ModuleType

from sotol.errors import ModelError, plain
from sotol.formats.weights import Checkpoint
from sotol.models import gemma3, llama, qwen2, qwen3
from sotol.models.metadata import Metadata
from sotol.models.model import trace
from sotol.program.program import Program

__all__ = ["ARCHITECTURES", "MODEL_TYPES", "architecture_of", "described", "trace_model"]

ARCHITECTURES: dict[str, ModuleType] = {"gemma3": gemma3, "llama": llama, "qwen2": qwen2, "qwen3": qwen3}

# What config.json says of itself -> the architecture, by GGUF's name.
MODEL_TYPES = {"gemma3_text": "gemma3", "llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
# Of these, whose layers all have a window if config.json gives one: sotol runs them up to that many tokens.
WINDOWED = ("mistral",)


def architecture_of(metadata: Mapping[str, object]) -> str | None:
    """The architecture that metadata name, by GGUF's name where sotol has it; None where they name none."""
    name = metadata.get("general.architecture")
    if name is None and isinstance(kind := metadata.get("model_type"), str):
        name = MODEL_TYPES.get(kind, kind)
    return name if isinstance(name, str) else None


def described(metadata: Mapping[str, object]) -> Metadata:
    """What the metadata say of their architecture, by the names that GGUF has for it, from either kind of file."""
    name = architecture_of(metadata)
    module = ARCHITECTURES.get(name or "")
    keys = None if "general.architecture" in metadata or module is None else module.KEYS
    return Metadata(metadata, str(name), keys)


def trace_model(checkpoint: Checkpoint, context: int) -> Program:
    """The Program of a checkpoint, for sequences of up to `context` tokens; ModelError if sotol can't run it."""
    name = architecture_of(checkpoint.metadata)
    if (quantized := checkpoint.metadata.get("quantization_config")) is not None:
        method = quantized.get("quant_method") if isinstance(quantized, Mapping) else quantized
        raise ModelError(
            f"{checkpoint.path}: its weights are quantized by {plain(repr(method), 40)}: not supported yet"
        )
    window = checkpoint.metadata.get("sliding_window")
    if checkpoint.metadata.get("model_type") in WINDOWED and isinstance(window, int) and context > window:
        raise ModelError(f"{checkpoint.path}: its layers see {window} tokens: give a ctx of at most so many")
    if name is None or name not in ARCHITECTURES:
        known, data = ", ".join(ARCHITECTURES), checkpoint.metadata
        said = name or data.get("general.architecture", data.get("model_type"))
        raise ModelError(f"{checkpoint.path}: architecture {said!r:.60} is not one that sotol runs: {known}")
    return trace(ARCHITECTURES[name], name, checkpoint, context)
