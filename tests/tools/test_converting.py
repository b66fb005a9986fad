"""Models from one format to the other and back: the same program over the same numbers, whatever the architecture."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.checkpoints import optional_names, random_checkpoint
from tests.support.folders import tiny_folder
from tests.support.programs import same_programs
from tests.support.quantised import SCHEMES
from tests.support.quantised import model as quantised_model
from tests.support.tiny_model import TOKENS, VOCABULARY, tiny_model, with_vocabulary

from sotol.backends.cpu.running.fitting import Encoder
from sotol.errors import ModelError, SotolError
from sotol.formats import Weight, read_gguf, read_model, write_gguf
from sotol.models import trace_model
from sotol.tools.converting import convert
from sotol.tools.encoding import planned
from sotol.tools.encoding_threads import EncodingThreads
from sotol.tools.gguf_names import with_gguf_names
from sotol.tools.hub_config import MODELS

# What random checkpoints of some architectures need to be models that Hugging Face's code has, too.
FIELDS: dict[str, dict[str, object]] = {
    "gemma2": {"attention.sliding_window": 9, "attn_logit_softcapping": 5.0},
    "gemma3": {"attention.sliding_window": 9, "rope.freq_base_swa": 500.0, "final_logit_softcapping": 3.0},
    "granite": {"attention.scale": 0.25, "embedding_scale": 3.0, "residual_scale": 0.5, "logit_scale": 2.0},
    "olmo2": {"attention.sliding_window": 9, "attention.sliding_window_pattern": [True, False]},
    "exaone4": {"attention.sliding_window": 9, "attention.sliding_window_pattern": [True, False]},
    "mistral3": {"attention.sliding_window": 9},
    "phi3": {"attention.sliding_window": 9},
    "starcoder2": {"attention.sliding_window": 9},
    "stablelm": {"rope.dimension_count": 4},
    "nemotron": {"rope.dimension_count": 8},
    "glm4": {"rope.dimension_count": 8},
    "glm4moe": {"rope.dimension_count": 8},
    "llama4": {"attention.sliding_window": 8192},
    "gemma4": {"attention.value_length": 32, "rope.freq_base_swa": 500.0, "final_logit_softcapping": 3.0},
}
GEMMA4: dict[str, object] = {
    **{key: value for key, value in VOCABULARY.items() if not key.endswith("scores")},
    "tokenizer.ggml.model": "gemma4",
    "tokenizer.ggml.tokens": [*TOKENS[:-1], "th"],
    "tokenizer.ggml.merges": ["t h"],
}


# Rows of several weights in one when a file comes back, divisors that it did not have, or a norm without .weight.
OTHER_FORMS = {"falcon-h1", "phi3", "glm4", "gemma4"}


def gguf_model(path: Path, architecture: str, fields: Mapping[str, object] | None = None, **more: Any) -> Path:
    model = random_checkpoint(architecture, {**FIELDS.get(architecture, {}), **(fields or {})}, **more)
    weights = model.weights.values()
    if architecture == "gpt-oss":  # whose checkpoints have all biases
        weights = random_checkpoint(architecture, optional=True).weights.values()
    write_gguf(path, {**model.metadata, **vocabulary_of(architecture)}, [_as_released(weight) for weight in weights])
    return path


def vocabulary_of(architecture: str) -> Mapping[str, object]:
    return GEMMA4 if architecture == "gemma4" else VOCABULARY


def _as_released(weight: Weight) -> Weight:
    """Decay rates that are exponentials of float32 numbers, as those of trained models are; all others as they are."""
    if not weight.name.endswith("ssm_a"):
        return weight
    logarithms = np.log(-weight.decode().astype(np.float64)).astype(np.float32)
    return Weight.from_values(weight.name, -np.exp(logarithms.astype(np.float64)).astype(np.float32), "F32")


def hub_model(folder: Path, architecture: str = "llama", config: Mapping[str, object] | None = None) -> Path:
    """A folder whose tokenizer is one that GGUF has, too."""
    return with_vocabulary(tiny_folder(folder, architecture, config))


@pytest.mark.parametrize("architecture", MODELS)
def test_to_a_folder_and_back(architecture: str, tmp_path: Path) -> None:
    path = gguf_model(tmp_path / "m.gguf", architecture)
    folder, again = tmp_path / "folder", tmp_path / "again.gguf"
    assert convert(path, folder, "F32").encoding == "F32"
    convert(folder, again)
    models = [read_model(one) for one in (path, folder, again)]
    first, *others = (trace_model(model, 64) for model in models)
    for other in others:
        same_programs(first, other)
    assert models[0].weights.keys() == models[2].weights.keys() or architecture in OTHER_FORMS
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("architecture", [name for name in MODELS if "output" in optional_names(name)])
def test_a_head_of_its_own(architecture: str, tmp_path: Path) -> None:
    model = random_checkpoint(architecture, FIELDS.get(architecture, {}), optional=True)
    kept = optional_names(architecture) - {"output", "blk.{}.attn_kv_b"} if architecture != "gpt-oss" else set()
    weights = [w for name, w in model.weights.items() if not any(_is(name, left_out) for left_out in kept)]
    fields = vocabulary_of(architecture)
    write_gguf(tmp_path / "m.gguf", {**model.metadata, **fields}, [_as_released(weight) for weight in weights])
    convert(tmp_path / "m.gguf", tmp_path / "folder")
    config = json.loads((tmp_path / "folder" / "config.json").read_text())
    assert config["tie_word_embeddings"] is False
    one, other = (trace_model(read_model(tmp_path / name), 64) for name in ("m.gguf", "folder"))
    same_programs(one, other)


def _is(name: str, of_table: str) -> bool:
    """Whether a weight's full name is this one of a table."""
    before, _, behind = of_table.partition("{}")
    own = name.removesuffix(".weight")
    return own == of_table if not behind else own.startswith(before) and own.endswith(behind) and own != before + behind


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "arcee", "granite", "seed_oss", "ernie4_5"])
def test_biases_are_told(architecture: str, tmp_path: Path) -> None:
    model = random_checkpoint(architecture, FIELDS.get(architecture, {}), optional=True)
    weights = [w for name, w in model.weights.items() if not name.startswith("rope_")]
    write_gguf(tmp_path / "m.gguf", {**model.metadata, **VOCABULARY}, weights)
    convert(tmp_path / "m.gguf", tmp_path / "folder")
    config = json.loads((tmp_path / "folder" / "config.json").read_text())
    assert config["attention_bias"] is True
    assert config.get("mlp_bias", False) is any("ffn_up.bias" in name for name in model.weights)
    one, other = (trace_model(read_model(tmp_path / name), 64) for name in ("m.gguf", "folder"))
    same_programs(one, other)


ROTATIONS: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 4.0},
    "llama3": {
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "yarn": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16},
    "yarn-by-factor": {
        "rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 16,
        "attention_factor": 1.5, "beta_fast": 16.0, "beta_slow": 2.0,
    },
    "yarn-by-mscales": {
        "rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 16,
        "mscale": 1.0, "mscale_all_dim": 0.5,
    },
}  # fmt: skip


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_rotations_of_a_folder_there_and_back(rotation: str, tmp_path: Path) -> None:
    folder = hub_model(tmp_path / "a", config={"rope_parameters": ROTATIONS[rotation]})
    convert(folder, tmp_path / "b.gguf")
    convert(tmp_path / "b.gguf", tmp_path / "c")
    first, *others = (trace_model(read_model(tmp_path / name), 64) for name in ("a", "b.gguf", "c"))
    for other in others:
        same_programs(first, other)
    said = json.loads((tmp_path / "c" / "config.json").read_text())["rope_parameters"]
    assert said["rope_type"] == ROTATIONS[rotation]["rope_type"]


@pytest.mark.parametrize(
    ("architecture", "config", "message"),
    [
        ("smollm3", {"no_rope_layers": [0, 1]}, "layer 0, "),
        ("gemma3", {"query_pre_attn_scalar": 100, "sliding_window": 9}, "attention: scale is 0.1"),
        ("qwen2", {"rope_parameters": ROTATIONS["llama3"]}, "rope_freqs"),
        ("qwen3moe", {"norm_topk_prob": False}, None),
    ],
)
def test_what_gguf_cannot_say(
    architecture: str, config: dict[str, object], message: str | None, tmp_path: Path
) -> None:
    folder = hub_model(tmp_path / "a", architecture, config)
    if message is None:
        convert(folder, tmp_path / "b.gguf")
        return
    with pytest.raises(ModelError, match=message):
        convert(folder, tmp_path / "b.gguf")
    assert not (tmp_path / "b.gguf").exists()


def test_encodings(tmp_path: Path) -> None:
    path = tiny_model(tmp_path)
    folder = tmp_path / "half"
    convert(path, folder, "bf16")
    kinds = {name: weight.encoding.name for name, weight in read_model(folder).weights.items()}
    assert kinds["model.layers.0.self_attn.q_proj.weight"] == "BF16"
    assert kinds["model.layers.0.input_layernorm.weight"] == "F32"
    convert(folder, tmp_path / "half.gguf")
    ours = read_gguf(tmp_path / "half.gguf")
    assert ours.metadata["general.file_type"] == 32
    assert (ours.weights["blk.0.attn_q.weight"].encoding.name, ours.metadata["general.name"]) == ("BF16", "half")
    convert(folder, tmp_path / "q8.gguf", "q8_0")
    q8 = read_gguf(tmp_path / "q8.gguf")
    assert q8.weights["token_embd.weight"].encoding.name == "Q8_0"
    exact, coded = (model.weights["blk.1.ffn_down.weight"].decode() for model in (ours, q8))
    assert 0 < np.abs(exact - coded).max() < np.abs(exact).max() / 100
    with pytest.raises(ValueError, match=r"encoding is 'Q4_K': the options are F32, F16, BF16, Q8_0 \(sotol quantize"):
        convert(folder, tmp_path / "q4.gguf", "Q4_K")
    with pytest.raises(ValueError, match="encoding is 'Q8_0': the options are F32, F16, BF16"):
        convert(path, tmp_path / "q8", "Q8_0")


def test_rows_that_are_no_whole_blocks_become_f16(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    convert(gguf_model(tmp_path / "m.gguf", "llama", {"embedding_length": 36, "attention.head_count": 3}), folder)
    convert(folder, tmp_path / "b.gguf", "Q8_0")
    kinds = {name: weight.encoding.name for name, weight in read_gguf(tmp_path / "b.gguf").weights.items()}
    assert (kinds["blk.0.ffn_up.weight"], kinds["blk.0.ffn_down.weight"]) == ("F16", "Q8_0")


def test_numbers_beyond_f16_are_named(tmp_path: Path) -> None:
    model = random_checkpoint("llama")
    large = model.weights["blk.0.ffn_up.weight"]
    weights = {**model.weights, large.name: type(large).from_values(large.name, large.decode() * 1e6, "F32")}
    write_gguf(tmp_path / "m.gguf", {**model.metadata, **VOCABULARY}, weights.values())
    with pytest.raises(
        SotolError, match=r"weight blk.0.ffn_up.weight, rows .*, can't be F16: .* is beyond the range of float16"
    ):
        convert(tmp_path / "m.gguf", tmp_path / "folder", "F16")
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    path, folder = tiny_model(tmp_path), tmp_path / "folder"
    convert(path, folder)
    (tmp_path / "b.gguf").write_bytes(b"mine")
    for source, out in ((folder, tmp_path / "b.gguf"), (path, folder)):
        with pytest.raises(SotolError, match="is there already: give another path, or --force"):
            convert(source, out)
    assert (tmp_path / "b.gguf").read_bytes() == b"mine"
    convert(folder, tmp_path / "b.gguf", force=True)
    convert(path, folder, "F16", force=True)
    assert read_model(folder).weights["model.layers.0.mlp.up_proj.weight"].encoding.name == "F16"
    (folder / "photo.png").write_bytes(b"mine")
    with pytest.raises(SotolError, match="has more than a model's files, so it is not replaced"):
        convert(path, folder, force=True)
    with pytest.raises(SotolError, match="there is no folder"):
        convert(folder, tmp_path / "nowhere" / "b.gguf")
    (tmp_path / "c.gguf").mkdir()
    with pytest.raises(SotolError, match="is a folder: give the path of a file"):
        convert(folder, tmp_path / "c.gguf")
    with pytest.raises(SotolError, match=r"a folder becomes a GGUF file: give a name that ends in \.gguf"):
        convert(folder, tmp_path / "d")
    with pytest.raises(SotolError, match="a GGUF file becomes a folder"):
        convert(path, tmp_path / "d.gguf")


def test_progress_counts_all_bytes(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    convert(tiny_model(tmp_path), tmp_path / "folder", progress=lambda *said: told.append(said))
    assert told[-1][1] == told[-1][2] == sum(w.nbytes for w in read_model(tmp_path / "folder").weights.values())


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    path = tiny_model(tmp_path)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(path, tmp_path / "folder", progress=stop)
    assert list(tmp_path.iterdir()) == [path]


def test_mixtures_and_mistrals_have_llamas_name_in_gguf(tmp_path: Path) -> None:
    for architecture, config, name in (
        ("mixtral", {}, "llama"),
        ("mistral3", {"model_type": "mistral", "sliding_window": None, "rope_parameters": None}, "llama"),
        ("mistral3", {"model_type": "mistral", "sliding_window": 9, "rope_parameters": None}, "mistral3"),
        ("llama", {}, "llama"),
    ):
        folder = hub_model(tmp_path / "a", architecture, config)
        convert(folder, tmp_path / "b.gguf", force=True)
        assert read_gguf(tmp_path / "b.gguf").metadata["general.architecture"] == name


def test_what_says_which_model_it_is(tmp_path: Path) -> None:
    place = tmp_path / "models--owner--Tiny-Model" / "snapshots" / "0123"
    place.parent.mkdir(parents=True)
    folder = hub_model(place, "qwen3moe")
    templates = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]
    config = json.loads((folder / "tokenizer_config.json").read_text()) | {"chat_template": templates}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    convert(folder, tmp_path / "m.gguf")
    data = read_gguf(tmp_path / "m.gguf")
    assert data.metadata["general.name"] == "Tiny-Model"
    assert data.metadata["general.size_label"] == "5x14K"
    assert data.metadata["tokenizer.chat_template"] == "a"
    assert data.metadata["tokenizer.chat_template.tool_use"] == "b"
    assert data.metadata["tokenizer.chat_templates"] == ["tool_use"]
    assert data.types["qwen3moe.attention.layer_norm_rms_epsilon"] == "float32"
    assert data.types["qwen3moe.rope.freq_base"] == "float32"
    assert data.types["qwen3moe.block_count"] == "uint32"
    assert data.types["tokenizer.ggml.token_type"] == "int32[]"
    convert(tmp_path / "m.gguf", tmp_path / "again")
    again = read_model(tmp_path / "again").metadata
    assert (again["tokenizer.chat_template"], again["tokenizer.chat_template.tool_use"]) == ("a", "b")


def test_a_gemma_3_without_windows_has_both_rotations_all_the_same(tmp_path: Path) -> None:
    path = gguf_model(tmp_path / "m.gguf", "gemma3", {"attention.sliding_window": None})
    convert(path, tmp_path / "a")
    said = json.loads((tmp_path / "a" / "config.json").read_text())["rope_parameters"]
    assert {kind: found["rope_theta"] for kind, found in said.items()} == {
        "full_attention": 10000.0, "sliding_attention": 500.0,
    }  # fmt: skip


def test_layers_that_draft_are_left_out_with_a_remark(tmp_path: Path) -> None:
    """GGUF counts them among the layers, behind the model's own."""
    model = random_checkpoint("glm4moe", FIELDS["glm4moe"])
    square, names = np.ones((32, 32), np.float32), ("attn_q", "nextn.eh_proj")
    drafts = [Weight.from_values(f"blk.2.{name}.weight", square, "F32") for name in names]
    fields = {**model.metadata, **VOCABULARY, "glm4moe.block_count": 3, "glm4moe.nextn_predict_layers": 1}
    write_gguf(tmp_path / "m.gguf", fields, [*model.weights.values(), *drafts])
    remark = "layers that draft tokens ahead are left out: 2 weights"
    assert remark in convert(tmp_path / "m.gguf", tmp_path / "folder").remarks
    config = json.loads((tmp_path / "folder" / "config.json").read_text())
    assert config["num_hidden_layers"] == 2
    assert remark not in convert(tmp_path / "folder", tmp_path / "again.gguf").remarks
    assert read_gguf(tmp_path / "again.gguf").metadata["glm4moe.block_count"] == 2


def test_inputs_in_an_order_of_their_own_are_put_into_the_models(tmp_path: Path) -> None:
    """GPTQ's act-order: a GGUF file has no place for it, so numbers are decoded and columns put back."""
    own, _ = quantised_model(tmp_path, SCHEMES["gptq with act-order"])
    converted = with_gguf_names(own).weights
    shuffled = {name: weight for name, weight in converted.items() if weight.order is not None}
    assert len(shuffled) == 2 * 7
    for name, weight in shuffled.items():
        plan = planned(name, weight, "F32", keep=True)
        assert plan.encoding.name == "F32"
        with EncodingThreads(Encoder(()), 1) as threads:
            rows = np.concatenate(list(threads.rows(plan)))
        np.testing.assert_array_equal(rows.view(np.float32), weight.decode())


def test_sections_of_a_model_that_sees(tmp_path: Path) -> None:
    rotation = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    folder = hub_model(tmp_path / "a", "qwen3vl", {"rope_parameters": rotation})
    convert(folder, tmp_path / "b.gguf")
    assert read_gguf(tmp_path / "b.gguf").metadata["qwen3vl.rope.dimension_sections"] == [2, 3, 3, 0]


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    folder = hub_model(tmp_path / "a", config={"model_type": "strange"})
    with pytest.raises(ModelError, match="architecture 'strange' is not one that sotol knows"):
        convert(folder, tmp_path / "b.gguf")
