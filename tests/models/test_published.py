"""Folders as publishers write them, of architectures and schemes that meet in the wild: each runs as its numbers say.

What is special is where a scheme touches an architecture: heads that move, experts in one tensor, layers that are left
out, names that a tool gives.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from tests.support.float_codes import e4m3
from tests.support.folders import Typed
from tests.support.published import Tensors, linear, published, same_everywhere
from tests.support.quantised import FP8, SCHEMES, gemma, gptq
from tests.support.quantised_floats import fp8_rows, fp8_tensor
from tests.support.quantised_parts import Made

from sotol.formats import read_model
from sotol.models import trace_model
from sotol.program.fuse import quantize_inputs
from sotol.quant import Float32Array

# Heads of values of 16 and 64 channels, where 128 x 128 numbers share a factor.
NARROW_HEADS: Mapping[str, object] = {"ssm.inner_size": 64}
HALF_BLOCKS: Mapping[str, object] = {"ssm.inner_size": 256}


@pytest.mark.parametrize("architecture", ["qwen35", "qwen35moe", "qwen3next"])
@pytest.mark.parametrize("fields", [NARROW_HEADS, HALF_BLOCKS])
def test_heads_that_are_no_whole_blocks(architecture: str, fields: Mapping[str, object], tmp_path: Path) -> None:
    """Qwen 3.5 and Qwen3-Next in FP8: what goes into out_proj is put into the order of its columns, bits stay."""
    pair = published(
        tmp_path, architecture, linear(SCHEMES["fp8 of blocks"].make),
        {"quantization_config": {**FP8, "weight_block_size": [128, 128]}}, fields=fields,
    )  # fmt: skip
    program = trace_model(read_model(pair.own), 32)
    if architecture != "qwen3next":  # which has heads in groups of keys, as its files do
        assert [node.op.name for node in quantize_inputs(program).nodes].count("reorder") == 1
    weights: dict[str, Any] = {weight.name: weight for weight in trace_model(read_model(pair.own), 32).weights()}
    (out,) = (weight for name, weight in weights.items() if "out_proj" in name)
    assert out.encoding.integer is not None
    same_everywhere(pair)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("architecture", ["qwen3moe", "mixtral"])
def test_experts_of_an_order_of_their_own(architecture: str, together: bool, tmp_path: Path) -> None:
    """GPTQ's act-order of a mixture: activations are put into the order of each expert that a token takes.

    together: gate and up of an expert have the same one, as GPTQ gives them, since what goes into them is the same.
    """

    def make(rng: np.random.Generator, name: str, values: Float32Array) -> Made | None:
        if ".experts." not in name:
            return None
        _, _, expert, part, _ = name.rsplit(".", 4)
        other = 0 if together or part not in ("up_proj", "w3") else 1000
        return gptq(4, 32, shuffled=True, seed=100 * int(expert) + other).make(rng, *values.shape)

    pair = published(
        tmp_path, architecture, make, {"quantization_config": SCHEMES["gptq with act-order"].config},
        fields={"embedding_length": 64, "expert_feed_forward_length": 64},
    )  # fmt: skip
    names = [node.op.name for node in quantize_inputs(trace_model(read_model(pair.own), 32)).nodes]
    assert names.count("reorder_choices") == 2 * (2 if together else 3)
    same_everywhere(pair)


# ---- what several publishers do at once: names of a repository of several models, files of their own, parts left out

Config = dict[str, Any]
ROWS, BLOCKS = SCHEMES["fp8 of rows"], SCHEMES["fp8 of blocks"]
NVFP4, FLOATS = SCHEMES["modelopt nvfp4"], SCHEMES["compressed floats"]


def of_several(*prefixes: tuple[str, str]) -> Callable[[Tensors], Tensors]:
    """Names with other beginnings, and a tower for images."""

    def renamed(tensors: Tensors) -> Tensors:
        named = dict(tensors)
        for old, new in prefixes:
            named = {new + name[len(old) :] if name.startswith(old) else name: x for name, x in named.items()}
        return named | {"model.vision_tower.patch_embed.weight": np.ones((4, 4), np.float32)}

    return renamed


def within(kind: str) -> Callable[[Config], Config]:
    """The config as that of the text model of one with several; settings of quantisation stay outside."""

    def nested(config: Config) -> Config:
        text = {key: x for key, x in config.items() if key != "quantization_config"}
        outer = {"model_type": kind, "vision_config": {"hidden_size": 8}}
        return {**outer, "text_config": text, "quantization_config": config["quantization_config"]}

    return nested


def mobile(rng: np.random.Generator, name: str, values: Float32Array) -> Made | None:
    """Gemma 4's for phones: 2 bits for the vocabulary, 4 and 8 for others; embeddings of layers in 4."""
    bits = {"embed_tokens.weight": 2, "embed_tokens_per_layer.weight": 4, "per_layer_input_gate.weight": 8,
            "per_layer_projection.weight": 8}  # fmt: skip
    found = next((count for end, count in bits.items() if name.endswith(end)), 4 if "_proj.weight" in name else None)
    if found is None or values.ndim != 2 or "router" in name:
        return None
    made = gemma(found).make(rng, *values.shape)
    if "embed" not in name:
        return made
    tensors = {".embedding_quantized": made.tensors[".weight"], ".embedding_scale": made.tensors[".weight_scale"]}
    if "per_layer" in name:  # a factor for each layer's part
        factors = rng.uniform(0.01, 0.1, (len(values), 4)).astype(np.float32)
        numbers = made.values / made.tensors[".weight_scale"]
        tensors[".embedding_scale"] = factors
        made = made._replace(values=np.round(numbers) * np.repeat(factors, values.shape[1] // 4, axis=1))
    return made._replace(tensors=tensors)


MOBILE = {
    "quant_method": "gemma", "num_bits": 4, "quantize_embeddings": True, "modules_to_not_convert": ["router"],
    "module_quant_configs": {
        r"language_model\.embed_tokens$": {"num_bits": 2}, r"language_model\.embed_tokens_per_layer$": {"num_bits": 4},
        r"language_model\.layers\.\d+\.per_layer_input_gate$": {"num_bits": 8},
        r"language_model\.layers\.(\d|1[0-4])\.mlp\.": {"num_bits": 4}, "audio_tower": {"num_bits": 8},
    },
}  # fmt: skip


def of_mobile(tensors: Tensors) -> Tensors:
    scales = {f"model.layers.{i}.self_attn.{x}_cache_scale": np.float32(0.1) for i in range(2) for x in "kv"}
    return of_several(("model.", "model.language_model."))(tensors | scales)


def with_cache_scales(tensors: Tensors) -> Tensors:
    scales = {f"{name.removesuffix('_proj.weight')}_proj.{name.rsplit('.', 2)[1][0]}_scale": np.ones(1, np.float32)
              for name in tensors if name.endswith((".k_proj.weight", ".v_proj.weight"))}  # fmt: skip
    return tensors | scales


def with_drafts(tensors: Tensors) -> Tensors:
    """A layer more, quantised as the others, that drafts tokens."""
    made = ROWS.make(np.random.default_rng(3), 64, 32)
    drafts = {f"model.layers.2.mlp.up_proj{suffix}": x for suffix, x in made.tensors.items()}
    return tensors | drafts | {"model.layers.2.eh_proj.weight": np.ones((32, 64), np.float32)}


def mistral(rng: np.random.Generator, n: int, k: int) -> Made:
    """Of 8-bit floats, one factor, in bfloat16; and one for activations, by another name."""
    made = fp8_tensor(rng, n, k)
    bits = (np.ascontiguousarray(made.tensors[".weight_scale"]).view(np.uint32) >> 16).astype(np.uint16)
    factor = (bits.astype(np.uint32) << 16).view(np.float32)
    codes = made.tensors[".weight"]
    tensors = {".weight": codes, ".weight_scale_inv": Typed("BF16", bits), ".activation_scale": np.float32(0.25)}
    return Made(tensors, e4m3(codes.data) * factor)


def granite(rng: np.random.Generator, name: str, values: Float32Array) -> Made | None:
    """FP8 of rows, experts in one tensor [E, outputs, inputs] with factors [E, outputs, 1]."""
    if values.ndim != 3 or "conv" in name:
        return linear(fp8_rows)(rng, name, values)
    each = [fp8_rows(rng, *matrix.shape) for matrix in values]
    codes = Typed("F8_E5M2", np.stack([x.tensors[".weight"].data for x in each]))
    tensors = {".weight": codes, ".weight_scale": np.stack([x.tensors[".weight_scale"] for x in each])}
    return Made(tensors, np.stack([x.values for x in each]))


def split_gpt_oss(both: Callable[[np.random.Generator, int, int], Made]) -> Any:
    """Experts of gpt-oss as linear maps, one by one, as llm-compressor saves them: gate, up and down, with biases."""

    def make(rng: np.random.Generator, name: str, values: Float32Array) -> Made | None:
        part = name.rpartition(".")[2]
        if ".experts." not in name:
            return linear(both, ".*router")(rng, name, values)
        steps = {"gate_proj": (0, 2), "up_proj": (1, 2)} if part.startswith("gate_up") else {"down_proj": (0, 1)}
        tensors, numbers = Tensors(), np.array(values)
        for i, matrix in enumerate(values):
            for word, (first, step) in steps.items():
                own = matrix[..., first::step]
                if part.endswith("bias"):
                    tensors[f".{i}.{word}.bias"] = np.ascontiguousarray(own)
                    continue
                made = both(rng, own.shape[1], own.shape[0])
                numbers[i, :, first::step] = made.values.T
                tensors |= {f".{i}.{word}{suffix}": x for suffix, x in made.tensors.items()}
        return Made(tensors, numbers)

    return make


def unsloth(rng: np.random.Generator, name: str, values: Float32Array) -> Made | None:
    """gpt-oss by Unsloth: a linear map of each expert, gate and up in turns as they are, in NF4."""
    both = SCHEMES["nf4 with nested factors"].make
    if ".experts." not in name:
        return linear(both, ".*router")(rng, name, values)
    tensors, numbers = Tensors(), np.array(values)
    for i, matrix in enumerate(values):
        if name.endswith("bias"):
            tensors[f".{i}.bias"] = matrix
            continue
        made = both(rng, matrix.shape[1], matrix.shape[0])
        numbers[i] = made.values.T
        tensors |= {f".{i}{suffix}": x for suffix, x in made.tensors.items()}
    return Made(tensors, numbers)


def names_of_unsloth(tensors: Tensors) -> Tensors:
    named = {re.sub(r"\.experts\.(gate_up|down)_proj(_bias)?\.", r".experts.\1_projs.", x): tensors[x] for x in tensors}
    return {name.replace(".mlp.router.", ".mlp.router.linear."): x for name, x in named.items()}


def short_names(tensors: Tensors) -> Tensors:
    """Without the tensor that experts were of."""
    return {re.sub(r"\.experts\.(gate_up|down)_proj(_bias)?\.", ".experts.", name): x for name, x in tensors.items()}


WIDE: Mapping[str, object] = {"embedding_length": 64, "expert_feed_forward_length": 64}


class Case(NamedTuple):
    architecture: str
    make: Any
    said: Mapping[str, object]
    more: Callable[[Tensors], Tensors] = dict
    config: Callable[[Config], Config] = dict
    fields: Mapping[str, object] = {}
    seed: int = 21  # of numbers with which no rounding of activations changes a choice of experts


def q(said: Mapping[str, object], key: str = "quantization_config", **more: object) -> Mapping[str, object]:
    return {key: {**said, **more}}


CASES: dict[str, Case] = {
    "google/gemma-4-E2B-it-qat-mobile-transformers": Case(
        "gemma4", mobile, q(MOBILE), of_mobile, within("gemma4"),
    ),
    "google/gemma-4-E2B-it-qat-w4a16-ct": Case(
        "gemma4", linear(SCHEMES["compressed 4 bits"].make, ".*(per_layer_model|router).*"),
        q(SCHEMES["compressed 4 bits"].config, ignore=["lm_head", "re:.*vision_tower.*", "re:.*embed_tokens.*"]),
        of_several(("model.", "model.language_model.")), within("gemma4"), seed=24,
    ),
    "mistralai/Ministral-3-8B-Instruct-2512": Case(
        "mistral3", linear(mistral),
        q(FP8, activation_scheme="static", weight_block_size=None, dequantize=False,
          modules_to_not_convert=["model.vision_tower", "lm_head"]),
        of_several(("model.", "language_model.model.")), within("mistral3"),
    ),
    "nvidia/Nemotron-3-Nano-30B-A3B-FP8": Case(
        "nemotron_h_moe", linear(fp8_tensor, ".*conv.*"),
        q({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_scheme": {"num_bits": 8, "type": "float"},
           "ignore": ["backbone.layers.*.mixer.conv1d", "lm_head"], "producer": {"name": "modelopt"}}),
        with_cache_scales,
    ),
    "nvidia/Nemotron-H NVFP4 beside FP8": Case(
        "nemotron_h", lambda rng, name, x: linear(NVFP4.make if ".up_proj" in name else fp8_tensor)(rng, name, x),
        q({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "exclude_modules": ["lm_head"],
           "quantized_layers": {"a": {"quant_algo": "FP8"}}, "kv_cache_quant_algo": "FP8"}),
    ),
    "zai-org/GLM-4.5-Air-FP8": Case(
        "glm4moe", linear(fp8_rows, ".*gate"),
        q(FLOATS.config, ignore=["lm_head", "re:.*mlp.gate$"], kv_cache_scheme=None, global_compression_ratio=None),
        with_drafts, lambda config: {**config, "num_nextn_predict_layers": 1},
    ),
    "ibm-granite/granite-4.0-h-small-FP8": Case(
        "granitehybrid", granite, q(FLOATS.config, ignore=["lm_head", "re:.*router"]),
    ),
    "LiquidAI/LFM2-8B-A1B by mlx-lm": Case(
        "lfm2moe", linear(SCHEMES["mlx 4 bits of 32"].make, ".*conv.conv"),
        q(SCHEMES["mlx 4 bits of 32"].config, "quantization"),
        lambda tensors: {n.replace(".w1.", ".gate_proj.").replace(".w3.", ".up_proj.").replace(".w2.", ".down_proj."): x
                         for n, x in tensors.items()},
    ),
    "Qwen/Qwen3-30B-A3B-Instruct-2507 by AutoAWQ": Case(
        "qwen3moe", linear(SCHEMES["awq"].make, ".*mlp.gate"),
        q(SCHEMES["awq"].config, modules_to_not_convert=["mlp.gate"]), fields=WIDE,
    ),
    "Qwen/Qwen3-235B-A22B-FP8": Case(
        "qwen3moe", linear(BLOCKS.make),
        q(BLOCKS.config, modules_to_not_convert=["lm_head", "model.layers.0.mlp.gate"]),
    ),
    "Qwen3-VL's text in FP8": Case(
        "qwen3vl", linear(BLOCKS.make), q(BLOCKS.config, modules_to_not_convert=["model.visual"]),
        of_several(("model.", "model.language_model.")), within("qwen3_vl"),
    ),
    "deepseek-ai/DeepSeek-V3.1": Case(
        "deepseek2", linear(BLOCKS.make), q(BLOCKS.config, scale_fmt="ue8m0"),
        with_drafts, lambda config: {**config, "num_nextn_predict_layers": 1},
    ),
    "moonshotai/Kimi-K2-Thinking": Case(
        "deepseek2", lambda rng, name, x: linear(SCHEMES["compressed 4 bits"].make)(rng, name, x)
        if ".experts." in name else None,
        q(SCHEMES["compressed 4 bits"].config, ignore=["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*"]),
    ),
    "MiniMaxAI/MiniMax-M2": Case(
        "minimax-m2", linear(BLOCKS.make, ".*block_sparse_moe.gate"),
        q(BLOCKS.config, modules_to_not_convert=["gate", "e_score_correction_bias", "lm_head"]),
    ),
    "RedHatAI/gpt-oss-20b W4A16": Case(
        "gpt-oss", split_gpt_oss(SCHEMES["compressed 4 bits"].make),
        q(SCHEMES["compressed 4 bits"].config, ignore=["lm_head", "re:.*router"]), short_names,
    ),
    "unsloth/gpt-oss-20b-unsloth-bnb-4bit": Case(
        "gpt-oss", unsloth, q(SCHEMES["nf4 with nested factors"].config), names_of_unsloth,
    ),
    "tiiuae/Falcon-E-3B-Instruct": Case(
        "llama", linear(SCHEMES["bitnet 2 bits"].make), q({"quant_method": "bitnet", "modules_to_not_convert": None}),
    ),
    "Falcon-H1 W8A8 by llm-compressor": Case(
        "falcon-h1", linear(SCHEMES["compressed bytes of rows"].make, ".*conv.*"),
        q(SCHEMES["compressed bytes of rows"].config),
    ),
    "OLMo 2 by HQQ": Case(
        "olmo2", linear(SCHEMES["hqq 4 bits of 64"].make), q(SCHEMES["hqq 4 bits of 64"].config), fields=WIDE,
    ),
    "Phi-4 by unsloth in bnb 4 bits": Case(
        "phi3", linear(SCHEMES["nf4 with nested factors"].make), q(SCHEMES["nf4 with nested factors"].config),
        fields={"embedding_length": 64},
    ),
    "RedHatAI/Llama-4-Scout W4A16": Case(
        "llama4", linear(SCHEMES["compressed 4 bits"].make, ".*(router|experts).*"),
        q(SCHEMES["compressed 4 bits"].config, ignore=["re:.*router", "re:.*vision_model.*"]),
        of_several(("model.", "language_model.model.")), within("llama4"),
    ),
    "RedHatAI/Qwen3-Next NVFP4": Case(
        "qwen3next", linear(SCHEMES["compressed nvfp4"].make, ".*(in_proj_ba|mlp.gate).*"),
        q(SCHEMES["compressed nvfp4"].config, ignore=["lm_head", "re:.*linear_attn.in_proj_ba"]),
    ),
    "amd/Llama-3.1-8B-Instruct-FP8-KV": Case(
        "llama", linear(SCHEMES["quark fp8"].make), q(SCHEMES["quark fp8"].config), with_cache_scales,
    ),
    "amd/Qwen3-235B-A22B-MXFP4": Case(
        "qwen3moe", linear(SCHEMES["quark mxfp4"].make), q(SCHEMES["quark mxfp4"].config),
    ),
    "MXFP8 by llm-compressor": Case(
        "qwen2moe", linear(SCHEMES["compressed mxfp8"].make), q(SCHEMES["compressed mxfp8"].config),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_folder_as_its_publisher_writes_it(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    pair = published(
        tmp_path, case.architecture, case.make, case.said,
        fields=case.fields, more=case.more, config=case.config, seed=case.seed,
    )  # fmt: skip
    same_everywhere(pair)
