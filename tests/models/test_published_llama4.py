"""Llama 4 as it is quantised: experts one by one (Meta's own FP8), or all in one tensor, transposed, beside factors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.float_codes import E2M1, e4m3
from tests.support.folders import Typed
from tests.support.published import linear, published, same_everywhere
from tests.support.quantised import SCHEMES
from tests.support.quantised_floats import float_codes, fp8_rows
from tests.support.quantised_parts import Made, bfloats, pack, scales

from sotol.errors import SotolError
from sotol.formats import read_model
from sotol.formats.safetensors import read_safetensors
from sotol.models import trace_model
from sotol.quant import Float32Array

EXPERTS = ("experts.gate_up_proj", "experts.down_proj")


def is_experts(name: str) -> bool:
    return name.endswith(EXPERTS)


def fbgemm(rng: np.random.Generator, name: str, values: Float32Array) -> Made | None:
    """transformers' FbgemmFp8Llama4TextExperts: a factor for each output, [E, 1, 2f] and, of down, [E, D, 1]."""
    if not is_experts(name):
        return linear(fp8_rows, ".*(self_attn|shared_expert).*")(rng, name, values)
    experts, inputs, outputs = values.shape
    codes = float_codes(rng, experts * inputs, outputs).reshape(values.shape)
    factors = scales(rng, experts, outputs, 1, each=1.5, width=inputs)
    tensor = factors if "down" in name else np.ascontiguousarray(factors.swapaxes(1, 2))
    return Made({"": Typed("F8_E4M3", codes), "_scale": tensor}, e4m3(codes) * factors.swapaxes(1, 2))


def modelopt_fp8(rng: np.random.Generator, name: str, values: Float32Array) -> Made | None:
    """One factor of all experts; linear maps have theirs beside .weight."""
    if not is_experts(name):
        return linear(SCHEMES["modelopt fp8"].make)(rng, name, values)
    codes = float_codes(rng, values.shape[0] * values.shape[1], values.shape[2]).reshape(values.shape)
    factor = scales(rng, 1, each=1.5, width=values.shape[1])
    tensors = {"": Typed("F8_E4M3", codes), "_weight_scale": factor[0], "_input_scale": np.float32(0.5)}
    return Made(tensors, e4m3(codes) * factor)


def modelopt_nvfp4(rng: np.random.Generator, name: str, values: Float32Array) -> Made | None:
    """Codes in pairs of inputs, a factor for 16 inputs of an output."""
    if not is_experts(name):
        return None
    experts, inputs, outputs = values.shape
    codes = rng.integers(0, 16, (experts, outputs, inputs))
    factors = rng.integers(0x10, 0x30, (experts, outputs, inputs // 16), np.uint8)
    whole = np.float32(0.7 / np.sqrt(inputs))
    each = (e4m3(factors) * whole)[..., None] * E2M1[codes].reshape(experts, outputs, -1, 16)
    tensors = {
        "": np.ascontiguousarray(pack(codes, 4).swapaxes(1, 2)),
        "_weight_scale": Typed("F8_E4M3", np.ascontiguousarray(factors.swapaxes(1, 2))),
        "_weight_scale_2": whole,
        "_input_scale": np.float32(0.5),
    }
    return Made(tensors, np.ascontiguousarray(each.reshape(experts, outputs, inputs).swapaxes(1, 2)))


def meta(rng: np.random.Generator, n: int, k: int) -> Made:
    """compressed-tensors' float-quantized of rows, factors in bfloat16."""
    codes = float_codes(rng, n, k)
    tensor, factors = bfloats(scales(rng, n, 1, each=1.5, width=k))
    return Made({".weight": Typed("F8_E4M3", codes), ".weight_scale": tensor}, e4m3(codes) * factors)


FORMS: Mapping[str, Any] = {
    "fbgemm": (fbgemm, {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}),
    "modelopt fp8": (modelopt_fp8, {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_scheme": None}),
    "modelopt nvfp4": (modelopt_nvfp4, {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16}),
}


@pytest.mark.parametrize("form", FORMS)
def test_experts_in_one_tensor(form: str, tmp_path: Path) -> None:
    make, said = FORMS[form]
    pair = published(tmp_path, "llama4", make, {"quantization_config": said})
    stored = read_safetensors(pair.own / "model.safetensors")
    assert stored["model.layers.1.feed_forward.experts.down_proj"].encoding.name in ("F8_E4M3", "U8")
    experts = [w for w in trace_model(read_model(pair.own), 32).weights() if len(w.shape) == 3]
    assert len(experts) == 3
    assert all(w.encoding.integer is not None for w in experts)
    same_everywhere(pair)


def test_experts_one_by_one(tmp_path: Path) -> None:
    """Meta's Maverick in FP8: compressed-tensors, linear maps of experts as all others."""
    one = linear(meta, ".*(self_attn|shared_expert|feed_forward.(gate|up|down)_proj).*")

    def make(rng: np.random.Generator, name: str, values: Float32Array) -> Made | None:
        if not is_experts(name):
            return one(rng, name, values)
        parts = (
            {"down_proj": values}
            if "down" in name
            else dict(zip(("gate_proj", "up_proj"), np.split(values, 2, axis=2), strict=True))
        )
        tensors, numbers = dict[str, Any](), list[Any]()
        for part, matrices in parts.items():
            each = [meta(rng, matrices.shape[2], matrices.shape[1]) for _ in matrices]
            numbers.append(np.stack([x.values.T for x in each]))
            for i, x in enumerate(each):
                tensors |= {f".{i}.{part}{suffix}": tensor for suffix, tensor in x.tensors.items()}
        return Made(tensors, np.concatenate(numbers, axis=2))

    said = {**SCHEMES["compressed floats"].config, "ignore": ["re:.*lm_head", "re:.*self_attn", "re:.*router"]}

    def renamed(tensors: dict[str, Any]) -> dict[str, Any]:
        """As a repository of several models has them."""
        short = {name.replace("experts.gate_up_proj.", "experts.").replace("experts.down_proj.", "experts."): x
                 for name, x in tensors.items()}  # fmt: skip
        named = {f"language_model.{name}": x for name, x in short.items()}
        return named | {"vision_model.class_embedding": np.ones(8, np.float32)}

    def config(whole: dict[str, Any]) -> dict[str, Any]:
        text = {key: x for key, x in whole.items() if key != "quantization_config"}
        return {"model_type": "llama4", "text_config": text, "quantization_config": whole["quantization_config"]}

    same_everywhere(published(tmp_path, "llama4", make, {"quantization_config": said}, more=renamed, config=config))


@pytest.mark.parametrize(
    ("form", "tensor", "message"),
    [
        ("fbgemm", {"gate_up_proj_scale": np.ones((5, 32, 1), np.float32)}, "no factors of a weight"),
        ("fbgemm", {"gate_up_proj_scale": None}, "no .*scale_inv or .*_scale is there"),
        ("fbgemm", {"gate_up_proj": Typed("F8_E4M3", np.zeros((160, 64), np.uint8))}, "factors of a weight|shape"),
        ("modelopt nvfp4", {"down_proj_weight_scale": None}, "is missing"),
        ("modelopt nvfp4", {"down_proj_weight_scale_2": None}, "_weight_scale' has factors of a weight"),
        ("modelopt fp8", {"down_proj_weight_scale": np.ones((5, 2), np.float32)}, "no factors of a weight"),
    ],
)  # fmt: skip
def test_experts_that_are_none(form: str, tensor: Mapping[str, Any], message: str, tmp_path: Path) -> None:
    make, said = FORMS[form]

    def changed(tensors: dict[str, Any]) -> dict[str, Any]:
        for name, x in tensor.items():
            full = f"model.layers.1.feed_forward.experts.{name}"
            assert full in tensors
            tensors[full] = x
        return {name: x for name, x in tensors.items() if x is not None}

    pair = published(tmp_path, "llama4", make, {"quantization_config": said}, more=changed)
    with pytest.raises(SotolError, match=message):
        trace_model(read_model(pair.own), 32)


def test_experts_as_they_are_beside_quantised_maps(tmp_path: Path) -> None:
    """Floats are turned where weights get their names (`expert_weights`), as in files without any of that."""
    pair = published(tmp_path, "llama4", linear(fp8_rows), {"quantization_config": FORMS["fbgemm"][1]})
    same_everywhere(pair, runs=False)
