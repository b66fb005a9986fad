"""A checkpoint with Hugging Face's names as one with GGUF's: the same numbers under the names of llama.cpp's converter.

The tables of the architectures say it: `KEYS` what each fact of config.json is called, `WEIGHTS` each weight, with the
change that its numbers need. Here is what GGUF says in another way than either, after llama.cpp's conversion/*.py, and
in `gguf_otherwise.py` what it says so of single architectures.
Whether a file can say all of it is `same_programs.py`'s question.
"""

import math
import re
from collections.abc import Mapping, Sequence
from types import ModuleType

import numpy as np

from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint, Weight
from sotol.models import ARCHITECTURES, architecture_of
from sotol.models.binding.bind import Config, Table, bind, renamed
from sotol.models.binding.metadata import Metadata
from sotol.models.parts.experts import Experts
from sotol.models.parts.rope import Rope
from sotol.tools.gguf_otherwise import gguf_facts, gguf_weights

__all__ = ["full_name", "known_architecture", "with_gguf_names", "without_factors"]

# Architectures of sotol's that GGUF calls otherwise.
NAMES = {"mixtral": "llama"}
# Weights that a layer's file has as one where Hugging Face's checkpoints do, too: the last part that has a name of
# theirs -> the part that has none then, and what GGUF calls the whole.
JOINED = {"attn_q": ("attn_k", "attn_qkv"), "ffn_up": ("ffn_gate", "ffn_up")}
# Facts of config.json that GGUF has no key for: weights have the divisors, the base of RoPE is stretched already, the
# number of layers says the scale of queries, a count of channels what share of a head rotates, and counts of zero what
# kind a layer is of. Or released models all have the same.
NOT_IN_GGUF = (
    "attention.query_scale", "rope.layers", "rope.partial_rotary_factor", "rope.scaling.yarn_mscale",
    "rope.scaling.truncate", "rope.scaling.low_freq_factor", "rope.scaling.high_freq_factor",
    "rope.scaling.short_factor", "rope.scaling.long_factor", "rope.scaling.alpha", "rope.kind", "layer_kinds",
    "layers_with_attention", "last_layer", "mlp_layer_types", "moe_layers", "chunked_layers", "model_type",
    "topk_method", "shared_experts", "has_experts", "attention.nope_length", "attention.normalised",
    "global_kv_heads", "keys_are_values", "layer_sizes", "double_width", "width_is_adjusted", "width_factor",
    "width_multiple", "ssm.value_size", "ssm.normalised", "ssm.norm_first",
)  # fmt: skip
FACTOR = "factor."  # begins keys of what GGUF's weights are multiplied with already
SIGMOID = 2  # expert_gating_func of experts whose scores are sigmoids
# Keys that GGUF has as float32, even where config.json has a whole number.
FLOATS = (
    "_epsilon", "freq_base", "freq_base_swa", ".factor", "_factor", ".scale", "_scale", "_softcapping", "_beta_fast",
    "_beta_slow", "_log_multiplier",
)  # fmt: skip
# Ends of names behind which there is no .weight.
BARE = ("bias", "scale", "ssm_a", "ssm_d")
BARE_TOO = {"falcon-h1": (".ffn_norm",)}  # of single architectures
LAYER = re.compile(r"\bblk\.(\d+)\.")


def known_architecture(checkpoint: Checkpoint) -> tuple[str, ModuleType]:
    """The architecture of a checkpoint by sotol's name, and its module; ModelError if sotol does not have it."""
    name = architecture_of(checkpoint.metadata)
    if name is None or name not in ARCHITECTURES:
        said = checkpoint.metadata.get("model_type", name)
        raise ModelError(f"{checkpoint.path}: architecture {said!r:.60} is not one that sotol knows")
    return name, ARCHITECTURES[name]


def with_gguf_names(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint of a folder as a GGUF file has it, without its tokenizer. Weights are read when asked for.

    ModelError for what sotol could not run from the folder, either.
    """
    name, module = known_architecture(checkpoint)
    facts = Metadata(checkpoint.metadata, name, module.KEYS)
    config: Config = module.Config.read(facts, renamed(checkpoint, module.WEIGHTS))
    bound = gguf_weights(name, config, _weights(checkpoint, module.WEIGHTS, config))
    bare = BARE_TOO.get(name, ())
    weights = {own if own.endswith(bare) else full_name(own): weight for own, weight in bound.items()}
    gguf = _gguf_name(name, checkpoint, config)
    rope: Rope | None = getattr(config, "rope", None)  # some architectures do not rotate
    known = (key for key in module.KEYS if key not in NOT_IN_GGUF and not key.startswith(FACTOR))
    said = {key: value for key in known if (value := facts.find(key)) is not None}
    said |= _rotation(said, rope, facts.find("rope.scaling.yarn_mscale")) | _sizes(config) | _windows(said, config)
    said |= _experts(said, config)
    said["block_count"] = config.sizes.layers
    said["vocab_size"] = weights["token_embd.weight"].shape[0]
    if rope is not None:
        weights |= _divisors(rope)
    said |= gguf_facts(name, config, facts) | _sections(checkpoint.metadata)
    metadata: dict[str, object] = {"general.architecture": gguf, "general.type": "model"}
    metadata |= {f"{gguf}.{key}": _typed(key, value) for key, value in said.items() if value is not None}
    ordered = dict(sorted(weights.items(), key=lambda item: _place(item[0])))
    return checkpoint._replace(metadata=metadata, weights=ordered, types={})


def without_factors(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint of a folder without the facts that a GGUF file's weights are multiplied with: as if all were 1."""
    _, module = known_architecture(checkpoint)
    places = {place for key, found in module.KEYS.items() if key.startswith(FACTOR) for place in found}
    return checkpoint._replace(metadata={key: x for key, x in checkpoint.metadata.items() if key not in places})


def full_name(name: str) -> str:
    """A name of an architecture's table as files have it: biases and scales end so, nearly all others in .weight."""
    return name if name.rpartition(".")[2] in BARE else f"{name}.weight"


def _gguf_name(name: str, checkpoint: Checkpoint, config: Config) -> str:
    """GGUF's name of the architecture. A Mistral without windows is a Llama there, which older programs know, too; and
    a Nemotron-H with experts has a name of its own.
    """
    if name == "nemotron_h" and getattr(config, "experts", None) is not None:
        return "nemotron_h_moe"
    if checkpoint.metadata.get("model_type") == "mistral" and not any(getattr(config, "windows", ())):
        return "llama"
    return NAMES.get(name, name)


def _weights(checkpoint: Checkpoint, table: Table, config: Config) -> dict[str, Weight]:
    """The weights by the names of the table, those together that Hugging Face's checkpoint has together."""
    weights = dict(bind(checkpoint, table, config))
    whole = renamed(checkpoint, table).weights
    for part, (lacking, joined) in JOINED.items():
        own, other = (table.get(f"blk.{{}}.{one}") for one in (part, lacking))
        if own is None or other is None or not own.hf or other.hf:
            continue
        for layer in range(config.sizes.layers):
            for one in (part, lacking, "attn_v") if part == "attn_q" else (part, lacking):
                weights.pop(f"blk.{layer}.{one}", None)
            weights[f"blk.{layer}.{joined}"] = whole[f"blk.{layer}.{part}"]
    return weights


def _rotation(said: Mapping[str, object], rope: Rope | None, mscale: object) -> dict[str, object]:
    """What GGUF says of RoPE; None for what it does not. mscale: of YaRN, which GGUF takes to be 1."""
    if rope is None:
        return {}
    keys: dict[str, object] = {key: None for key in said if key.startswith("rope.scaling.")}
    keys |= {"rope.freq_base": rope.base, "rope.dimension_count": 2 * rope.pairs}
    if rope.scaling == "linear" and rope.factor != 1:
        keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": rope.factor}
    elif rope.scaling == "yarn":
        keys |= {key: value for key, value in said.items() if key.startswith("rope.scaling.yarn_beta")}
        keys |= {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": rope.factor,
            "rope.scaling.original_context_length": rope.original_context,
        }
        if mscale == 1 and "rope.scaling.yarn_attn_factor" not in said:
            keys["rope.scaling.yarn_log_multiplier"] = said.get("rope.scaling.yarn_log_multiplier")
        elif rope.attention_factor != 1 + 0.1 * math.log(max(rope.factor, 1.0)):
            keys["rope.scaling.yarn_attn_factor"] = rope.attention_factor
    elif rope.scaling == "longrope":
        keys |= {
            "rope.scaling.type": "longrope",
            "rope.scaling.original_context_length": rope.original_context,
            "rope.scaling.attn_factor": rope.attention_factor,
        }
    return keys


def _sections(config: Mapping[str, object]) -> dict[str, object]:
    """How many pairs rotate by time, height and width, in models that see; GGUF has four numbers."""
    for place in ("rope_parameters", "rope_scaling"):
        said = config.get(place)
        sections = said.get("mrope_section") if isinstance(said, Mapping) else None
        if isinstance(sections, list):
            return {"rope.dimension_sections": [*sections, 0][:4]}
    return {}


def _divisors(rope: Rope) -> dict[str, Weight]:
    """The weights that GGUF has in place of numbers of config.json's: divisors of RoPE's frequencies."""
    found = dict[str, Weight]()
    if rope.scaling == "llama3":
        found["rope_freqs.weight"] = _vector("rope_freqs.weight", rope.divisors())
    if rope.scaling == "longrope":
        found["rope_factors_long.weight"] = _vector("rope_factors_long.weight", rope.long_factors)
        found["rope_factors_short.weight"] = _vector("rope_factors_short.weight", rope.short_factors)
    return found


def _vector(name: str, values: object) -> Weight:
    return Weight.from_values(name, np.asarray(values, np.float32), "F32")


def _sizes(config: Config) -> dict[str, object]:
    """Counts and widths, which config.json may leave to be computed: one for all layers, or each layer's."""
    sizes = config.sizes
    return {
        "attention.key_length": sizes.head_width,
        "attention.value_length": sizes.head_width,
        "attention.head_count_kv": _one_or_all(sizes.kv_heads),
        "feed_forward_length": _one_or_all(sizes.ffn_width),
    }


def _one_or_all(counts: Sequence[int]) -> object:
    return counts[0] if len(set(counts)) == 1 else list(counts)


def _experts(said: Mapping[str, object], config: Config) -> dict[str, object]:
    """What config.json leaves to be known of experts, and nothing of them where no layer has any; of numbers of each
    layer, the one: GGUF has no more.
    """
    own = {key: value for key, value in said.items() if key.startswith("expert_")}
    experts: Experts | None = getattr(config, "experts", None)
    if experts is None:
        return dict.fromkeys(own)
    one = {key: value[0] for key, value in own.items() if isinstance(value, list) and len(set(value)) == 1}
    scores: dict[str, object] = {"expert_gating_func": SIGMOID} if experts.scores == "sigmoid" else {}
    return {**one, **scores, "expert_weights_norm": experts.normalised}


def _windows(said: Mapping[str, object], config: Config) -> dict[str, object]:
    """Which layers have a window, as truth values: config.json may have names, or a period."""
    windows: tuple[int, ...] = getattr(config, "windows", ())
    if "attention.sliding_window_pattern" not in said or not any(windows):
        return {"attention.sliding_window_pattern": None}
    return {"attention.sliding_window_pattern": [window > 0 for window in windows]}


def _typed(key: str, value: object) -> object:
    """A value in GGUF's type; ints and texts, and lists of one kind, have it already."""
    return float(np.float32(value)) if key.endswith(FLOATS) and isinstance(value, int | float) else value


def _place(name: str) -> tuple[int, int]:
    """Where a weight stands in a file: embeddings, the layers in order, what comes after them."""
    if (layer := LAYER.search(name)) is not None:
        return 1, int(layer[1])
    return (2 if name.startswith("output") else 0), 0
