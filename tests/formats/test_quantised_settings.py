"""Quantised SafeTensors with the settings, and the files beside them, that publishers' tools wrote."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.folders import write_tensors
from tests.support.quantised import SCHEMES
from tests.support.quantised_floats import fp8_blocks

from sotol.errors import ModelError
from sotol.formats.checkpoint_folder import read_folder
from sotol.formats.weights import Weight

NAME = "model.layers.0.mlp.up_proj"


def read_of(folder: Path, tensors: Mapping[str, Any], config: object) -> Mapping[str, Weight]:
    """The weights of a folder with these tensors, whose config.json says this of how they are quantised."""
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "quantization_config": config}))
    write_tensors(folder / "model.safetensors", tensors)
    return read_folder(folder).weights


REAL: dict[str, tuple[str, dict[str, object]]] = {
    "gptqmodel 2": ("gptq with act-order", {
        "checkpoint_format": "gptq", "desc_act": True, "lm_head": False, "pack_dtype": "int32", "sym": True,
        "meta": {"damp_percent": 0.01, "mse": 0.0, "quantizer": ["gptqmodel:2.2.0"], "static_groups": False},
    }),
    "gptqmodel 5": ("gptq 4 bits", {
        "checkpoint_format": "gptq", "format": "gptq", "method": "gptq", "desc_act": False, "hyb_act": False,
        "act_group_aware": True, "pack_impl": "cpu", "offload_to_disk_path": "x", "gptaq": None, "dynamic": {},
    }),
    "optimum": ("gptq 4 bits", {
        "batch_size": 1, "block_name_to_quantize": None, "exllama_config": {"version": 1}, "use_exllama": True,
        "module_name_preceding_first_block": None, "modules_in_block_to_quantize": None, "tokenizer": None,
    }),
    "gptqmodel's AWQ": ("awq", {
        "format": "gemm", "checkpoint_format": "gemm", "pack_dtype": "int32", "desc_act": True, "lm_head": False,
        "meta": {"quantizer": ["gptqmodel:5.0.0"]},
    }),
    "AutoFP8": ("fp8 of a tensor", {"ignored_layers": ["lm_head"], "kv_cache_scheme": "static"}),
    "modelopt": ("modelopt nvfp4", {
        "quant_method": "modelopt_fp4", "quant_algo": "W4A16_NVFP4", "ignore": ["lm_head", "model.layers.0*"],
        "kv_cache_scheme": {"dynamic": False, "num_bits": 8, "type": "float"}, "producer": {"name": "modelopt"},
    }),
    "presets": ("compressed bytes of rows", {"config_groups": {"W8A8": ["Linear"]}, "sparsity_config": {}}),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_settings_as_publishers_write_them(tmp_path: Path, name: str) -> None:
    """With factors of caches, where a scheme may have some, and without anything else of them."""
    of, changes = REAL[name]
    made = SCHEMES[of].make(np.random.default_rng(14), 96, 256)
    tensors = {NAME + suffix: x for suffix, x in made.tensors.items()}
    if name in ("AutoFP8", "modelopt"):
        tensors |= {f"model.layers.0.self_attn.{x}_scale": np.ones(1, np.float32) for x in ("kv", "k", "v")}
        tensors["model.layers.0.self_attn.k_proj.k_scale"] = np.ones(1, np.float32)
    weights = read_of(tmp_path, tensors, {**SCHEMES[of].config, **changes})
    assert set(weights) == {f"{NAME}.weight"}
    np.testing.assert_array_equal(weights[f"{NAME}.weight"].decode(), made.values)


def test_blocks_as_text(tmp_path: Path) -> None:
    made = fp8_blocks(np.random.default_rng(15), 192, 256)
    tensors = {"w.weight": made.tensors[".weight"], "w.weight_scale": made.tensors[".weight_scale_inv"]}
    weights = {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": "128x128"}
    config = {"quant_method": "compressed-tensors", "format": "float-quantized",
              "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}  # fmt: skip
    np.testing.assert_array_equal(read_of(tmp_path, tensors, config)["w.weight"].decode(), made.values)


@pytest.mark.parametrize(
    ("name", "file", "said"),
    [
        ("gptq with act-order", "quantize_config.json", {
            "bits": 4, "group_size": 32, "damp_percent": 0.1, "desc_act": True, "static_groups": False,
            "true_sequential": True, "model_name_or_path": None, "model_file_base_name": "model",
        }),
        ("awq", "quant_config.json", {"zero_point": True, "q_group_size": 64, "w_bit": 4, "version": "GEMM"}),
    ],
)  # fmt: skip
def test_settings_in_a_file_of_their_own(tmp_path: Path, name: str, file: str, said: dict[str, object]) -> None:
    """AutoGPTQ's and AutoAWQ's first models. Where nothing is quantised, such a file says nothing."""
    made = SCHEMES[name].make(np.random.default_rng(16), 96, 256)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / file).write_text(json.dumps(said))
    write_tensors(tmp_path / "model.safetensors", {NAME + suffix: x for suffix, x in made.tensors.items()})
    np.testing.assert_array_equal(read_folder(tmp_path).weights[f"{NAME}.weight"].decode(), made.values)
    (tmp_path / file).write_text(json.dumps({**said, "rotation": "hadamard"}))
    with pytest.raises(ModelError, match="does not know what 'rotation'"):
        read_folder(tmp_path)
    write_tensors(tmp_path / "model.safetensors", {"w.weight": np.ones(2, np.float32)})
    assert set(read_folder(tmp_path).weights) == {"w.weight"}


def test_biases_of_zeros_beside_gptq(tmp_path: Path) -> None:
    """AutoGPTQ wrote them for layers that have none."""
    scheme = SCHEMES["gptq 4 bits"]
    made = scheme.make(np.random.default_rng(17), 96, 256)
    for bias, kept in ((np.zeros(96, np.float16), False), (np.ones(96, np.float16), True)):
        tensors = {"w" + suffix: x for suffix, x in {**made.tensors, ".bias": bias}.items()}
        assert ("w.bias" in read_of(tmp_path, tensors, scheme.config)) == kept


# What tools of other schemes write: tensors of a weight, and settings. All are refused by the method's name.
OTHERS: dict[str, tuple[dict[str, Any], dict[str, object]]] = {
    "aqlm": ({".codes": np.zeros((4, 16, 1), np.int8), ".codebooks": np.zeros((1, 256, 1, 8), np.float16)},
             {"in_group_size": 8, "out_group_size": 1, "num_codebooks": 1, "nbits_per_codebook": 8}),
    "vptq": ({".indices": np.zeros((1, 4, 16), np.int32), ".centroids.weight": np.zeros((1, 64), np.float16)},
             {"config_for_layers": {}, "enable_proxy_error": False}),
    "spqr": ({".dense_weights": np.zeros(64, np.int64), ".row_offsets": np.zeros(17, np.int32)}, {"bits": 3}),
    "higgs": ({".weight": np.zeros((16, 16), np.int16), ".scales": np.zeros((16, 1), np.float16)}, {"bits": 4, "p": 2}),
    "fp_quant": ({".qweight": np.zeros((16, 16), np.uint8), ".scales": np.zeros((16, 1), np.uint8)},
                 {"forward_dtype": "mxfp4", "hadamard_group_size": 32}),
    "eetq": ({".weight": np.zeros((16, 16), np.int8), ".weight_scales": np.zeros(16, np.float16)},
             {"weights": "int8", "modules_to_not_convert": None}),
    "quanto": ({".weight._data": np.zeros((16, 16), np.int8), ".weight._scale": np.zeros((16, 1), np.float16)},
               {"weights": "int8", "activations": None}),
    "torchao": ({".weight_qdata": np.zeros((16, 16), np.int8), ".weight_scale": np.zeros((16, 1), np.float32)},
                {"quant_type": {"default": {"_type": "Int8WeightOnlyConfig", "_data": {}}}}),
    "sinq": ({".W_q": np.zeros((16, 8), np.uint8)}, {"nbits": 4, "method": "sinq"}),
    "fouroversix": ({".quantized_weight_values": np.zeros((16, 8), np.uint8)}, {"dtype": "nvfp4"}),
    "nvfp4": ({".weight": np.zeros((16, 8), np.uint8), ".weight_sf": np.zeros((1, 4), np.int32)}, {}),
}  # fmt: skip


@pytest.mark.parametrize("method", OTHERS)
def test_other_schemes_are_refused_by_their_names(tmp_path: Path, method: str) -> None:
    tensors, said = OTHERS[method]
    with pytest.raises(ModelError, match=rf"quantized by '{method}'; sotol supports .* or in floats$"):
        read_of(tmp_path, {NAME + suffix: x for suffix, x in tensors.items()}, {"quant_method": method, **said})


def test_settings_of_a_training_for_few_bits(tmp_path: Path) -> None:
    """Gemma 4's -qat-q4_0-unquantized say no method, and have floats; with codes, the method is missing."""
    said = {"version": "0.6.0", "num_bits": 4}
    values = np.ones((32, 64), np.float32)
    weights = read_of(tmp_path, {f"{NAME}.weight": values}, said)
    np.testing.assert_array_equal(weights[f"{NAME}.weight"].decode(), values)
    with pytest.raises(ModelError, match="quantized by None; sotol supports"):
        read_of(tmp_path, {f"{NAME}.weight": values.astype(np.int8)}, said)
