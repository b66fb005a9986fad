"""Models in fewer bits: what is written, what is refused, and that nothing half done is left."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.checkpoints import random_checkpoint
from tests.support.folders import write_tensors
from tests.support.quantised import SCHEMES
from tests.support.quantised import model as quantised_model
from tests.support.quantised_parts import Scheme, bfloats
from tests.support.tiny_model import with_vocabulary

from sotol.errors import ModelError, SotolError
from sotol.formats import Checkpoint, read_gguf, write_gguf
from sotol.formats.checkpoint_folder import read_folder
from sotol.formats.weights import Weight
from sotol.quant import ENCODINGS, FITS, encode_fitted
from sotol.tools import encoding_threads as tool
from sotol.tools.gguf_names import with_gguf_names
from sotol.tools.importance import Importance
from sotol.tools.quantize import quantize
from sotol.tools.to_gguf import gguf_of

WIDE = {"embedding_length": 256, "feed_forward_length": 512, "attention.head_count": 4}
EXPERTS = {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 256}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A mixture of four experts, as a file."""
    checkpoint = random_checkpoint("mixtral", {**WIDE, **EXPERTS}, optional=True)
    path = tmp_path_factory.mktemp("models") / "model.gguf"
    write_gguf(path, {**checkpoint.metadata, "general.file_type": 0}, checkpoint.weights.values())
    return read_gguf(path)


@pytest.fixture(scope="module")
def importance(model: Checkpoint) -> Importance:
    """Of all matrices of layers."""
    rng = np.random.default_rng(0)
    sums, counts = {}, {}
    for name, w in model.weights.items():
        if len(w.shape) > 1 and name.startswith("blk."):
            matrices = w.shape[0] if len(w.shape) > 2 else 1
            sums[name] = np.exp(rng.standard_normal((matrices, w.shape[-1]))).astype(np.float32)
            counts[name] = np.ones(matrices, np.float32)
    return Importance(sums, counts, 9, 512, ("a.txt",), "i.gguf")


def test_every_weight_is_what_its_encoder_makes(model: Checkpoint, tmp_path: Path) -> None:
    done = quantize(model, tmp_path / "out.gguf", mix="Q4_K_M", threads=3)
    made = read_gguf(tmp_path / "out.gguf")
    assert list(made.weights) == list(model.weights)
    for name, weight in made.weights.items():
        assert weight.encoding.name == done.encodings[name]
        assert weight.shape == model.weights[name].shape
        again = Weight.from_values(name, model.weights[name].decode(), weight.encoding.name)
        np.testing.assert_array_equal(weight.rows(), again.rows())
    assert {"Q4_K", "Q6_K", "F32"} <= {w.encoding.name for w in made.weights.values()}
    assert done.after == sum(w.nbytes for w in made.weights.values())
    assert done.before == sum(w.nbytes for w in model.weights.values())
    assert done.values == done.before // 4


def test_columns_count_as_the_importance_matrix_has_them(
    model: Checkpoint, importance: Importance, tmp_path: Path
) -> None:
    """Each expert by its own."""
    done = quantize(model, tmp_path / "out.gguf", encoding="Q4_K", importance=importance)
    made, name = read_gguf(tmp_path / "out.gguf"), "blk.1.ffn_down_exps.weight"
    for i in range(4):
        expected = encode_fitted(FITS["Q4_K"], model.weights[name].decode()[i], importance.sums[name][i])
        np.testing.assert_array_equal(made.weights[name].expert(i).rows(), expected)
    assert done.without == ["output.weight"]
    assert made.metadata["quantize.imatrix.file"] == "i.gguf"
    assert made.metadata["quantize.imatrix.dataset"] == "a.txt"
    assert made.metadata["quantize.imatrix.entries_count"] == len(importance.sums)
    assert made.metadata["quantize.imatrix.chunks_count"] == 9


@pytest.mark.parametrize("threads", [1, 4])
def test_the_same_file_for_any_number_of_threads_and_any_pieces(
    model: Checkpoint, tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantize(model, tmp_path / "a.gguf", mix="Q3_K_M")
    monkeypatch.setattr(tool, "PIECE_VALUES", 1000)
    quantize(model, tmp_path / "b.gguf", mix="Q3_K_M", threads=threads)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


@pytest.mark.parametrize(
    ("how", "number"), [({"mix": "Q4_K_M"}, 15), ({"encoding": "Q8_0"}, 7), ({"encoding": "NVFP4"}, 1024)]
)
def test_metadata(model: Checkpoint, tmp_path: Path, how: dict[str, Any], number: int) -> None:
    quantize(model, tmp_path / "out.gguf", **how)
    made = read_gguf(tmp_path / "out.gguf")
    assert made.metadata["general.file_type"] == number
    assert made.metadata["general.quantization_version"] == 2
    assert {k: v for k, v in made.metadata.items() if k in model.metadata and k != "general.file_type"} == {
        k: v for k, v in model.metadata.items() if k != "general.file_type"
    }


def test_what_is_quantised_already_is_refused(model: Checkpoint, tmp_path: Path) -> None:
    quantize(model, tmp_path / "a.gguf", encoding="Q8_0")
    source = read_gguf(tmp_path / "a.gguf")
    with pytest.raises(ModelError, match=r"is quantised already, as Q8_0: .* add --allow-requantize"):
        quantize(source, tmp_path / "b.gguf", mix="Q4_K_M")
    assert not (tmp_path / "b.gguf").exists()
    quantize(source, tmp_path / "b.gguf", mix="Q4_K_M", allow_requantize=True)
    quantize(source, tmp_path / "c.gguf", encoding="Q8_0")  # which changes nothing
    assert read_gguf(tmp_path / "c.gguf").weights["output.weight"].encoding.name == "Q8_0"
    weights = read_gguf(tmp_path / "c.gguf").weights
    assert all(np.array_equal(weights[name].rows(), weight.rows()) for name, weight in source.weights.items())


def test_few_bits_need_an_importance_matrix(model: Checkpoint, importance: Importance, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="as IQ2_XXS makes no sense without an importance matrix"):
        quantize(model, tmp_path / "out.gguf", mix="IQ2_XXS")
    quantize(model, tmp_path / "out.gguf", mix="IQ2_XXS", importance=importance)


def test_a_matrix_of_another_model(model: Checkpoint, importance: Importance, tmp_path: Path) -> None:
    sums = {name: values[:, :-1] for name, values in importance.sums.items()}
    with pytest.raises(ModelError, match="it is of another model"):
        quantize(model, tmp_path / "out.gguf", mix="Q4_K_M", importance=importance._replace(sums=sums))


def test_numbers_that_no_block_holds(model: Checkpoint, tmp_path: Path) -> None:
    name = "blk.0.attn_q.weight"
    broken = model.weights[name].decode().copy()
    broken[200, 3] = np.nan
    weights = {**model.weights, name: Weight.from_values(name, broken, "F32")}
    with pytest.raises(ModelError, match=r"blk\.0\.attn_q\.weight, rows .*: integer encodings hold"):
        quantize(model._replace(weights=weights), tmp_path / "out.gguf", encoding="Q4_0")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_leaves_nothing(model: Checkpoint, tmp_path: Path) -> None:
    def progress(what: str, done: int, _total: int) -> None:
        if what == "quantising weights" and done == 5:
            raise KeyboardInterrupt

    (tmp_path / "out.gguf").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        quantize(model, tmp_path / "out.gguf", encoding="Q4_0", progress=progress)
    assert [path.name for path in tmp_path.iterdir()] == ["out.gguf"]
    assert (tmp_path / "out.gguf").read_bytes() == b"old"


def test_a_source_that_changes_meanwhile(model: Checkpoint, tmp_path: Path) -> None:
    source = tmp_path / "source.gguf"
    source.write_bytes(model.path.read_bytes())

    def progress(_what: str, done: int, _total: int) -> None:
        if done == 3:
            source.write_bytes(model.path.read_bytes() + b"more")

    with pytest.raises(SotolError, match="was changed while it was read"):
        quantize(read_gguf(source), tmp_path / "out.gguf", encoding="Q4_0", progress=progress)
    assert not (tmp_path / "out.gguf").exists()


def test_encodings_that_nobody_decodes_or_gguf_lacks(model: Checkpoint, tmp_path: Path) -> None:
    name = "blk.0.attn_q.weight"
    q8_k = Weight.from_bytes(name, ENCODINGS["Q8_K"], (2, 256), np.zeros(2 * 292, np.uint8))
    with pytest.raises(ModelError, match="stored as Q8_K, which sotol can't decode"):
        quantize(model._replace(weights={name: q8_k}), tmp_path / "out.gguf", encoding="Q4_0")
    unsigned = replace(model.weights[name], encoding=ENCODINGS["F32"]._replace(name="U32", ggml_type=None))
    with pytest.raises(ModelError, match="stored as U32, which GGUF has not"):
        quantize(model._replace(weights={"a.bias": replace(unsigned, name="a.bias")}), tmp_path / "o", encoding="Q4_0")


def test_what_has_no_names_of_gguf_is_refused(model: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no GGUF file"):
        quantize(model._replace(metadata={"model_type": "llama"}), tmp_path / "out.gguf", encoding="Q4_0")


def test_progress(model: Checkpoint, tmp_path: Path) -> None:
    told = list[tuple[int, int]]()
    quantize(
        model, tmp_path / "out.gguf", encoding="F16",
        progress=lambda what, done, total: told.append((done, total)) if what == "quantising weights" else None,
    )  # fmt: skip
    count = len(model.weights)
    assert told == [(i, count) for i in range(count + 1)]


def folder_of(tmp_path: Path, scheme: Scheme) -> tuple[Path, Checkpoint]:
    """A folder of this scheme whose tokenizer GGUF has, too, and the checkpoint with its numbers in F32."""
    _, plain = quantised_model(tmp_path, scheme)
    return with_vocabulary(tmp_path / "own"), plain


@pytest.mark.parametrize("scheme", ["gptq with act-order", "compressed 4 bits with act-order", "mlx 4 bits of 64"])
def test_a_quantised_folder_is_quantised_by_its_numbers(tmp_path: Path, scheme: str) -> None:
    """Also where inputs have an order of their own, which a GGUF file can't say."""
    folder, plain = folder_of(tmp_path, SCHEMES[scheme])
    source, _ = gguf_of(folder)
    with pytest.raises(ModelError, match="is quantised already, as q4_"):
        quantize(source, tmp_path / "out.gguf", encoding="Q8_0")
    quantize(source, tmp_path / "out.gguf", encoding="Q8_0", allow_requantize=True)
    made, names = read_gguf(tmp_path / "out.gguf").weights, with_gguf_names(plain).weights
    assert made.keys() == names.keys()
    for name, weight in made.items():
        again = Weight.from_values(name, names[name].decode(), weight.encoding.name)
        np.testing.assert_array_equal(weight.rows(), again.rows())


def test_what_files_have_in_f32(tmp_path: Path) -> None:
    """Norms of a folder in BF16, of which llama.cpp has none."""
    folder, _ = folder_of(tmp_path, SCHEMES["mlx 4 bits of 64"])
    config = json.loads((folder / "config.json").read_text())
    norm = "model.layers.0.input_layernorm.weight"
    tensors: dict[str, Any] = {name: weight.decode() for name, weight in read_folder(folder).weights.items()}
    tensors[norm], cut = bfloats(tensors[norm])
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "quantization"}))
    write_tensors(folder / "model.safetensors", tensors)
    quantize(gguf_of(folder)[0], tmp_path / "out.gguf", encoding="Q8_0")
    made = read_gguf(tmp_path / "out.gguf").weights["blk.0.attn_norm.weight"]
    assert made.encoding.name == "F32"
    np.testing.assert_array_equal(made.decode(), cut)
