"""What is told of a file: what sotol runs it with, what it takes, and what is missing, by name."""

import struct
from pathlib import Path

import numpy as np
import pytest
from tests.support.checkpoints import random_checkpoint
from tests.support.folders import tiny_folder, write_tensors
from tests.support.quantised import SCHEMES
from tests.support.quantised import model as quantised_model
from tests.support.tiny_model import CHATML, tiny_model

from sotol.formats import read_gguf, write_gguf
from sotol.formats.weights import Weight
from sotol.quant import ENCODINGS
from sotol.tools.describing import describe, read_any

UNKNOWN = 4711  # no encoding's number


def with_unknown(path: Path, name: str) -> None:
    """Give a weight of a file the number of an encoding that there is not."""
    data = bytearray(path.read_bytes())
    at = data.index(struct.pack("<Q", len(name)) + name.encode()) + 8 + len(name)
    (rank,) = struct.unpack_from("<I", data, at)
    struct.pack_into("<I", data, at + 4 + 8 * rank, UNKNOWN)
    path.write_bytes(data)


def test_a_model_that_runs(tmp_path: Path) -> None:
    path = tiny_model(tmp_path)
    facts = describe(*read_any(path))
    assert facts["runs"]
    assert all(found == {"runs": True, "missing": []} for found in facts["can_run"].values())
    assert facts["answers"] == {"format": "text", "thinking": []}
    (row,) = facts["encodings"]
    assert (row["encoding"], row["share"], row["bits"], row["kernel"]) == ("F32", 1.0, 32.0, "linear F32 f32")
    assert facts["bits"] == 32.0
    cache = facts["memory"]["cache"]
    assert facts["memory"] == {
        "context": 64, "weights": facts["memory"]["weights"], "cache": cache,
        "total": facts["memory"]["weights"] + cache,
    }  # fmt: skip
    assert facts["memory"]["weights"] >= sum(w.nbytes for w in read_gguf(path).weights.values() if len(w.shape) > 1)
    assert describe(read_gguf(path), context=32)["memory"]["cache"] == cache // 2
    with pytest.raises(ValueError, match="ctx is 65, but the model was made for contexts of at most 64 tokens"):
        describe(read_gguf(path), context=65)


def test_kernels_by_encoding(tmp_path: Path) -> None:
    checkpoint = random_checkpoint("llama", {"embedding_length": 256, "feed_forward_length": 256})
    weights = [
        Weight.from_values(w.name, w.decode(), "Q4_K" if "ffn" in name and len(w.shape) > 1 else w.encoding.name)
        for name, w in checkpoint.weights.items()
    ]
    odd = Weight.from_bytes("odd.weight", ENCODINGS["Q8_1"], (2, 32), np.zeros(80, np.uint8))
    write_gguf(tmp_path / "m.gguf", checkpoint.metadata, [*weights, odd])
    facts = describe(*read_any(tmp_path / "m.gguf"))
    kernels = {row["encoding"]: row["kernel"] for row in facts["encodings"]}
    assert kernels == {"F32": "linear F32 f32", "Q4_K": f"linear {ENCODINGS['Q4_K'].kind} int8", "Q8_1": None}
    assert facts["can_run"]["weights"] == {"runs": False, "missing": ["no kernel for Q8_1 (1 weights)"]}
    assert abs(sum(row["share"] for row in facts["encodings"]) - 1) < 1e-9
    assert facts["memory"] is None


@pytest.mark.parametrize(("scheme", "activations"), [("fp8 of rows", "f32"), ("nf4", "f32"), ("awq", "int8")])
def test_what_matrices_of_floats_and_of_whole_numbers_are_multiplied_with(
    scheme: str, activations: str, tmp_path: Path
) -> None:
    own, _ = quantised_model(tmp_path, SCHEMES[scheme])
    kernels = [row["kernel"] for row in describe(own)["encodings"] if row["encoding"] != "F32"]
    assert kernels
    assert all(kernel.endswith(activations) for kernel in kernels)


def test_encodings_without_a_name_are_told(tmp_path: Path) -> None:
    path = tiny_model(tmp_path)
    with_unknown(path, "blk.0.ffn_up.weight")
    with_unknown(path, "blk.1.ffn_up.weight")
    checkpoint, unknown = read_any(path)
    assert [(weight.name, weight.kind, weight.shape) for weight in unknown] == [
        (f"blk.{i}.ffn_up.weight", UNKNOWN, (64, 32)) for i in (0, 1)
    ]
    facts = describe(checkpoint, unknown)
    assert facts["problems"] == [
        f"encoding {UNKNOWN} is unknown (2 weights, 'blk.0.ffn_up.weight' is the first)",
        "weight blk.0.ffn_up is missing",
    ]
    assert facts["can_run"]["tokenizer"]["runs"]
    assert not facts["can_run"]["weights"]["runs"]


def test_each_part_is_told_by_itself(tmp_path: Path) -> None:
    path = tiny_model(tmp_path, {"general.architecture": "strange", "tokenizer.ggml.model": "odd"})
    found = describe(*read_any(path))["can_run"]
    assert [part for part, said in found.items() if not said["runs"]] == ["architecture", "program", "tokenizer"]
    assert "the tokenizer 'odd'" in found["tokenizer"]["missing"][0]
    path = tiny_model(tmp_path, {"tokenizer.chat_template": 7})
    found = describe(*read_any(path))["can_run"]
    assert [part for part, said in found.items() if not said["runs"]] == ["chat template"]


def test_what_is_no_model_lacks_nothing_of_one(tmp_path: Path) -> None:
    facts = describe(*read_any(tiny_model(tmp_path, {"general.type": "imatrix", "general.architecture": "none"})))
    assert (facts["problems"], facts["can_run"]) == (["is an importance matrix, and no model"], {})
    assert describe(*read_any(tiny_model(tmp_path, {"general.type": ["imatrix"]})))["can_run"] != {}


def test_blocks_that_are_skipped_are_named(tmp_path: Path) -> None:
    path = tiny_model(tmp_path, {"llama.block_count": 2, "llama.nextn_predict_layers": 1})
    (skipped,) = describe(*read_any(path))["skipped"]
    assert skipped == "blk.1: 9 weights that predict more than one token"
    assert describe(*read_any(tiny_model(tmp_path)))["skipped"] == []


@pytest.mark.parametrize("name", ["mtp.fc.weight", "model.layers.2.eh_proj.weight"])
def test_what_a_folder_has_besides_the_model_is_named(name: str, tmp_path: Path) -> None:
    """Blocks that draft tokens, by a name of their own or behind the model's layers."""
    config = {"num_nextn_predict_layers": 1} if "layers" in name else {}
    folder = tiny_folder(tmp_path / "model", config=config)
    assert describe(*read_any(folder))["skipped"] == []
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    write_tensors(folder / "model-00002-of-00002.safetensors", {name: np.ones((2, 2), np.float32)})
    (skipped,) = describe(*read_any(folder))["skipped"]
    assert skipped == f"{'.'.join(name.split('.')[:-2])}: 1 weights that predict more than one token"


def test_how_a_model_answers(tmp_path: Path) -> None:
    template = CHATML + "{# <tool_call> </tool_call> <think> #}"
    facts = describe(*read_any(tiny_model(tmp_path, {"tokenizer.chat_template": template})))
    assert facts["answers"] == {"format": "hermes", "thinking": ["<think>"]}


def test_a_folder(tmp_path: Path) -> None:
    facts = describe(*read_any(tiny_folder(tmp_path / "m")))
    assert (facts["runs"], facts["bits"], facts["memory"]["context"]) == (True, 32.0, 64)
