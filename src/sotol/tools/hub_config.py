"""What a GGUF file's metadata say, as Hugging Face's config.json says it: the way back through the tables `KEYS`.

Names are those of transformers 5, whose classes fill in what a model has as all of its kind do. Whether the result says
all of it is `same_programs.py`'s question.
"""

import re
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from sotol.errors import ModelError, plain
from sotol.formats.files import in_memory
from sotol.formats.weights import Checkpoint
from sotol.models.binding.bind import Config
from sotol.models.binding.metadata import Metadata
from sotol.models.parts.rope import PARTIAL, Rope
from sotol.tools.hub_otherwise import deepseek2_kind, hub_facts

__all__ = ["HubModel", "hub_config", "hub_model"]


class HubModel(NamedTuple):
    """What transformers calls a model: config.json's model_type and the class."""

    model_type: str
    class_name: str


# By GGUF's name. Of models that see, a GGUF file has the text model, which is one of those without eyes.
MODELS: Mapping[str, HubModel] = {
    "arcee": HubModel("arcee", "ArceeForCausalLM"),
    "cohere2": HubModel("cohere2", "Cohere2ForCausalLM"),
    "command-r": HubModel("cohere", "CohereForCausalLM"),
    "deepseek": HubModel("deepseek", "DeepseekForCausalLM"),
    "deepseek2": HubModel("deepseek_v3", "DeepseekV3ForCausalLM"),
    "dots1": HubModel("dots1", "Dots1ForCausalLM"),
    "ernie4_5": HubModel("ernie4_5", "Ernie4_5ForCausalLM"),
    "ernie4_5-moe": HubModel("ernie4_5_moe", "Ernie4_5_MoeForCausalLM"),
    "exaone4": HubModel("exaone4", "Exaone4ForCausalLM"),
    "falcon-h1": HubModel("falcon_h1", "FalconH1ForCausalLM"),
    "gemma": HubModel("gemma", "GemmaForCausalLM"),
    "gemma2": HubModel("gemma2", "Gemma2ForCausalLM"),
    "gemma3": HubModel("gemma3_text", "Gemma3ForCausalLM"),
    "gemma4": HubModel("gemma4_text", "Gemma4ForCausalLM"),
    "glm4": HubModel("glm4", "Glm4ForCausalLM"),
    "glm4moe": HubModel("glm4_moe", "Glm4MoeForCausalLM"),
    "gpt-oss": HubModel("gpt_oss", "GptOssForCausalLM"),
    "granite": HubModel("granite", "GraniteForCausalLM"),
    "granitehybrid": HubModel("granitemoehybrid", "GraniteMoeHybridForCausalLM"),
    "granitemoe": HubModel("granitemoe", "GraniteMoeForCausalLM"),
    "hunyuan-dense": HubModel("hunyuan_v1_dense", "HunYuanDenseV1ForCausalLM"),
    "hunyuan-moe": HubModel("hunyuan_v1_moe", "HunYuanMoEV1ForCausalLM"),
    "lfm2": HubModel("lfm2", "Lfm2ForCausalLM"),
    "lfm2moe": HubModel("lfm2_moe", "Lfm2MoeForCausalLM"),
    "llama": HubModel("llama", "LlamaForCausalLM"),
    "llama4": HubModel("llama4_text", "Llama4ForCausalLM"),
    "minimax-m2": HubModel("minimax_m2", "MiniMaxM2ForCausalLM"),
    "mistral3": HubModel("mistral", "MistralForCausalLM"),
    "mixtral": HubModel("mixtral", "MixtralForCausalLM"),
    "nemotron": HubModel("nemotron", "NemotronForCausalLM"),
    "nemotron_h": HubModel("nemotron_h", "NemotronHForCausalLM"),
    "nemotron_h_moe": HubModel("nemotron_h", "NemotronHForCausalLM"),
    "olmo2": HubModel("olmo2", "Olmo2ForCausalLM"),
    "olmoe": HubModel("olmoe", "OlmoeForCausalLM"),
    "phi3": HubModel("phi3", "Phi3ForCausalLM"),
    "qwen2": HubModel("qwen2", "Qwen2ForCausalLM"),
    "qwen2moe": HubModel("qwen2_moe", "Qwen2MoeForCausalLM"),
    "qwen2vl": HubModel("qwen2", "Qwen2ForCausalLM"),
    "qwen3": HubModel("qwen3", "Qwen3ForCausalLM"),
    "qwen35": HubModel("qwen3_5_text", "Qwen3_5ForCausalLM"),
    "qwen35moe": HubModel("qwen3_5_moe_text", "Qwen3_5MoeForCausalLM"),
    "qwen3moe": HubModel("qwen3_moe", "Qwen3MoeForCausalLM"),
    "qwen3next": HubModel("qwen3_next", "Qwen3NextForCausalLM"),
    "qwen3vl": HubModel("qwen3", "Qwen3ForCausalLM"),
    "seed_oss": HubModel("seed_oss", "SeedOssForCausalLM"),
    "smollm3": HubModel("smollm3", "SmolLM3ForCausalLM"),
    "stablelm": HubModel("stablelm", "StableLmForCausalLM"),
    "starcoder2": HubModel("starcoder2", "Starcoder2ForCausalLM"),
}
# Where a table has several places of config.json for a key, and the first is not this model's.
PLACES = {
    ("mixtral", "expert_count"): "num_local_experts",
    ("gpt_oss", "expert_count"): "num_local_experts",
    ("granitemoe", "expert_count"): "num_local_experts",
    ("granitemoehybrid", "expert_count"): "num_local_experts",
    ("granitemoeshared", "expert_count"): "num_local_experts",
    ("llama4_text", "expert_count"): "num_local_experts",
    ("minimax_m2", "expert_count"): "num_local_experts",
    **{
        (kind, "expert_count"): "n_routed_experts"
        for kind in ("deepseek", "deepseek_v2", "deepseek_v3", "dots1", "glm4_moe", "glm4_moe_lite", "nemotron_h")
    },
    ("lfm2", "feed_forward_length"): "intermediate_size",
    ("lfm2_moe", "feed_forward_length"): "intermediate_size",
    ("starcoder2", "attention.layer_norm_epsilon"): "norm_epsilon",
    ("nemotron", "attention.layer_norm_epsilon"): "norm_eps",
}
# Whose layers all have one window, or none.
ONE_WINDOW = {"mistral", "nemotron", "phi3", "stablelm", "starcoder2"}
# config.json's flags for biases -> the weight of a layer whose presence says so.
BIASES = {
    "attention_bias": "attn_q.bias",
    "attention_out_bias": "attn_output.bias",
    "use_qkv_bias": "attn_q.bias",
    "use_bias": "attn_q.bias",
    "mlp_bias": "ffn_up.bias",
}
KINDS = ("sliding_attention", "full_attention")
LAYER = re.compile(r"blk\.\d+\.")
ORIGINS = tuple(1 << i for i in range(5, 21))  # contexts from which a Llama 3 may have been stretched


def hub_model(architecture: str, config: Config) -> HubModel:
    """What transformers calls a model of this architecture; ModelError where sotol does not know it."""
    if architecture not in MODELS:
        raise ModelError(f"sotol can't write {architecture} as a folder of Hugging Face's kind")
    windows: tuple[int, ...] = getattr(config, "windows", ())
    if architecture == "mistral3":
        if getattr(config, "growth", 0.0):
            return HubModel("ministral3", "Ministral3ForCausalLM")
        if len(set(windows)) > 1:
            return HubModel("ministral", "MinistralForCausalLM")
    if architecture == "olmo2" and any(windows):
        return HubModel("olmo3", "Olmo3ForCausalLM")
    if architecture == "granitemoe" and getattr(config, "shared_width", False):
        return HubModel("granitemoeshared", "GraniteMoeSharedForCausalLM")
    if architecture == "deepseek2":
        return HubModel(*deepseek2_kind(config))
    return MODELS[architecture]


def hub_config(checkpoint: Checkpoint, architecture: str, module: ModuleType, config: Config) -> dict[str, Any]:
    """config.json of a GGUF file's model. architecture: by sotol's name; config: as the module read it."""
    model = hub_model(architecture, config)
    gguf = str(checkpoint.metadata["general.architecture"])
    facts = Metadata(checkpoint.metadata, gguf)
    said: dict[str, Any] = {"architectures": [model.class_name], "model_type": model.model_type}
    for key, places in module.KEYS.items():
        value = facts.find(key)
        if value is not None and places and not key.startswith("rope.") and "sliding_window" not in key:
            _put(said, PLACES.get((model.model_type, key), places[0]), _short(value))
    for name, write in OWN.items():
        if (value := getattr(config, name, None)) is not None:
            write(said, module, value)
    weights = {name.removesuffix(".weight"): weight for name, weight in checkpoint.weights.items()}
    said |= _windows(model, module, config)
    own = {LAYER.sub("", name) for name in weights}
    joined = "attn_qkv.bias" in own
    said |= {flag: weight in own or (joined and "attn" in weight) for flag, weight in BIASES.items()}
    otherwise = hub_facts(model.model_type, config, facts, weights)
    if "rope_parameters" not in otherwise:
        _rotation(said, checkpoint, module, config)
    said |= otherwise
    said["num_hidden_layers"] = config.sizes.layers
    said["tie_word_embeddings"] = "output" not in weights
    said["vocab_size"] = weights["token_embd"].shape[-2]
    return said


# ---- facts that the architectures' configs have


def _experts(said: dict[str, Any], _: ModuleType, experts: Any) -> None:
    said["norm_topk_prob"] = experts.normalised


def _scale(said: dict[str, Any], module: ModuleType, scale: float) -> None:
    if "attention.query_scale" in module.KEYS:
        said["query_pre_attn_scalar"] = _whole(round(scale**-2, 6))


def _caps(place: str) -> Callable[[dict[str, Any], ModuleType, Any], None]:
    def write(said: dict[str, Any], module: ModuleType, cap: float) -> None:
        if place in module.KEYS:
            said[place] = cap or None

    return write


def _sizes(said: dict[str, Any], _: ModuleType, sizes: Any) -> None:
    said["head_dim"] = sizes.head_width


def _rotates(said: dict[str, Any], module: ModuleType, rotates: Any) -> None:
    if "rope.layers" in module.KEYS:
        said["no_rope_layers"] = [int(flag) for flag in rotates]


# A field of an architecture's config -> what it says in config.json.
OWN: Mapping[str, Callable[[dict[str, Any], ModuleType, Any], None]] = {
    "sizes": _sizes,
    "experts": _experts,
    "scale": _scale,
    "attention_cap": _caps("attn_logit_softcapping"),
    "logit_cap": _caps("final_logit_softcapping"),
    "rotates": _rotates,
}


def _windows(model: HubModel, module: ModuleType, config: Config) -> dict[str, Any]:
    """The window, and which layers have it."""
    windows: tuple[int, ...] = getattr(config, "windows", ())
    if "attention.sliding_window" not in module.KEYS:
        return {}
    said: dict[str, Any] = {"sliding_window": max(windows, default=0) or None}
    if model.model_type not in ONE_WINDOW:
        said["layer_types"] = [KINDS[0] if window else KINDS[1] for window in windows]
    return said


# ---- rotary positions


def _rotation(said: dict[str, Any], checkpoint: Checkpoint, module: ModuleType, config: Config) -> None:
    """Write rope_parameters: of all layers, or of those of each kind where their bases may differ."""
    rope: Rope | None = getattr(config, "rope", None)
    if rope is None:
        return
    whole = _parameters(checkpoint, rope)
    if (growth := getattr(config, "growth", 0.0)) and isinstance(growth, float):
        whole["llama_4_scaling_beta"] = _short(growth)
    if "rope.partial_rotary_factor" in module.KEYS:
        share = 2 * rope.pairs / config.sizes.head_width
        whole |= {"partial_rotary_factor": share}
        said[PARTIAL[1]] = share
    local: Rope | None = getattr(config, "local_rope", None)
    if local is None or said["model_type"] == "olmo2":  # which has no layers of the other kind
        said["rope_parameters"] = whole
    else:
        said["rope_parameters"] = {KINDS[1]: whole, KINDS[0]: _parameters(checkpoint, local)}
    if rope.scaling == "longrope":
        said["original_max_position_embeddings"] = rope.original_context


def _parameters(checkpoint: Checkpoint, rope: Rope) -> dict[str, Any]:
    """A rotation as transformers describes it."""
    said: dict[str, Any] = {"rope_theta": rope.base, "rope_type": "default"}
    if rope.scaling == "yarn":
        said |= {
            "rope_type": "yarn",
            "factor": rope.factor,
            "original_max_position_embeddings": rope.original_context,
            "attention_factor": rope.attention_factor,
            "beta_fast": rope.fast,
            "beta_slow": rope.slow,
            "truncate": rope.rounded,
        }
    elif rope.scaling == "longrope":
        short, long = (_numbers(checkpoint, f"rope_factors_{kind}.weight") for kind in ("short", "long"))
        said |= {
            "rope_type": "longrope",
            "short_factor": short,
            "long_factor": long,
            "factor": rope.factor,
            "attention_factor": rope.attention_factor,
            "original_max_position_embeddings": rope.original_context,
        }
    elif rope.factor != 1:
        said |= {"rope_type": "linear", "factor": rope.factor}
    elif "rope_freqs.weight" in checkpoint.weights:
        said |= _llama3(checkpoint, rope)
    return said


def _llama3(checkpoint: Checkpoint, rope: Rope) -> dict[str, Any]:
    """The numbers from which Llama 3's divisors of frequencies come, which is all that a GGUF file has of them.

    All models have the same bounds of what is long and short; the factor is the largest divisor, and the context that
    was stretched a power of two. ModelError where none gives the file's divisors.
    """
    divisors = np.array(_numbers(checkpoint, "rope_freqs.weight"))
    if np.array_equal(divisors, np.ones_like(divisors)):
        return {}
    for origin in ORIGINS:
        guess = rope._replace(
            scaling="llama3", factor=float(divisors.max()), original_context=origin, long=1.0, short=4.0
        )
        if np.allclose(guess.divisors(), divisors, rtol=1e-6):
            return {
                "rope_type": "llama3",
                "factor": guess.factor,
                "low_freq_factor": guess.long,
                "high_freq_factor": guess.short,
                "original_max_position_embeddings": origin,
            }
    raise ModelError(f"{checkpoint.path}: rope_freqs has divisors that config.json has no description for")


def _numbers(checkpoint: Checkpoint, name: str) -> list[float]:
    if name not in checkpoint.weights:
        raise ModelError(f"{checkpoint.path}: weight {name} is missing")
    return [_short(value) for value in in_memory(checkpoint.weights[name]).decode().tolist()]


# ---- values


def _put(said: dict[str, Any], place: str, value: object) -> None:
    """Write a value to a place such as "rope_parameters.factor"."""
    *objects, last = place.split(".")
    for name in objects:
        said = said.setdefault(name, {})
    said[last] = value


def _whole(value: float) -> float:
    """The number as an int where it is one: transformers asks for that in places."""
    return int(value) if value == int(value) else value


def _short(value: Any) -> Any:
    """A number of GGUF's as people write it: the shortest decimal that is the same float32; one for equal layers."""
    if isinstance(value, list) and value and all(item == value[0] for item in value):
        value = value[0]
    if isinstance(value, float):
        if not np.isfinite(value):
            raise ModelError(f"the file's metadata have the number {plain(value)}, which config.json can't have")
        return float(str(np.float32(value)))
    return value
