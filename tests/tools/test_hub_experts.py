"""Tensors of folders whose form is not GGUF's: those of experts as models were released, and those by heads."""

from pathlib import Path

import numpy as np
import pytest
from tests.support.checkpoints import random_checkpoint
from tests.support.programs import same_programs
from tests.tools.test_converting import gguf_model, vocabulary_of

from sotol.formats import Weight, read_gguf, read_model, write_gguf
from sotol.formats.safetensors import read_safetensors
from sotol.models import trace_model
from sotol.quant import Float32Array
from sotol.tools.converting import convert


def both(architecture: str, tmp_path: Path) -> tuple[dict[str, Float32Array], dict[str, Float32Array]]:
    """The numbers of a GGUF file, and those of the folder that it becomes, by name."""
    path = gguf_model(tmp_path / "m.gguf", architecture)
    convert(path, tmp_path / "folder", "F32")
    ours, theirs = read_gguf(path).weights, read_safetensors(tmp_path / "folder" / "model.safetensors")
    return tuple({name: weight.decode() for name, weight in x.items()} for x in (ours, theirs))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("deepseek2", "model.layers.1.mlp.experts.3.{}_proj.weight"),
        ("nemotron_h_moe", "model.layers.2.mixer.experts.3.{}_proj.weight"),
        ("mixtral", "model.layers.1.block_sparse_moe.experts.3.{}.weight"),
        ("minimax-m2", "model.layers.1.block_sparse_moe.experts.3.{}.weight"),
        ("lfm2moe", "model.layers.1.feed_forward.experts.3.{}.weight"),
    ],
)
def test_a_tensor_for_each_expert(architecture: str, name: str, tmp_path: Path) -> None:
    ours, theirs = both(architecture, tmp_path)
    layer = name.split(".")[2]
    for part, letter in (("up", "w3"), ("down", "w2")):
        full = name.format(part if "_proj" in name else letter)
        np.testing.assert_array_equal(theirs[full], ours[f"blk.{layer}.ffn_{part}_exps.weight"][3])
    assert not any("block_sparse_moe" in key or ".w1." in key for key in theirs) or "_proj" not in name


@pytest.mark.parametrize(
    ("architecture", "before", "turned"),
    [("granitemoe", "block_sparse_moe", False), ("gemma4", "experts", False), ("llama4", "feed_forward.experts", True)],
)
def test_one_tensor_for_all_experts(architecture: str, before: str, turned: bool, tmp_path: Path) -> None:
    ours, theirs = both(architecture, tmp_path)
    gate, up, down = (ours[f"blk.1.ffn_{part}_exps.weight"] for part in ("gate", "up", "down"))
    names = ("input_linear.weight", "output_linear.weight") if before == "block_sparse_moe" else (
        "gate_up_proj", "down_proj",
    )  # fmt: skip
    first, second = (theirs[f"model.layers.1.{before}.{name}"] for name in names)
    joined = np.concatenate([gate, up], axis=1)
    np.testing.assert_array_equal(first, joined.transpose(0, 2, 1) if turned else joined)
    np.testing.assert_array_equal(second, down.transpose(0, 2, 1) if turned else down)


def test_rows_of_both_halves_are_together_in_granites(tmp_path: Path) -> None:
    ours, theirs = both("granitehybrid", tmp_path)
    gate, up = (ours[f"blk.1.ffn_{part}_shexp.weight"] for part in ("gate", "up"))
    np.testing.assert_array_equal(theirs["model.layers.1.shared_mlp.input_linear.weight"], np.concatenate([gate, up]))
    router = theirs["model.layers.1.block_sparse_moe.router.layer.weight"]
    np.testing.assert_array_equal(router, ours["blk.1.ffn_gate_inp.weight"])
    assert theirs["model.layers.0.mamba.conv1d.weight"].shape[1:] == (1, 4)


def test_keys_and_values_of_latent_attention_are_together(tmp_path: Path) -> None:
    ours, theirs = both("deepseek2", tmp_path)
    rows = theirs["model.layers.0.self_attn.kv_b_proj.weight"].reshape(2, 24 + 16, 32)
    for head in range(2):
        np.testing.assert_array_equal(rows[head, :24], ours["blk.0.attn_k_b.weight"][head].T)
        np.testing.assert_array_equal(rows[head, 24:], ours["blk.0.attn_v_b.weight"][head])


def test_projections_of_qwen3_next_are_head_by_head(tmp_path: Path) -> None:
    ours, theirs = both("qwen3next", tmp_path)
    rows = theirs["model.layers.0.linear_attn.in_proj_qkvz.weight"].reshape(2, 80, 32)
    mixed, gate = ours["blk.0.attn_qkv.weight"], ours["blk.0.attn_gate.weight"]
    np.testing.assert_array_equal(rows[1, :8], mixed[8:16])
    np.testing.assert_array_equal(rows[1, 8:16], mixed[24:32])
    np.testing.assert_array_equal(rows[1, 16:48], mixed[64:96])
    np.testing.assert_array_equal(rows[1, 48:], gate[32:])


def test_biases_of_choices_are_rows_in_ernie(tmp_path: Path) -> None:
    model = random_checkpoint("ernie4_5-moe", optional=True)
    weights = [weight for name, weight in model.weights.items() if "exp_probs" in name or not name.endswith("bias")]
    kept = [weight for weight in weights if not weight.name.startswith("rope_")]
    write_gguf(tmp_path / "m.gguf", {**model.metadata, **vocabulary_of("ernie4_5-moe")}, kept)
    convert(tmp_path / "m.gguf", tmp_path / "folder")
    found = read_safetensors(tmp_path / "folder" / "model.safetensors")
    assert found["model.layers.1.mlp.moe_statics.e_score_correction_bias"].shape == (1, 5)


@pytest.mark.parametrize("encoding", ["Q8_0", "Q4_0"])
def test_heads_that_cut_blocks_become_floats(encoding: str, tmp_path: Path) -> None:
    """Heads of 16 values move where blocks have 32: their numbers are decoded first."""
    model = random_checkpoint("qwen35")
    name = "blk.0.ssm_out.weight"
    coded = {**model.weights, name: Weight.from_values(name, model.weights[name].decode(), encoding)}
    plain = {**coded, name: Weight.from_values(name, coded[name].decode(), "F32")}
    for file, weights in (("coded", coded), ("plain", plain)):
        fields = {**model.metadata, **vocabulary_of("qwen35")}
        write_gguf(tmp_path / f"{file}.gguf", fields, weights.values())
        convert(tmp_path / f"{file}.gguf", tmp_path / file, "F32")
    one, other = (trace_model(read_model(tmp_path / file), 64) for file in ("coded", "plain"))
    same_programs(one, other)
