"""Models of quantised SafeTensors: loaded, run from their own bits, and equal to the same with their numbers in F32."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models.test_encodings import check, logits
from tests.support.folders import tiny_folder, write_tensors
from tests.support.quantised import SCHEMES, Made, Scheme, bfloats, model
from tests.support.tiny_model import with_vocabulary

from sotol.errors import ModelError
from sotol.formats import read_gguf
from sotol.formats.checkpoint_folder import read_folder
from sotol.models import trace_model
from sotol.program.fuse import quantize_inputs
from sotol.tools.converting import convert
from sotol.tools.quantize import quantize
from sotol.tools.to_gguf import gguf_of

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
    return {name: weight.decode() for name, weight in read_folder(folder).weights.items()}


def test_experts_of_a_gpt_oss_as_openai_has_them(gpt_oss: Path) -> None:
    checkpoint = read_folder(gpt_oss)
    kinds = {weight.encoding.kind for weight in trace_model(checkpoint, 32).weights() if len(weight.shape) == 3}
    assert kinds == {"q4_32x1_t000102030406080c00fffefdfcfaf8f4_e8m0"}
    check(checkpoint)


def test_experts_of_an_order_of_their_own_are_refused(tmp_path: Path) -> None:
    """But they are converted and quantised, by their numbers."""
    folder = with_vocabulary(tiny_folder(tmp_path / "model", "qwen3moe"))
    scheme: Scheme = SCHEMES["gptq with act-order"]
    config = json.loads((folder / "config.json").read_text())
    plain = {name: x for name, x in read_plain(folder).items() if ".experts." not in name}
    tensors, rng = dict[str, Any](plain), np.random.default_rng(6)
    for layer in range(2):
        for expert in range(5):
            for part in ("gate_proj", "up_proj", "down_proj"):
                shape = (32, 64) if part == "down_proj" else (64, 32)
                made = scheme.make(rng, *shape)
                order = rng.permutation(made.tensors[".g_idx"])  # of each expert its own
                made = made._replace(values=reordered(made, order), tensors={**made.tensors, ".g_idx": order})
                name = f"model.layers.{layer}.mlp.experts.{expert}.{part}"
                tensors |= {name + suffix: x for suffix, x in made.tensors.items()}
                plain[f"{name}.weight"] = made.values
    (folder / "config.json").write_text(json.dumps({**config, "moe_intermediate_size": 64, scheme.key: scheme.config}))
    write_tensors(folder / "model.safetensors", tensors)
    with pytest.raises(ModelError, match="has its inputs in an order of its own"):
        trace_model(read_folder(folder), 32)
    convert(folder, tmp_path / "a.gguf", "F32")
    quantize(gguf_of(folder)[0], tmp_path / "b.gguf", encoding="F32", allow_requantize=True)
    for file in ("a.gguf", "b.gguf"):
        weights = read_gguf(tmp_path / file).weights
        for part in ("gate", "up", "down"):
            whole = weights[f"blk.1.ffn_{part}_exps.weight"].decode()
            for expert in range(5):
                want = plain[f"model.layers.1.mlp.experts.{expert}.{part}_proj.weight"]
                np.testing.assert_array_equal(whole[expert], want)


def reordered(made: Made, groups: Any) -> Any:
    """The numbers of a matrix of `gptq`, 4 bits, whose inputs are in these groups."""
    packed, points, factors = (made.tensors[name] for name in (".qweight", ".qzeros", ".scales"))
    nibbles = np.arange(8, dtype=np.uint32) * np.uint32(4)
    codes = (packed.view(np.uint32)[:, None] >> nibbles[:, None] & np.uint32(15)).reshape(-1, packed.shape[1])
    zeros = (points.view(np.uint32)[..., None] >> nibbles & np.uint32(15)).reshape(len(points), -1) + 1
    values = (codes.astype(np.float32) - zeros[groups].astype(np.float32)) * factors[groups].astype(np.float32)
    return np.ascontiguousarray(values.T)
