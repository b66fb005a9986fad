"""Models of quantised SafeTensors: loaded, run from their own bits, and equal to the same with their numbers in F32."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models.test_encodings import check, logits
from tests.support.folders import tiny_folder, write_tensors
from tests.support.quantised import SCHEMES, model
from tests.support.quantised_parts import bfloats

from sotol.formats.checkpoint_folder import read_folder
from sotol.models import trace_model
from sotol.program.fuse import quantize_inputs

# One of each family, of all forms of codes, factors and zero points. tests/formats has the numbers of all others.
ON_THE_CPU = [
    "fp8 of blocks", "mlx 4 bits of 64", "mlx 3 bits of 32", "awq", "gptq with act-order", "gptq 8 bits",
    "compressed 4 bits", "compressed bytes of rows", "modelopt nvfp4", "nf4 with nested factors", "hqq 4 bits of 64",
]  # fmt: skip


@pytest.mark.parametrize("name", SCHEMES)
def test_a_model_is_that_of_its_numbers(tmp_path: Path, name: str) -> None:
    """Every weight is there, by its name and in its shape, and in the order that its inputs have."""
    own, plain = model(tmp_path, SCHEMES[name])
    found, want = (logits(trace_model(checkpoint, 32), "reference", [20]) for checkpoint in (own, plain))
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("name", ON_THE_CPU)
def test_the_cpu_runs_it(tmp_path: Path, name: str) -> None:
    own, _ = model(tmp_path, SCHEMES[name])
    matrices = [weight for weight in trace_model(own, 32).weights() if "_proj" in weight.name]
    assert len(matrices) == 2 * 7
    assert all(weight.encoding.integer is not None for weight in matrices)
    check(own)


def test_mlx_has_its_embedding_quantised(tmp_path: Path) -> None:
    """It is looked up by rows, and is the head, too."""
    own, plain = model(tmp_path, SCHEMES["mlx 4 bits of 32"], embedding=True)
    found, want = (logits(trace_model(checkpoint, 32), "reference", [20]) for checkpoint in (own, plain))
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())
    check(own)


def test_act_order_costs_one_op_for_each_input(tmp_path: Path) -> None:
    """Queries, keys and values share theirs, and so do gate and up."""
    own, _ = model(tmp_path, SCHEMES["gptq with act-order"])
    names = [node.op.name for node in quantize_inputs(trace_model(own, 32)).nodes]
    assert names.count("reorder") == names.count("quantize") == 2 * 4


@pytest.fixture
def gpt_oss(tmp_path: Path) -> Path:
    """A tiny GPT-OSS whose experts are in MXFP4, as OpenAI's are."""
    folder = tiny_folder(tmp_path / "model", "gpt-oss", {"quantization_config": {"quant_method": "mxfp4"}})
    rng, tensors = np.random.default_rng(6), dict[str, Any]()
    config = json.loads((folder / "config.json").read_text())
    experts, width, hidden = config["num_local_experts"], config["intermediate_size"], config["hidden_size"]
    header = read_plain(folder)
    for name, values in header.items():
        if ".experts." not in name:
            tensors[name] = values
    for layer in range(2):
        before = f"model.layers.{layer}.mlp.experts."
        for part, rows, columns in (("gate_up_proj", 2 * width, hidden), ("down_proj", hidden, width)):
            tensors[f"{before}{part}_blocks"] = rng.integers(0, 256, (experts, rows, columns // 32, 16), np.uint8)
            tensors[f"{before}{part}_scales"] = rng.integers(121, 125, (experts, rows, columns // 32), np.uint8)
            tensors[f"{before}{part}_bias"] = bfloats(rng.normal(size=(experts, rows)))[0]
    write_tensors(folder / "model.safetensors", tensors)
    return folder


def read_plain(folder: Path) -> dict[str, Any]:
    """Copies, since the file is written anew."""
    return {name: weight.decode().copy() for name, weight in read_folder(folder).weights.items()}


def test_experts_of_a_gpt_oss_as_openai_has_them(gpt_oss: Path) -> None:
    checkpoint = read_folder(gpt_oss)
    kinds = {weight.encoding.kind for weight in trace_model(checkpoint, 32).weights() if len(weight.shape) == 3}
    assert kinds == {"q4_32x1_t000102030406080c00fffefdfcfaf8f4_e8m0"}
    check(checkpoint)
