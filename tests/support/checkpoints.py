"""Small checkpoints of every architecture with random weights, without any file or other library."""

import math
import random
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from sotol.formats.weights import Checkpoint, Weight
from sotol.models import ARCHITECTURES, MODEL_TYPES
from sotol.models.binding.bind import letters_of
from sotol.models.binding.metadata import Metadata
from sotol.quant import ENCODINGS, Float32Array

__all__ = [
    "DEFAULTS",
    "NEEDED",
    "RUNNABLE",
    "full_name",
    "fused",
    "has_states",
    "home_of",
    "is_matrix",
    "joined_gates",
    "kinds_of_layers",
    "mixed_encodings",
    "model_type_of",
    "odd_states",
    "optional_names",
    "random_checkpoint",
    "wide_sizes",
    "with_weights",
]

DEFAULTS: dict[str, object] = {
    "block_count": 2,
    "context_length": 64,
    "embedding_length": 32,
    "feed_forward_length": 64,
    "attention.head_count": 2,
    "attention.head_count_kv": 1,
    "attention.layer_norm_rms_epsilon": 1e-6,
    "rope.freq_base": 10000.0,
}
EXPERTS: dict[str, object] = {"expert_count": 5, "expert_used_count": 2, "expert_feed_forward_length": 32}
DELTA_NET: dict[str, object] = {
    "ssm.conv_kernel": 4, "ssm.state_size": 8, "ssm.group_count": 2, "ssm.time_step_rank": 4, "ssm.inner_size": 64,
    "full_attention_interval": 2,
}  # fmt: skip
MAMBA2: dict[str, object] = {
    "ssm.conv_kernel": 4, "ssm.state_size": 6, "ssm.group_count": 2, "ssm.time_step_rank": 4, "ssm.inner_size": 64,
}  # fmt: skip
NEMOTRON_H: dict[str, object] = {
    **MAMBA2, "block_count": 4, "attention.head_count_kv": [0, 1, 0, 0], "feed_forward_length": [0, 0, 64, 0],
}  # fmt: skip
LATER_EXPERTS = {**EXPERTS, "leading_dense_block_count": 1, "expert_shared_count": 2}
# What architectures need besides, or instead.
NEEDED: dict[str, dict[str, object]] = {
    "cohere2": {"attention.layer_norm_epsilon": 1e-5, "attention.sliding_window": 9, "logit_scale": 0.25},
    "command-r": {"attention.layer_norm_epsilon": 1e-5, "logit_scale": 0.25},
    **{name: {"attention.layer_norm_epsilon": 1e-5} for name in ("nemotron", "stablelm", "starcoder2")},
    "deepseek2": {
        **LATER_EXPERTS,
        "attention.q_lora_rank": 32,
        "attention.kv_lora_rank": 32,
        "attention.key_length_mla": 32,
        "attention.value_length_mla": 16,
        "rope.dimension_count": 8,
        "expert_gating_func": 2,
    },
    **dict.fromkeys(("deepseek", "dots1", "ernie4_5-moe", "glm4moe"), LATER_EXPERTS),
    "gemma4": {
        **EXPERTS,
        "block_count": 4,
        "attention.sliding_window_pattern": [False, True, True, False] * 3,
        "attention.sliding_window": 5,
        "attention.shared_kv_layers": 2,
        "attention.key_length": 32,
        "attention.key_length_swa": 16,
        "embedding_length_per_layer_input": 32,
    },
    "gpt-oss": {**EXPERTS, "attention.sliding_window": 5},
    "llama4": {**EXPERTS, "expert_used_count": 3, "interleave_moe_layer_step": 2, "attention.sliding_window": 7},
    "hunyuan-moe": {**EXPERTS, "expert_shared_feed_forward_length": 64},
    **dict.fromkeys(("minimax-m2", "mixtral", "olmoe", "qwen3moe"), EXPERTS),
    "qwen2moe": {**EXPERTS, "expert_shared_feed_forward_length": 64},
    "qwen35": DELTA_NET,
    "qwen35moe": {**DELTA_NET, **EXPERTS, "expert_shared_feed_forward_length": 64},
}
NEEDED |= {
    "falcon-h1": MAMBA2,
    "granitehybrid": {
        **MAMBA2, **EXPERTS, "attention.head_count_kv": [0, 1], "expert_shared_feed_forward_length": 64,
        "residual_scale": 0.5,
    },
    "granitemoe": {**EXPERTS, "attention.scale": 0.3, "logit_scale": 3.0},
    "qwen3next": NEEDED["qwen35moe"],
    "lfm2": {"shortconv.l_cache": 3, "attention.head_count_kv": [0, 1]},
    "lfm2moe": {
        **EXPERTS, "shortconv.l_cache": 3, "attention.head_count_kv": [0, 1], "leading_dense_block_count": 1,
    },
    "nemotron_h": NEMOTRON_H,
    "nemotron_h_moe": {
        **NEMOTRON_H, **EXPERTS, "expert_shared_feed_forward_length": 64, "moe_latent_size": 32,
        "expert_weights_scale": 1.5,
    },
}  # fmt: skip
VOCABULARY = 48
RUNNABLE = [name for name, encoding in ENCODINGS.items() if encoding.encode]  # each of them has kernels
OTHERWISE = {"qwen3next": {"blk.{}.ssm_in"}}  # the same weights once more, in an older form
# Ends of names, GGUF's and Hugging Face's, behind which there is no .weight.
WITHOUT_SUFFIX = {"bias", "scale", "ssm_a", "ssm_d", "A_log", "D", "dt_bias", "e_score_correction_bias", "expert_bias"}
PROJECTIONS = {"blk.{}.attn_q.bias", "blk.{}.attn_k.bias", "blk.{}.attn_v.bias"}
NORMS = {"output_norm.bias", "blk.{}.attn_norm.bias", "blk.{}.ffn_norm.bias"}
STEPS = {"blk.{}.ssm_dt.bias"}
# Weights one form of which is in files: the first, or in `optional` ones the second.
FORMS = {"deepseek2": ("attn_[kv]_b|attn_q_(a|b|a_norm)", "attn_kv_b|attn_q_(a|b|a_norm|a.bias)")}
ALL_FORMS = {"deepseek2": "attn_[kv]_b|attn_kv_b|attn_q|attn_q_(a|b|a_norm|a.bias)"}
# Sizes of others with which rows are whole blocks of every encoding.
WIDE: dict[str, dict[str, int]] = {
    "deepseek2": {
        "attention.q_lora_rank": 256, "attention.kv_lora_rank": 256, "attention.key_length_mla": 256 + 16,
        "attention.value_length_mla": 128, "rope.dimension_count": 16,
    },
    "gemma4": {
        "attention.key_length_swa": 128, "attention.key_length": 256, "embedding_length_per_layer_input": 256,
    },
}  # fmt: skip
BIASED = {  # that may not be missing
    **{name: STEPS for name, needed in NEEDED.items() if "ssm.time_step_rank" in needed},
    **dict.fromkeys(("qwen2", "qwen2moe", "qwen2vl"), PROJECTIONS),
    **dict.fromkeys(("nemotron", "stablelm", "starcoder2"), NORMS),
}


def optional_names(architecture: str) -> frozenset[str]:
    """Names of an architecture's table that a checkpoint may lack."""
    table = ARCHITECTURES[architecture].WEIGHTS
    names = {name for name in table if name in ("output", "blk.{}.layer_output_scale", "blk.{}.attn_kv_b")}
    names |= {name for name in table if name.startswith("rope_") or name.endswith(".bias")}
    if architecture == "falcon-h1":
        names.add("blk.{}.ssm_norm")
    if architecture == "glm4moe":
        names |= {"blk.{}.attn_q_norm", "blk.{}.attn_k_norm"}
    return frozenset(names - BIASED.get(architecture, set()))


def _is_there(architecture: str, name: str, *, optional: bool) -> bool:
    """Whether a file has the weights of this name of the table, in layers of a kind that can have it."""
    own, forms = name.removeprefix("blk.{}."), FORMS.get(architecture)
    if name in OTHERWISE.get(architecture, ()) or (not optional and name in optional_names(architecture)):
        return False
    return not forms or not re.fullmatch(ALL_FORMS[architecture], own) or bool(re.fullmatch(forms[optional], own))


def full_name(name: str) -> str:
    """A name of an architecture's table as files have it: biases and scales end so, nearly all others in .weight."""
    return name if name.rpartition(".")[2] in WITHOUT_SUFFIX else name + ".weight"


@cache
def home_of(architecture: str, name: str, *, optional: bool) -> str | None:
    """A name of the table with a layer of `random_checkpoint` that has this weight: the second one, if it has it."""
    weights = random_checkpoint(architecture, optional=optional).weights
    names = (name.format(i) for i in (1, 0, 2, 3))
    return next((x for x in names if full_name(x) in weights), None)


def model_type_of(architecture: str) -> str:
    """What config.json calls an architecture: two that have a module in common may have a name in common."""
    module = ARCHITECTURES[architecture]
    kinds = (kind for kind, known in MODEL_TYPES.items() if ARCHITECTURES[known] is module)
    return min(kinds, key=lambda kind: MODEL_TYPES[kind] != architecture)


def random_checkpoint(
    architecture: str, metadata: Mapping[str, object] | None = None, *, optional: bool = False, seed: int = 0
) -> Checkpoint:
    """A checkpoint of `DEFAULTS` and `NEEDED` changed by `metadata`, F32, with the optional weights or without.

    Keys are without the architecture's prefix; a value of None takes a key out.
    """
    fields = {
        key: value
        for key, value in {**DEFAULTS, **NEEDED.get(architecture, {}), **(metadata or {})}.items()
        if value is not None
    }
    if architecture == "gemma4" and "attention.shared_kv_layers" not in (metadata or {}):
        fields["attention.shared_kv_layers"] = min(2, max(0, _number(fields, "block_count") - 2))
    all_fields = {"general.architecture": architecture, **{f"{architecture}.{k}": v for k, v in fields.items()}}
    letters_in, weights = _letters_of(architecture, fields, all_fields), list[Weight]()
    for name, (_, shape, _) in ARCHITECTURES[architecture].WEIGHTS.items():
        if not _is_there(architecture, name, optional=optional):
            continue
        for i in range(_number(fields, "block_count")) if "{}" in name else (None,):
            letters = letters_in(i)
            if not set(re.findall(r"\w", shape)) <= letters.keys():
                continue  # the layer has no such weight
            sizes = tuple(math.prod(letters[letter] for letter in side.split("*")) for side in shape.split())
            rng = np.random.default_rng([seed, zlib.crc32(name.format(i).encode())])  # whatever else there is
            values = rng.normal(size=sizes) * 1.5 / math.sqrt(sizes[-1]) if len(sizes) > 1 else rng.uniform(
                0.5, 1.5, sizes
            )  # fmt: skip
            if name.endswith("ssm_a"):
                values *= -0.1  # states last for some tokens
            if (architecture, name) == ("gemma4", "rope_freqs"):
                values = np.where(np.arange(len(values)) < max(1, len(values) // 4), 1, 1e30)
            weights.append(Weight.from_values(full_name(name.format(i)), values.astype(np.float32), "F32"))
    return Checkpoint(Path("random.gguf"), all_fields, {weight.name: weight for weight in weights})


def mixed_encodings(checkpoint: Checkpoint, first: int = 0) -> Checkpoint:
    """The checkpoint with its matrices in all `RUNNABLE` encodings in turn, from one of them on.

    Rows must be multiples of 256 numbers.
    """
    matrices = [weight for weight in checkpoint.weights.values() if is_matrix(weight)]
    changed = {
        w.name: Weight.from_values(w.name, w.decode(), RUNNABLE[(first + i) % len(RUNNABLE)])
        for i, w in enumerate(matrices)
    }
    return checkpoint._replace(weights={**checkpoint.weights, **changed})


def wide_sizes(architecture: str) -> dict[str, object]:
    """What makes the rows of matrices multiples of 256, for `mixed_encodings`, where layers have sizes of their own."""
    if not has_states(architecture):
        return dict(WIDE.get(architecture, {}))
    kinds = kinds_of_layers(architecture)
    if isinstance(widths := kinds.get("feed_forward_length"), list):
        kinds["feed_forward_length"] = [256 if n else 0 for n in widths]
    return {"ssm.inner_size": 256, "moe_latent_size": 256, **kinds}


def has_states(architecture: str) -> bool:
    """Whether some layers are recurrent, or convolutions."""
    return any(key.startswith(("ssm.", "shortconv.")) for key in NEEDED.get(architecture, {}))


def kinds_of_layers(architecture: str) -> dict[str, object]:
    """What of NEEDED says by numbers of each layer what the layers are, and how many there are; nothing, mostly."""
    needed = NEEDED.get(architecture, {})
    kinds: dict[str, object] = {key: value for key, value in needed.items() if isinstance(value, list)}
    return {**kinds, "block_count": needed.get("block_count", 2)} if kinds else kinds


def odd_states(rng: random.Random, architecture: str) -> dict[str, object]:
    """Sizes of recurrent layers of any kind; and what of NEEDED says which layers are so."""
    groups = rng.choice([1, 2, 3])
    heads = groups * rng.choice([1, 2, 3])
    return {
        "ssm.conv_kernel": rng.randint(2, 8), "ssm.state_size": rng.choice([1, 6, 16, 31]), "ssm.group_count": groups,
        "ssm.time_step_rank": heads, "ssm.inner_size": heads * rng.choice([1, 5, 16, 33]),
        "shortconv.l_cache": rng.randint(2, 8), "block_count": 2, **kinds_of_layers(architecture),
    }  # fmt: skip


def is_matrix(weight: Weight) -> bool:
    """Whether files have it encoded: matrices, and those of experts. Norms, biases, convolutions they have in F32."""
    return len(weight.shape) > 1 and not weight.name.endswith((".bias", "conv1d.weight", "conv.weight"))


def fused(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with the rows of each layer's queries, keys and values in one weight, as some files have them."""
    return _joined(checkpoint, ("attn_q", "attn_k", "attn_v"), "attn_qkv")


def joined_gates(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with the rows of each layer's gate before those of its up-projection, as some files have them."""
    return _joined(checkpoint, ("ffn_gate", "ffn_up"), "ffn_up")


def _joined(checkpoint: Checkpoint, names: Sequence[str], to: str) -> Checkpoint:
    """The checkpoint with the rows of several weights of each layer in one."""
    weights = dict(checkpoint.weights)
    for name in checkpoint.weights:
        if f".{names[0]}." in name:
            parts = [weights.pop(name.replace(names[0], part)) for part in names]
            shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
            data = np.concatenate([part.rows().reshape(-1) for part in parts])
            whole = Weight.from_bytes(name.replace(names[0], to), parts[0].encoding, shape, data)
            weights[whole.name] = whole
    return checkpoint._replace(weights=weights)


def with_weights(checkpoint: Checkpoint, changes: Mapping[str, Float32Array | None]) -> Checkpoint:
    """The checkpoint with some weights replaced or added, or (None) taken out."""
    weights = {name: weight for name, weight in checkpoint.weights.items() if name not in changes}
    for name, values in changes.items():
        if values is not None:
            weights[name] = Weight.from_values(name, values, "F32")
    return Checkpoint(checkpoint.path, checkpoint.metadata, weights)


def _letters_of(
    architecture: str, fields: Mapping[str, object], all_fields: Mapping[str, object]
) -> Callable[[int | None], Mapping[str, int]]:  # fmt: skip
    """The letters' sizes in a layer, or (None) outside of all: what the architecture's own config says.

    Of models whose layers have a feed-forward network or experts, only those of what a layer has.
    """
    width = _number(fields, "embedding_length")
    embedding = Weight.from_values("token_embd", np.zeros((VOCABULARY, width), np.float32), "F32")
    weights = {"token_embd": embedding, **{f"blk.{i}": embedding for i in range(_number(fields, "block_count"))}}
    checkpoint = Checkpoint(Path("random.gguf"), all_fields, weights)
    config = ARCHITECTURES[architecture].Config.read(Metadata(all_fields, architecture), checkpoint)
    letters, mixed = letters_of(config), getattr(config, "mixed", None)

    def own(layer: int | None) -> Mapping[str, int]:
        left_out = () if layer is None or mixed is None else ("F", "U") if mixed[layer] else ("E", "f", "s")
        return {letter: size for letter, size in letters(layer).items() if letter not in left_out}

    return own


def _number(fields: Mapping[str, object], key: str, default: int = 0) -> int:
    value = fields.get(key, default)
    assert isinstance(value, int)
    return value
