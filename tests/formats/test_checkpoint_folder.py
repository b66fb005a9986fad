"""A folder of Hugging Face's kind as one checkpoint: its description, its weights, and what is refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from tests.support.checkpoints import random_checkpoint
from tests.support.folders import NAMED, hub_names, tiny_folder, write_tensors

from sotol.errors import FormatError, ModelError
from sotol.formats import is_hub_model, read_model, write_gguf
from sotol.formats.checkpoint_folder import OTHER_PREFIXES, read_folder
from sotol.models import trace_model
from sotol.program.memory import group_caches
from sotol.program.program import Program


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_folder(tmp_path / "model")


def tensors_of(architecture: str = "llama") -> dict[str, np.ndarray]:
    return hub_names(random_checkpoint(architecture, {"attention.key_length": 16}), architecture)


@pytest.mark.parametrize("architecture", NAMED)
def test_a_folder_of_every_architecture(architecture: str, tmp_path: Path) -> None:
    checkpoint = read_model(tiny_folder(tmp_path / "model", architecture))
    program = trace_model(checkpoint, 64)
    assert program.results["logits"].shape == ("R", 48)
    assert checkpoint.parts == (tmp_path / "model" / "model.safetensors",)


def test_the_same_of_a_file_of_shards_and_of_an_index(folder: Path) -> None:
    whole = read_folder(folder)
    alone = read_folder(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(whole.weights)
    table = dict[str, str]()
    for i in (0, 1, 2):
        shard = f"model-0000{i + 1}-of-00003.safetensors"
        write_tensors(folder / shard, {name: whole.weights[name].decode() for name in names[i::3]})
        table |= dict.fromkeys(names[i::3], shard)
    sharded = read_folder(folder)
    one_of_them = read_folder(folder / "model-00002-of-00003.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    for checkpoint in (alone, sharded, one_of_them, read_folder(folder)):
        assert checkpoint.metadata == whole.metadata
        assert checkpoint.weights.keys() == whole.weights.keys()
        for name, weight in checkpoint.weights.items():
            np.testing.assert_array_equal(weight.decode(), whole.weights[name].decode())


def test_an_index_and_shards_that_disagree(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    write_tensors(folder / "b.safetensors", {"more": np.ones(2, np.float32)})
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"more": "a.safetensors", "lm_head.weight": "b.safetensors"}}))
    with pytest.raises(FormatError, match=re.escape(f"{index}: tensor 'more' is not in a.safetensors, as weight_map")):
        read_folder(folder)
    write_tensors(folder / "b.safetensors", {"model.norm.weight": np.ones(2, np.float32)})
    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors", "model.norm.weight": "b.safetensors"}}))
    with pytest.raises(FormatError, match=r"tensor 'model\.norm\.weight' is in a\.safetensors, too"):
        read_folder(folder)


def test_what_files_beside_config_json_say(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 5], "temperature": 0.6}')
    (folder / "special_tokens_map.json").write_text('{"pad_token": "<|40|>", "bos_token": "<x>"}')
    (folder / "tokenizer_config.json").write_text(
        '{"bos_token": "<s>", "eos_token": null, "chat_template": "{{ bos_token }}", "added_tokens_decoder": {}}'
    )
    metadata = read_folder(folder).metadata
    assert metadata["generation_config"] == {"eos_token_id": [2, 5], "temperature": 0.6}
    assert metadata["tokenizer_config"] == {"pad_token": "<|40|>", "bos_token": "<s>"}
    assert metadata["tokenizer.chat_template"] == "{{ bos_token }}"


def test_where_chat_templates_are(folder: Path) -> None:
    def found() -> dict[str, object]:
        return {key: value for key, value in read_folder(folder).metadata.items() if "chat_template" in key}

    assert found() == {}
    many = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": many}))
    assert found() == {"tokenizer.chat_template": "a", "tokenizer.chat_template.tool_use": "b"}
    (folder / "chat_template.json").write_text('{"chat_template": "c"}')
    assert found() == {"tokenizer.chat_template": "c"}
    (folder / "chat_template.jinja").write_text("d")
    assert found() == {"tokenizer.chat_template": "d"}


@pytest.mark.parametrize("template", [3, {"default": "a"}, [1], [{"name": "a"}], [{"name": 1, "template": "x"}]])
def test_a_template_that_is_none(folder: Path, template: object) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    with pytest.raises(FormatError, match=r"tokenizer_config\.json: chat_template is neither a text nor a list"):
        read_folder(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "config.json: is list in JSON, not an object"),
        ('{"a": 1, "a": 1}', "config.json: has the key 'a' twice"),
        ('{"text_config": 1}', "config.json: text_config is not an object"),
        ("", "config.json: is empty"),
    ],
)
def test_a_config_that_is_wrong(folder: Path, text: str, message: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(FormatError, match=re.escape(message)):
        read_folder(folder)


def test_a_config_that_is_missing(folder: Path) -> None:
    (folder / "config.json").unlink()
    for path in (folder, folder / "model.safetensors"):
        with pytest.raises(FormatError, match=r"config\.json is missing, which says what model"):
            read_folder(path)


def test_what_is_no_models_folder(folder: Path) -> None:
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    with pytest.raises(FormatError, match=r"model\.safetensors: .*; it is a pointer of Git LFS: get the file itself"):
        read_folder(folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model-00001-of-00001.bin").touch()
    with pytest.raises(FormatError, match=r"has no \.safetensors file: its weights are pickles"):
        read_folder(folder)
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(weights)
    with pytest.raises(FormatError, match=r"adapter_model\.safetensors: is an adapter \(LoRA\) for another model"):
        read_folder(folder / "adapter_model.safetensors")


# ---- repositories with several models


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"language_model.{name}",
        lambda name: name.replace("model.", "model.language_model.", 1) if name.startswith("model.") else name,
    ],
    ids=["transformers 4", "transformers 5"],
)
def test_the_text_model_of_a_repository_with_several(folder: Path, rename: object) -> None:
    alone = read_folder(folder)
    config = json.loads((folder / "config.json").read_text())
    text = {**config, "eos_token_id": None}
    outer = {"model_type": "both", "text_config": text, "vision_config": {"hidden_size": 8}, "eos_token_id": [1, 2]}
    (folder / "config.json").write_text(json.dumps(outer))
    tensors = {rename(name): weight.decode() for name, weight in alone.weights.items()}  # type: ignore[operator]
    others = {f"{prefix}a.weight": np.ones(2, np.float32) for prefix in OTHER_PREFIXES}
    write_tensors(folder / "model.safetensors", tensors | others)
    both = read_folder(folder)
    assert both.weights.keys() == alone.weights.keys()
    assert {**both.metadata, "eos_token_id": 2} == alone.metadata
    assert trace_model(both, 64).results.keys() == {"logits"}


def test_single_tensors_of_others_are_left_out_by_their_whole_names(folder: Path) -> None:
    """LLaVA's image_newline is no module. A name that only begins so is another one."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"text_config": config}))
    newline = {"image_newline": np.ones(2, np.float32), "model.image_newline": np.ones(2, np.float32)}
    write_tensors(folder / "model.safetensors", tensors_of() | newline)
    assert "image_newline" not in read_folder(folder).weights
    write_tensors(folder / "model.safetensors", tensors_of() | {"visually.weight": np.ones(2, np.float32)})
    assert "visually.weight" in read_folder(folder).weights


def test_what_a_text_config_leaves_out(folder: Path) -> None:
    """`transformers` writes what differs from a class' defaults: those are taken; null is said."""
    alone = read_folder(folder)
    config = json.loads((folder / "config.json").read_text())
    own = {key: config[key] for key in ("model_type", "hidden_size", "num_hidden_layers", "rope_theta")}
    own |= {"num_key_value_heads": 1, "num_attention_heads": 2, "head_dim": None, "rms_norm_eps": None}
    (folder / "config.json").write_text(json.dumps({"text_config": own}))
    found = read_folder(folder).metadata
    assert (found["intermediate_size"], found["max_position_embeddings"]) == (11008, 2048)
    assert found["rms_norm_eps"] is None
    assert found["head_dim"] == alone.metadata["head_dim"] == 16  # by the matrix of queries
    assert "layer_norm_eps" not in found


def test_a_config_of_several_models_without_a_text_config(folder: Path) -> None:
    """Qwen2-VL's and Qwen2.5-VL's own: flat, with a rotation of its own name; InternVL's says llm_config."""
    alone = trace_model(read_folder(folder), 64)
    config = json.loads((folder / "config.json").read_text())
    tensors = tensors_of()
    rotation = {"rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}
    biases = {f"model.layers.{i}.self_attn.{x}_proj.bias": np.zeros(16 * n, np.float32)
              for i in range(2) for x, n in (("q", 2), ("k", 1), ("v", 1))}  # fmt: skip
    for outer, prefix, tower in (
        ({**config, **rotation, "model_type": "qwen2_5_vl", "vision_config": {}}, "", "visual.merger.ln_q.weight"),
        (
            {"llm_config": {**config, "model_type": "qwen2"}, "model_type": "internvl_chat"},
            "language_model.",
            "mlp1.0.bias",
        ),
    ):
        (folder / "config.json").write_text(json.dumps(outer))
        named = {f"{prefix}{name}": x for name, x in (tensors | biases).items()}
        write_tensors(folder / "model.safetensors", named | {tower: np.ones(2, np.float32)})
        found = trace_model(read_folder(folder), 64)
        assert {weight.name.removeprefix(prefix) for weight in found.weights()} == named_of(alone) | biases.keys()


def named_of(program: Program) -> set[str]:
    return {weight.name for weight in program.weights()}


def test_a_weight_of_no_known_tower_is_named(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"text_config": config}))
    write_tensors(folder / "model.safetensors", tensors_of() | {"radar.weight": np.ones(2, np.float32)})
    with pytest.raises(ModelError, match=r"weight 'radar' \(of 1\) is not part of this architecture"):
        trace_model(read_folder(folder), 64)
    twice = {"model.norm.weight": np.ones(32, np.float32), "language_model.model.norm.weight": np.ones(32, np.float32)}
    write_tensors(folder / "model.safetensors", twice)
    with pytest.raises(FormatError, match=r"are both model\.norm\.weight"):
        read_folder(folder)


# ---- models that sotol does not run


def test_quantized_weights_are_named(folder: Path) -> None:
    (folder / "config.json").write_text(
        json.dumps({"model_type": "llama", "quantization_config": {"quant_method": "aqlm"}})
    )
    with pytest.raises(ModelError, match="its weights are quantized by 'aqlm'"):
        trace_model(read_folder(folder), 64)


def test_a_window_of_all_layers(tmp_path: Path) -> None:
    checkpoint = read_folder(tiny_folder(tmp_path / "model", config={"model_type": "mistral", "sliding_window": 32}))
    (group,) = group_caches(trace_model(checkpoint, 64).caches())
    assert group.window == 32


def test_integers_and_doubles_are_weights_too(folder: Path) -> None:
    tensors = tensors_of()
    tensors["model.norm.weight"] = np.arange(32, dtype=np.int16)
    tensors["model.layers.0.mlp.up_proj.weight"] = tensors["model.layers.0.mlp.up_proj.weight"].astype(np.float64)
    write_tensors(folder / "model.safetensors", tensors)
    weights = {weight.name: weight for weight in trace_model(read_folder(folder), 64).weights()}
    assert {weight.encoding.name for weight in weights.values()} == {"F32", "F64", "I16"}
    assert weights["model.norm.weight"].decode().tolist() == list(range(32))


def test_what_is_a_model_of_the_hub(folder: Path, tmp_path: Path) -> None:
    checkpoint = random_checkpoint("llama")
    write_gguf(tmp_path / "x.gguf", checkpoint.metadata, checkpoint.weights.values())
    assert is_hub_model(folder)
    assert is_hub_model(folder / "model.safetensors")
    assert not is_hub_model(tmp_path / "x.gguf")
    assert read_model(tmp_path / "x.gguf").metadata["general.architecture"] == "llama"
