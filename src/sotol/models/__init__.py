"""The table of architectures: GGUF's `general.architecture` -> the module that defines it; also by config.json."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from types import ModuleType

from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint
from sotol.models.binding.metadata import Metadata
from sotol.models.model import trace
from sotol.program.program import Program

__all__ = ["ARCHITECTURES", "MODEL_TYPES", "architecture_of", "check_is_model", "described", "module_of", "trace_model"]


# What other GGUF files say that they are (general.type), and what that is.
OTHER_FILES = {
    "imatrix": "an importance matrix",
    "adapter": "an adapter for a model",
    "mmproj": "the part of a model that sees or hears",
}


class _Modules(Mapping[str, ModuleType]):
    """Modules of this package by other names, each imported when it is asked for: a start needs one of many."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names

    def __getitem__(self, name: str) -> ModuleType:
        return import_module(f"{__name__}.{self._names[name]}")

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


ARCHITECTURES: Mapping[str, ModuleType] = _Modules(
    {
        "gemma3": "gemma3",
        "llama": "llama",
        "qwen2": "qwen2",
        "qwen3": "qwen3",
        "arcee": "arcee",
        "cohere2": "cohere2",
        "command-r": "command_r",
        "deepseek": "deepseek",
        "deepseek2": "deepseek2",
        "dots1": "dots1",
        "ernie4_5": "ernie4_5",
        "ernie4_5-moe": "ernie4_5_moe",
        "exaone4": "exaone4",
        "falcon-h1": "falcon_h1",
        "gemma": "gemma",
        "gemma2": "gemma2",
        "gemma4": "gemma4",
        "glm4": "glm4",
        "glm4moe": "glm4moe",
        "gpt-oss": "gpt_oss",
        "granite": "granite",
        "granitehybrid": "granitehybrid",
        "granitemoe": "granitehybrid",
        "hunyuan-dense": "hunyuan_dense",
        "hunyuan-moe": "hunyuan_moe",
        "lfm2": "lfm2",
        "lfm2moe": "lfm2",
        "llama4": "llama4",
        "minimax-m2": "minimax_m2",
        "mistral3": "mistral3",
        "mixtral": "mixtral",
        "nemotron": "nemotron",
        "nemotron_h": "nemotron_h",
        "nemotron_h_moe": "nemotron_h",
        "olmo2": "olmo2",
        "olmoe": "olmoe",
        "phi3": "phi3",
        "qwen2moe": "qwen2moe",
        "qwen3next": "qwen3next",
        "qwen35": "qwen35",
        "qwen35moe": "qwen35moe",
        "qwen3moe": "qwen3moe",
        # Of models that see, their text: all of a token's positions are one then, so the rotation is a plain one.
        "qwen2vl": "qwen2",
        "qwen3vl": "qwen3",
        "seed_oss": "seed_oss",
        "smollm3": "smollm3",
        "stablelm": "stablelm",
        "starcoder2": "starcoder2",
    }
)

# What architectures are whose files speak of experts.
MIXTURES = {"llama": "mixtral"}

# What config.json says of itself -> the architecture, by GGUF's name.
MODEL_TYPES = {
    "gemma3_text": "gemma3",
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "arcee": "arcee",
    "cohere": "command-r",
    "cohere2": "cohere2",
    "deepseek": "deepseek",
    "deepseek_v2": "deepseek2",
    "deepseek_v3": "deepseek2",
    "dots1": "dots1",
    "ernie4_5": "ernie4_5",
    "ernie4_5_moe": "ernie4_5-moe",
    "exaone4": "exaone4",
    "falcon_h1": "falcon-h1",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma4_text": "gemma4",
    "glm4": "glm4",
    "glm4_moe": "glm4moe",
    "glm4_moe_lite": "deepseek2",
    "gpt_oss": "gpt-oss",
    "granite": "granite",
    "granitemoe": "granitemoe",
    "granitemoehybrid": "granitehybrid",
    "granitemoeshared": "granitemoe",
    "hunyuan_v1_dense": "hunyuan-dense",
    "hunyuan_v1_moe": "hunyuan-moe",
    "kimi_k2": "deepseek2",
    "lfm2": "lfm2",
    "lfm2_moe": "lfm2moe",
    "llama4_text": "llama4",
    "minimax_m2": "minimax-m2",
    "ministral": "mistral3",
    "ministral3": "mistral3",
    "mistral": "mistral3",
    "mixtral": "mixtral",
    "nemotron": "nemotron",
    "nemotron_h": "nemotron_h",
    "olmo2": "olmo2",
    "olmo3": "olmo2",
    "olmoe": "olmoe",
    "phi3": "phi3",
    "qwen2_5_vl_text": "qwen2vl",
    "qwen2_moe": "qwen2moe",
    "qwen2_vl_text": "qwen2vl",
    "qwen3_5_moe_text": "qwen35moe",
    "qwen3_5_text": "qwen35",
    "qwen3_moe": "qwen3moe",
    "qwen3_next": "qwen3next",
    "qwen3_vl_text": "qwen3vl",
    "seed_oss": "seed_oss",
    "smollm3": "smollm3",
    "stablelm": "stablelm",
    "starcoder2": "starcoder2",
}


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


def check_is_model(checkpoint: Checkpoint) -> None:
    """ModelError for a GGUF file of another kind."""
    if (other := OTHER_FILES.get(str(checkpoint.metadata.get("general.type")))) is not None:
        raise ModelError(f"{checkpoint.path}: is {other}, and no model")


def trace_model(checkpoint: Checkpoint, context: int, *, runs: bool = True) -> Program:
    """The Program of a checkpoint, for sequences of up to `context` tokens; ModelError if sotol can't run it.

    runs: as of `model.trace`.
    """
    check_is_model(checkpoint)
    name = architecture_of(checkpoint.metadata)
    if name is None or name not in ARCHITECTURES:
        known, data = ", ".join(ARCHITECTURES), checkpoint.metadata
        said = name or data.get("general.architecture", data.get("model_type"))
        raise ModelError(f"{checkpoint.path}: architecture {said!r:.60} is not one that sotol runs: {known}")
    try:
        return trace(module_of(name, checkpoint)[1], name, checkpoint, context, runs=runs)
    except ModelError as error:  # many name the field alone
        if str(checkpoint.path) in str(error):
            raise
        raise ModelError(f"{checkpoint.path}: {error}") from error


def module_of(name: str, checkpoint: Checkpoint) -> tuple[str, ModuleType]:
    """What an architecture of the table is for this checkpoint, and its module: some names stand for mixtures, too."""
    if name in MIXTURES and checkpoint.metadata.get(f"{name}.expert_count"):
        name = MIXTURES[name]
    return name, ARCHITECTURES[name]
