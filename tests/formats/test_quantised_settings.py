"""Quantised SafeTensors with the settings, and the files beside them, that publishers' tools wrote."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.folders import write_tensors
from tests.support.quantised import SCHEMES, fp8_blocks

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
